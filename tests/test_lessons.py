"""The seven lessons in order, by papermill, on the real model and real speech of smoke.toml."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jiwer
import nbformat
import numpy as np
import pytest
from datasets import load_from_disk
from transformers import WhisperForConditionalGeneration

from tests.conftest import ROOT, write_recipe
from tests.independent import edits, interval
from utils.__main__ import executed, fingerprint, run_lessons, state_of_recordings
from utils.artifacts import STAGES, MissingArtifact, notebook_of, open_run
from utils.config import load_recipe
from utils.text import normalize
from utils.training.checkpoints import damage

CANARY = "hf_" + "Canary" * 6  # a token, planted: it must stand in nothing that a run leaves
LESSONS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))


def run_recipe(runs, *arguments, recipe="recipes/smoke.toml", **environment):
    return subprocess.run(
        [sys.executable, "-m", "utils", str(recipe), "--runs", str(runs), *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder of a whole run, and what it printed."""
    runs = tmp_path_factory.mktemp("runs")
    done = run_recipe(runs, HF_TOKEN=CANARY)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return runs / "smoke", done.stdout + done.stderr


def report(folder, stage):
    return json.loads((folder / f"{stage}.json").read_text(encoding="utf-8"))


@pytest.mark.fault(31)
def test_every_stage_reports_and_every_lesson_is_kept_as_notebook_and_page(smoke):
    folder, printed = smoke
    for stage in STAGES:
        assert report(folder, stage)["peak_gib"] > 0
        name = Path(notebook_of(stage)).stem
        assert (folder / f"notebooks/{name}.html").stat().st_size > 10_000
        assert f"{name}.ipynb" in printed
    for word in ("WER before", "WER after", "seconds:", "memory:", "python -m utils.demo"):
        assert word in printed.replace(sys.executable, "python"), word


def test_pages_show_what_sliders_would(smoke):
    for name, words in (("02_streaming", "temperature 100"), ("03_preprocessing", "clip 4")):
        page = (smoke[0] / f"notebooks/{name}.html").read_text(encoding="utf-8")
        assert f"<b>{words}</b>" in page


def test_memory_stays_below_8_gib(smoke):
    assert max(report(smoke[0], stage)["peak_gib"] for stage in STAGES) < 8


