"""A learning curve: nested subsets, points that survive an interruption, one row a size."""

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from utils.artifacts import open_run, save_report
from utils.evaluation import learning_curve as curve
from utils.evaluation.__main__ import main
from utils.evaluation.curve_points import Bounds, plan, subset
from utils.evaluation.plotting import draw_learning_curve


def test_smaller_subsets_are_in_larger_ones_and_the_first_source_comes_first():
    random = np.random.default_rng(1)
    sources = ["a"] * 60 + ["b"] * 40
    train = Dataset.from_dict({"seconds": random.uniform(1, 9, 100), "source": sources})
    own = sum(train["seconds"][:60]) / 60
    for seed in (0, 1):
        before: set[int] = set()
        for minutes in (0.001, 1, 2, own, 99):
            rows = subset(train, minutes, seed, first="a").tolist()
            assert before <= set(rows) and len(set(rows)) == len(rows)
            seconds = sum(train["seconds"][row] for row in rows)
            assert len(rows) == 1 or seconds <= minutes * 60 + 0.01
            if minutes <= own:
                assert {sources[row] for row in rows} == {"a"}
            before = set(rows)
        assert len(before) == 100
    assert set(subset(train, 2, 0)) != set(subset(train, 2, 1))
    assert {sources[row] for row in subset(train, 4, 0)} == {"a", "b"}


def test_steps_are_equal_or_passes_are_and_small_points_have_seeds(tiny_run, rows):
    recipe, _ = tiny_run()
    whole = sum(rows["seconds"][:]) / 60
    points = plan(rows, recipe, Bounds(seeds=2))
    assert [point.steps for point in points] == [0, *[8] * 6]
    assert [point.minutes for point in points][-1] == pytest.approx(whole, abs=0.01)
    assert sum(point.minutes == points[-1].minutes for point in points) == 1
    passes = plan(rows, recipe, Bounds(equal_passes=True, seeds=1))
    assert [point.steps for point in passes] == [0, 1, 2, 4, 8]
    # More than there is, twice: one point with all clips.
    capped = plan(rows, recipe, Bounds(minutes=(50, 60), steps=3))
    assert [(len(point.rows), point.steps) for point in capped] == [(0, 0), (8, 3)]


def test_an_interrupted_curve_goes_on_and_ends_in_rows(tiny_run, rows, tmp_path, monkeypatch):
    recipe, _ = tiny_run()
    others = [
        row | {"source": source, "language": source[:2], "id": f"{source}{row['id']}"}
        for source in ("it other", "fr")
        for row in rows
    ]
    splits = {"train": rows, "dev": rows.select(range(2)), "test": rows.select(range(5))}
    splits["unseen"] = Dataset.from_list(others, features=rows.features)
    DatasetDict(splits).save_to_disk(str(tmp_path / "prepared"))
    bounds = Bounds(minutes=(0.06, 0.2), steps=2, clips=3, seeds=2)
    trained, real = [], curve.measure_point

    def measured(recipe, point, *rest):
        trained.append(point.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(recipe, point, *rest)

    monkeypatch.setattr(curve, "measure_point", measured)
    arguments = recipe, tmp_path / "prepared", tmp_path / "curve", bounds
    with pytest.raises(KeyboardInterrupt):
        curve.learning_curve(*arguments)
    found = curve.learning_curve(*arguments)
    names = ["0min-seed0-0steps", "0.06min-seed0-2steps", "0.06min-seed1-2steps"]
    assert trained == [*names, names[-1], "0.18min-seed0-2steps"]
    assert [(row["minutes"], row["source"], row["seeds"]) for row in found] == [
        *((0, source, 1) for source in ("it", "it other")),
        *((0.06, source, 2) for source in ("it", "it other")),
        *((0.18, source, 1) for source in ("it", "it other")),
    ]
    assert all(row["test_clips"] == 3 and row["wer_low"] <= row["wer_high"] for row in found)
    assert {path.suffix for path in (tmp_path / "curve").iterdir()} == {".json"}  # runs are gone
    labels = draw_learning_curve(found).axes[0].get_legend_handles_labels()[1]
    assert labels == ["it", "it other"]
    # Other test clips: nothing of what is stored counts.
    curve.learning_curve(*arguments[:3], Bounds(minutes=(0.2,), steps=2, clips=2))
    assert len(trained) == 7


def test_the_command_writes_figure_and_numbers_or_says_why_not(tiny_run, rows, capsys, monkeypatch):
    recipe, run = tiny_run()
    (run.folder / "preprocessing.json").unlink()
    asked = [str(recipe.path), "--runs", str(run.folder.parent), "--learning-curve"]
    assert main(asked) == 1
    assert "run notebooks/03_preprocessing.ipynb first" in capsys.readouterr().err
    for wrong in (["--minutes", "nan"], ["--minutes", "0"], ["--seeds", "0"], ["--steps", "-1"]):
        assert main([*asked, *wrong]) == 1
        assert "above 0" in capsys.readouterr().err
    save_report(open_run(recipe, run.folder.parent), "preprocessing", {})
    row = {"minutes": 4.0, "source": "it"} | {
        f"{rate}{end}": 0.5 for rate in ("wer", "cer") for end in ("", "_low", "_high")
    }
    monkeypatch.setattr("utils.evaluation.learning_curve.learning_curve", lambda *_: [row])
    assert main([*asked, "--minutes", "4"]) == 0
    assert "WER 50.0 %" in capsys.readouterr().out
    assert json.loads((run.folder / "learning_curve.json").read_text())["rows"] == [row]
    assert (run.figures / "learning_curve.png").stat().st_size > 1000
