"""Evaluating from the shell: interrupted and resumed, compared, and refused with a reason."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, write_recipe
from tests.examples import prediction_rows
from utils.evaluation.__main__ import main
from utils.scoring.predictions import load_predictions, save_predictions

TINY = "embedded/whisper-tiny.en"


@pytest.fixture
def recipe(tmp_path):
    changes = {
        "embedded/whisper-base": TINY,
        "max_clips = 24 # in each split": "max_clips = 5",
        "max_clips = 6\n": "max_clips = 2\n",
        "max_clips = 4\n\n": "max_clips = 2\n\n",
        "\nbatch_size = 8": "\nbatch_size = 1",
        "long_seconds = 35 # one window and a bit": "long_seconds = 0",
    }
    return write_recipe(tmp_path / "few.toml", **changes)


def test_an_interrupted_evaluation_resumes(recipe, tmp_path):
    command = [sys.executable, "-m", "utils.evaluation", str(recipe), "--checkpoint", TINY]
    command += ["--runs", str(tmp_path / "runs")]
    folder = tmp_path / "runs/few/evaluation-embedded-whisper-tiny.en"
    journal = folder / "predictions.partial.jsonl"
    started = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background of a script has made them deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while started.poll() is None and not (
        journal.exists() and len(journal.read_text(encoding="utf-8").splitlines()) > 1
    ):
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate()
    assert started.returncode == 130, said[-2000:]
    assert "same command goes on" in said and "Traceback" not in said
    assert not (folder / "evaluation.json").exists()

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Test split, " in done.stdout and "word error rate" in done.stdout
    rows = load_predictions(folder / "predictions.jsonl")
    assert len({row["id"] for row in rows}) == len(rows) == 9
    assert {row["split"] for row in rows} == {"test", "unseen", "untrained"}
    report = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert next(iter(report)) == "summary"
    assert report["summary"]["wer_before"] == report["summary"]["wer_after"]  # the same model twice
    assert set(report["probes"]) == {"silence", "noise", "music"}
    assert report["long_form"] is None
    assert report["speed"]["after"]["times_real_time"] > 0
    left = {path.name for path in folder.iterdir()}
    assert left == {".lock", "predictions.jsonl", "evaluation.json", "evaluation.html"}


def test_runs_are_compared_from_the_shell_and_fail_a_pipeline_if_worse(tmp_path, capsys):
    good = prediction_rows(60)
    runs = {"a": good, "b": [row | {"after": row["before"]} for row in good]}
    for name, rows in (runs | {"other": prediction_rows(1)}).items():
        if name == "other":
            rows = [row | {"id": "elsewhere"} for row in rows]
        save_predictions(tmp_path / name / "predictions.jsonl", rows)
    a, b, other = (str(tmp_path / name) for name in ("a", "b", "other"))
    for arguments, code in (
        ([a, b], 0),
        ([a, b, "--fail-if-worse"], 2),
        ([b, a, "--fail-if-worse"], 0),
        ([a, a, "--fail-if-worse"], 0),
        ([a, other, "--fail-if-worse"], 1),
        ([a, str(tmp_path / "c"), "--fail-if-worse"], 1),
    ):
        assert main(["--compare", *arguments]) == code, arguments
        out, err = capsys.readouterr()
        if code != 1:
            assert "it menardi" in out
        if code == 2:
            assert f"{b} is worse than {a} on it carlo: WER" in err and "errors more, p" in err
    assert "c/predictions.jsonl is missing" in err
    with pytest.raises(SystemExit):
        main(["--compare", a, "--fail-if-worse"])
    assert "--compare BEFORE AFTER" in capsys.readouterr().err


def test_what_cannot_be_evaluated_says_why(recipe, tmp_path, capsys):
    assert main([str(recipe), "--runs", str(tmp_path / "runs")]) == 1
    assert "run notebooks/04_training.ipynb first" in capsys.readouterr().err
    assert main(["recipes/none.toml"]) == 1
    assert "recipes/none.toml is not there" in capsys.readouterr().err
    arguments = [str(recipe), "--runs", str(tmp_path / "runs"), "--checkpoint"]
    assert main([*arguments, "embedded/whisper-bass"]) == 1
    assert 'did you mean "embedded/whisper-base"' in capsys.readouterr().err