def test_no_executed_lesson_holds_a_warning_or_an_error(smoke):
    for path in sorted((smoke[0] / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert output.output_type != "error", path
                text = output.get("text", "") if output.get("name") == "stderr" else ""
                assert "Warning" not in text, f"{path.name}: {text[:500]}"


def test_training_made_the_loss_fall_and_taught_the_short_window(smoke):
    training = report(smoke[0], "training")
    assert training["loss_last"] < training["loss_first"] / 10
    # 85 words, of which a few are luck; a model that was not trained at the short window repeats
    # itself there: above 100 %.
    assert training["dev_wer_saved"] < training["dev_wer_before"] + 0.05


def test_the_wer_of_the_report_is_that_of_the_predictions(smoke):
    lines = (smoke[0] / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    summary = report(smoke[0], "evaluation")["summary"]
    assert summary["clips"] == len(rows)
    for side in ("before", "after"):
        said, hypothesis = (
            [normalize(row[key], row["language"]) for row in rows] for key in ("reference", side)
        )
        assert summary[f"wer_{side}"] == pytest.approx(jiwer.wer(said, hypothesis))
        assert summary[f"cer_{side}"] == pytest.approx(jiwer.cer(said, hypothesis))
        low, high = summary[f"wer_{side}_low"], summary[f"wer_{side}_high"]
        assert low <= summary[f"wer_{side}"] <= high


def test_the_report_recomputed_without_jiwer_and_scipy_agrees(smoke):
    evaluation = report(smoke[0], "evaluation")
    lines = (smoke[0] / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    for side in ("before", "after"):
        for unit in ("word", "char"):
            counts = np.array([edits(row, side, unit) for row in rows])
            rate = f"{unit[0]}er_{side}"
            assert evaluation["summary"][rate] == counts[:, 0].sum() / counts[:, 1].sum()
            low, high = interval(counts, evaluation["resamples"])
            assert evaluation["test"][f"{rate}_low"] == pytest.approx(low, rel=1e-9)
            assert evaluation["test"][f"{rate}_high"] == pytest.approx(high, rel=1e-9)


def test_the_report_says_what_fine_tuning_cost(smoke):
    evaluation = report(smoke[0], "evaluation")
    assert evaluation["untrained"]["clips"] == 4
    assert set(evaluation["probes"]) == {"silence", "noise", "music"}
    assert evaluation["long_form"]["seconds"] > 30
    assert "wer_after_30s" in evaluation["test"], "other programs' window was not measured"
    assert not any(n for pair in evaluation["overlaps"].values() for n in pair.values())
    page = (smoke[0] / "evaluation.html").read_text(encoding="utf-8")
    assert page.index("Test split, ") < page.index("<table")
    assert page.count("data:audio/wav") == 3  # the worst clips
    assert not (smoke[0] / "predictions.partial.jsonl").exists()


def test_the_summary_opens_the_report_in_its_fixed_shape(smoke):
    evaluation = report(smoke[0], "evaluation")
    assert next(iter(evaluation)) == "summary"
    assert list(evaluation["summary"]) == [
        *("clips", "wer_before", "wer_before_low", "wer_before_high"),
        *("wer_after", "wer_after_low", "wer_after_high"),
        *("cer_before", "cer_after", "p_value"),
    ]


def test_no_test_sentence_was_trained_on(smoke):
    splits = load_from_disk(str(smoke[0] / "prepared"))
    texts = {
        name: {normalize(text, "it") for text in rows["text"][:]} for name, rows in splits.items()
    }
    assert not texts["train"] & (texts["dev"] | texts["test"] | texts["unseen"])
    assert not texts["dev"] & texts["test"]


def test_model_and_checkpoints_are_whole_and_load(smoke):
    folder = smoke[0]
    assert damage(folder / "model") == ""
    for path in [folder / "model", *folder.glob("checkpoints/checkpoint-*")]:
        assert damage(path) == ""
        model = WhisperForConditionalGeneration.from_pretrained(path)
        assert model.config.vocab_size == 51865
        assert model.config.max_source_positions == 1500


def test_the_page_answered_a_request_with_what_the_model_writes(smoke):
    assert report(smoke[0], "demo")["before"] or report(smoke[0], "demo")["after"]


def test_the_formats_are_small_quick_and_hear_the_same(smoke):
    found = report(smoke[0], "export")
    assert found["int8_share"] <= 0.3
    formats = found["formats"]
    ours, theirs = formats["Transformers float32, short"], formats["CTranslate2 int8, short"]
    # In one window 1.2 to 1.7 times on an AMD EPYC without AVX-512, and 2.7 times where
    # benchmarks/results/export.json was measured.
    assert theirs["speed"] > max(2, ours["speed"])
    assert formats["whisper.cpp float16, as documented"]["clips"] >= 5
    assert "test" in {one["split"] for one in found["documented"].values()}


def test_without_a_name_on_the_hub_nothing_is_pushed_and_the_lesson_says_so(smoke):
    notebook = (smoke[0] / "notebooks/07_export.ipynb").read_text(encoding="utf-8")
    assert "Nothing is pushed: REPOSITORY names nobody." in notebook
    assert "training_args.bin" not in {path.name for path in smoke[0].glob("export/**/*")}


@pytest.mark.fault(21)
def test_a_planted_token_stands_in_nothing_that_a_run_leaves(smoke):
    assert CANARY not in smoke[1]
    files = [path for path in smoke[0].rglob("*") if path.is_file()]
    assert len(files) > 50
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_second_run_reuses_everything(smoke):
    before = {path: path.stat().st_mtime_ns for path in smoke[0].rglob("*") if path.is_file()}
    done = run_recipe(smoke[0].parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("complete, reused") == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_new_prose_leaves_a_lesson_complete_and_new_code_does_not(tmp_path, monkeypatch):
    run = open_run(load_recipe("recipes/smoke.toml"), tmp_path)
    cells = json.loads(Path(notebook_of("training")).read_text(encoding="utf-8"))["cells"]
    fingerprints = []
    for kind in ("none", "markdown", "code"):
        changed = [
            {**cell, "source": [*cell["source"], "\n# more"]} if cell["cell_type"] == kind else cell
            for cell in cells
        ]
        path = tmp_path / f"{kind}.ipynb"
        path.write_text(json.dumps({"cells": changed}), encoding="utf-8")
        monkeypatch.setattr("utils.__main__.notebook_of", lambda _, path=path: str(path))
        fingerprints.append(fingerprint(run, "training"))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_new_recording_is_noticed_and_no_file_of_another_recipe(tmp_path, wav, monkeypatch):
    recipe = tmp_path / "mine.toml"
    text = Path("recipes/own_recordings.toml").read_text(encoding="utf-8")
    recipe.write_text(text.replace("my_recordings", "recordings/mine"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "theirs"):
        Path("recordings", folder).mkdir(parents=True)
    before = state_of_recordings(load_recipe(recipe))
    Path("recordings/theirs/one.wav").write_bytes(wav())
    assert state_of_recordings(load_recipe(recipe)) == before
    Path("recordings/mine/one.wav").write_bytes(wav())
    assert state_of_recordings(load_recipe(recipe)) != before


def test_a_lost_report_makes_its_lesson_and_all_later_ones_run_again(tmp_path, monkeypatch):
    recipe = load_recipe("recipes/smoke.toml")
    run = open_run(recipe, tmp_path)
    ran = []

    def execute(run, stage, *_):
        ran.append(stage)
        for path in (run.report(stage), executed(run, stage)):
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}", encoding="utf-8")

    monkeypatch.setattr("utils.__main__.execute", execute)
    for lost, again in [("", STAGES), ("", ()), ("evaluation", STAGES[4:])]:
        if lost:
            run.report(lost).unlink()
        ran.clear()
        run_lessons(recipe, run, str(tmp_path))
        assert tuple(ran) == tuple(again)


@pytest.mark.parametrize("lesson", LESSONS[1:], ids=lambda path: path.stem)
def test_a_lesson_alone_in_an_empty_folder_names_what_to_run_first(lesson, tmp_path):
    namespace = {"__name__": "__main__"}
    with pytest.raises(MissingArtifact) as stopped:
        for cell in nbformat.read(lesson, as_version=4).cells:
            if cell.cell_type == "code":
                exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= {"RECIPE": "recipes/smoke.toml", "RUNS": str(tmp_path)}
    # The demo needs the model, which an evaluation does not make; no lesson needs the demo.
    needs = {"06_demo": "04_training", "07_export": "05_evaluation"}
    previous = needs.get(lesson.stem, LESSONS[LESSONS.index(lesson) - 1].stem)
    assert f"is missing: run notebooks/{previous}.ipynb first." in str(stopped.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("max_steps", "max_stepz"), ["max_stepz", 'did you mean "max_steps"?']),
        (('"embedded/whisper-base"', '"embedded/whisper-bass"'), ["whisper-bass", "whisper-base"]),
        (('name = "carlo"', 'name = "carla"'), ['"it carla"', 'did you mean "it carlo"?']),
        (('"embedded/whisper-base"', '"runs/no-such-model"'), ["01_environment", "no-such-model"]),
    ],
    ids=["unknown key", "unknown model", "unknown speaker", "a lesson that stops"],
)
def test_a_run_that_cannot_be_says_why_in_words_and_fails(tmp_path, change, words):
    recipe = write_recipe(tmp_path / "bad.toml", **{change[0]: change[1]})
    done = run_recipe(tmp_path / "runs", recipe=recipe)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
