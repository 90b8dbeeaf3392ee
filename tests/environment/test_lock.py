"""One writer for a run folder: two real processes, links, moves, and a kill."""

import errno
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT, write_recipe
from utils import __main__ as lessons
from utils.artifacts import open_run, require, save_report
from utils.config import load_recipe
from utils.environment.lock import InUse, only_writer
from utils.evaluation import __main__ as evaluation
from utils.export import __main__ as export
from utils.training import __main__ as training

HOLDS = """
import sys
from pathlib import Path
from utils.environment.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_writer(folder):
    """A process that writes to a folder until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout.readline() == b"holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def run(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path / "mine.toml"))
    run = open_run(recipe, tmp_path / "runs")
    for stage in ("training", "export"):
        save_report(run, stage, {})
    return run


def test_a_second_writer_is_told_of_the_first_wherever_links_lead(run, tmp_path):
    (tmp_path / "link").symlink_to(run.folder)
    with another_writer(run.folder) as first:
        for folder in (run.folder, tmp_path / "link"):
            told = pytest.raises(InUse, match=f"in use by process {first.pid} of .*wait until")
            with told, only_writer(folder):
                pass
        assert require(run, "training"), "who reads waits for nobody"
    with only_writer(tmp_path / "link"), only_writer(run.folder):  # killed: its lock is free
        child = "from utils.environment.lock import only_writer; import pathlib, sys\n"
        child += "with only_writer(pathlib.Path(sys.argv[1])): pass"
        subprocess.run([sys.executable, "-c", child, str(run.folder)], cwd=ROOT, check=True)
    assert not (run.folder / ".writer").exists()
    run.folder.rename(tmp_path / "moved")
    with only_writer(tmp_path / "moved"), only_writer(tmp_path / "another"):
        pass


def test_further_processes_of_one_training_pass(run, monkeypatch):
    with another_writer(run.folder):
        monkeypatch.setenv("RANK", "1")
        with only_writer(run.folder):
            pass


@pytest.mark.parametrize(
    ("main", "words"),
    [(lessons, []), (training, []), (evaluation, []), (export, ["--repository", "a/b"])],
)
def test_every_command_that_writes_says_who_does_already(run, tmp_path, capsys, main, words):
    with another_writer(run.folder) as first:
        said = [str(tmp_path / "mine.toml"), "--runs", str(tmp_path / "runs"), *words]
        assert main.main(said) == 1
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert f"process {first.pid} " in sentence and str(run.folder) in sentence


def test_data_is_prepared_by_one_process(run, tmp_path):
    from utils.preprocessing.prepare import prepare  # with torch, that nothing else here needs

    with another_writer(run.folder), pytest.raises(InUse):
        prepare(load_recipe(tmp_path / "mine.toml"), None, run.prepared)


def test_a_disk_without_locks_is_no_fault(run, monkeypatch, caplog):
    def lacks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock._acquire", lacks)
    with only_writer(run.folder):
        assert "has no locks" in caplog.text
