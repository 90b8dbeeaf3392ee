"""What was measured: one shape for all results, and one page that says all of them."""

import importlib
import json
import sys

import pytest
from datasets import Dataset, DatasetDict

from benchmarks import common, seeds
from benchmarks.common import RESULTS, overview
from utils.artifacts import save_report
from utils.training.run import train

SHAPE = ["name", "date", "command", "commit", "machine", "versions", "target", "ratio", "rows"]


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_a_result_says_what_where_when_and_how(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert list(result)[: len(SHAPE)] == SHAPE
    assert result["name"] == path.stem and f"benchmarks.{path.stem}" in result["command"]
    assert (RESULTS.parent / f"{path.stem}.py").exists()
    ratio = result["ratio"]
    assert ratio["low"] <= ratio["median"] <= ratio["high"]


def test_the_page_of_results_is_that_of_the_results():
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert page == overview(), "run any benchmark, or write benchmarks.common.overview() to it"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hours", ["--minutes", "0.06", "0.2", "--seeds", "2", "--equal-passes"]),
        ("seeds", ["--seeds", "2", "--stock-shares", "0", "1"]),
        ("augmentation", ["--seeds", "1", "--kinds", "none", "spec_augment", "telephone"]),
        ("lora", ["--seeds", "1", "--rates", "1e-3"]),
        ("pseudo_labels", ["--minutes", "0.06"]),
        ("non_speech", ["--shares", "0", "1", "--probes", "2"]),
        ("lengths", ["--seconds", "1", "5", "--rounds", "1"]),
    ],
)
def test_trainings_that_are_compared_run_to_their_end(
    name, options, tiny_run, rows, tmp_path, monkeypatch
):
    """On a tiny model and eight clips: what a benchmark of hours would stumble over at its end."""
    recipe, run = tiny_run(training="max_steps = 2\nper_device_train_batch_size = 3")
    unseen = [row | {"source": "it other", "id": f"o{row['id']}"} for row in rows]
    splits = {"train": rows, "dev": rows.select(range(2)), "test": rows.select(range(4))}
    splits["unseen"] = Dataset.from_list(unseen, features=rows.features)
    module = importlib.import_module(f"benchmarks.{name}")
    for place in (common, seeds, module):
        monkeypatch.setattr(
            place,
            "prepare",
            lambda recipe, tokenizer, folder: DatasetDict(splits).save_to_disk(str(folder)),
            raising=False,
        )
        monkeypatch.setattr(place, "PLACE", tmp_path / "results", raising=False)
        monkeypatch.setattr(place, "RESULTS", tmp_path / "results", raising=False)
    monkeypatch.setattr(common, "overview", lambda: "")
    (tmp_path / "results").mkdir()
    if name == "lengths":  # it needs a finished run
        train(recipe, run)
        save_report(run, "training", {})
    own = run.folder.parent if name == "lengths" else tmp_path / "own"
    given = ["--recipe", str(recipe.path), "--runs", str(own)]
    monkeypatch.setattr(sys, "argv", [name, *given, *options])
    module.main()
    result = json.loads((tmp_path / f"results/{name}.json").read_text(encoding="utf-8"))
    assert list(result)[: len(SHAPE)] == SHAPE and len(result["rows"]) >= 2
