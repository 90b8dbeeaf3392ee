import json
import os
from pathlib import Path

import pytest

from tests.conftest import write_recipe
from utils import artifacts
from utils.__main__ import fingerprint
from utils.artifacts import (
    MADE,
    STAGES,
    MissingArtifact,
    Run,
    RunMismatch,
    open_run,
    require,
    save_report,
    write_atomically,
)
from utils.config import Source, load_recipe
from utils.environment.panel import write_recipe as write_recipe_of_panel
from utils.environment.whole import Damaged, DiskFull


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(write_recipe(tmp_path / "mine.toml"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_report_names_the_notebook_that_makes_it(recipe, tmp_path, stage):
    run = open_run(recipe, tmp_path / "runs")
    with pytest.raises(MissingArtifact) as caught:
        require(run, stage)
    named = str(caught.value).split("run ")[1].split(" first")[0]
    assert Path(named).name[3:] == f"{stage}.ipynb"
    assert Path(named).exists()


def test_a_tilde_in_a_notebooks_paths_is_the_home(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    own = load_recipe("~/mine.toml")
    assert own.path == recipe.path
    assert open_run(own, "~/runs").folder == tmp_path / "runs/mine"
    assert Source("~/data", "it").dataset == str(tmp_path / "data")
    assert write_recipe_of_panel("~/new.toml", recipe.path.read_text()) == tmp_path / "new.toml"


def test_a_report_comes_back_with_the_peak_of_memory(recipe, tmp_path):
    run = open_run(recipe, tmp_path)
    save_report(run, "streaming", {"clips": 3, "text": "perché"})
    report = require(run, "streaming")
    assert report["clips"] == 3
    assert report["text"] == "perché"
    assert report["peak_gib"] > 0


def test_what_was_built_on_an_earlier_report_is_not_taken_with_a_new_one(recipe, tmp_path):
    run = open_run(recipe, tmp_path)
    for stage in STAGES:
        save_report(run, stage, {})
    save_report(run, "environment", {"new": 1})  # another machine: all results stay true
    for stage in STAGES:
        require(run, stage)
    save_report(run, "preprocessing", {"new": 1})
    for stage in STAGES[3:]:
        with pytest.raises(MissingArtifact, match=f"03_preprocessing.*again.*{stage}.ipynb again"):
            require(run, stage)


STEPS, SEED = ("max_steps = 24", "max_steps = 25"), ("seed = 42", "seed = 43")
COMMENT = ("[training]", "# a remark\n[training]")
MARK = ("# What", "\ufeff# What")  # as Windows' editor saves it
CLIPS = ("[training]", '[mixing]\nstop = "all_exhausted"\n[training]')


@pytest.mark.parametrize(
    ("change", "trained", "is_kept"),
    [
        (STEPS, None, True),  # a typo that lesson 4 has found
        (STEPS, "checkpoints/checkpoint-8", False),
        (STEPS, "model", False),
        (COMMENT, "model", True),
        (MARK, "model", True),
        (CLIPS, None, False),
        (SEED, None, False),  # it orders the mix that was prepared
    ],
)
def test_a_changed_recipe_does_not_mix_with_results_that_depend_on_it(
    recipe, tmp_path, change, trained, is_kept
):
    run = open_run(recipe, tmp_path / "runs")
    if trained:
        (run.folder / trained).mkdir(parents=True)
    save_report(run, "preprocessing", {})
    before = fingerprint(run, "preprocessing")
    text = recipe.path.read_text()
    assert change[0] in text
    recipe.path.write_text(text.replace(*change, 1))
    if is_kept:
        open_run(load_recipe(recipe.path), tmp_path / "runs")
        assert fingerprint(run, "preprocessing") == before, "it would be prepared again"
    else:
        with pytest.raises(RunMismatch, match=r"another version of .*mine\.toml.*name|delete"):
            open_run(load_recipe(recipe.path), tmp_path / "runs")
    kept = (run.folder / "recipe.toml").read_text()
    assert kept == (recipe.path.read_text() if is_kept else text)


@pytest.mark.parametrize("content", [b"\xff", b"[training", b"training = 1", b"\0"])
def test_a_damaged_copy_of_the_recipe_is_named(recipe, tmp_path, content):
    run = open_run(recipe, tmp_path)
    (run.folder / "recipe.toml").write_bytes(content)
    with pytest.raises(Damaged, match=r"mine/recipe\.toml is damaged: delete it if"):
        open_run(recipe, tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_atomically(path, "old")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DiskFull, match=r"report\.json does not fit: 3 bytes are needed"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_stages_are_the_lessons():
    lessons = sorted(path.stem[3:] for path in Path("notebooks").glob("[0-9]*.ipynb"))
    assert sorted(STAGES) == lessons
    assert all(Path(artifacts.notebook_of(stage)).exists() for stage in STAGES)


def test_reports_are_readable_json(recipe, tmp_path):
    run = open_run(recipe, tmp_path)
    text = save_report(run, "environment", {"a": 1}).read_text()
    assert json.loads(text)["a"] == 1
    assert text.endswith("\n")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("spoil", [Path.unlink, zero, lambda path: path.write_bytes(b"1")])
@pytest.mark.parametrize(("stage", "name"), [(stage, one) for stage in MADE for one in MADE[stage]])
def test_what_a_lesson_made_is_whole_or_its_name_and_the_way_out_are_told(
    recipe, tmp_path, stage, name, spoil
):
    run = open_run(recipe, tmp_path / "runs")
    path = run.folder / name / "deeper/data.arrow" if "." not in name else run.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"something")
    save_report(run, stage, {})
    run.folder.rename(tmp_path / "moved")  # a run folder may be moved
    run = Run(tmp_path / "moved")
    require(run, stage)
    spoil(run.folder / path.relative_to(tmp_path / "runs/mine"))
    with pytest.raises(Damaged) as caught:
        require(run, stage)
    assert path.name in str(caught.value) and f"{stage}.ipynb again" in str(caught.value)


def test_what_is_published_may_be_edited_before_it_is(recipe, tmp_path):
    run = open_run(recipe, tmp_path)
    for folder in (run.repository, run.space):
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("The draft.")
    save_report(run, "export", {})
    for folder in (run.repository, run.space):
        (folder / "README.md").write_text("A person's.")
    require(run, "export")
