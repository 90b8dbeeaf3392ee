"""The bootstrap cell, run as Colab runs it: in a folder where nothing of the series is."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from test_build import build

ROOT = Path(__file__).resolve().parents[1]
RUNNER = """\
import json, os, sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
exec(open(sys.argv[1], encoding="utf-8").read())
import utils
found = {"cwd": os.getcwd(), "first": sys.path[0], "utils": utils.__file__}
found["heavy"] = sorted({"torch", "transformers", "numpy"} & set(sys.modules))
print(json.dumps(found))
"""
FAKE_PIP = """\
import json, os, sys
with open(os.environ["PIP_LOG"], "a", encoding="utf-8") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if "no-such-package>=1" in sys.argv:
    sys.exit("WARNING: x\\nERROR: No matching distribution found for no-such-package>=1")
"""


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, "-c", f"init.defaultBranch={build.BRANCH}", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A git repository with what the cell needs of the working tree."""
    folder = tmp_path / "repository"
    for name in ("utils", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", folder)
    git(folder, "init")
    git(folder, "add", "--all")
    git(folder, "commit", "--message", "state")
    return folder


def require_also(repository, *lines):
    """Commit more lines to the repository's requirements."""
    with (repository / "requirements.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    git(repository, "commit", "--all", "--message", "more requirements")


@pytest.fixture
def run_cell(tmp_path, repository):
    """Run the cell of a built notebook in a folder, with pip replaced by a recorder."""
    source = tmp_path / "tree/notebooks/source"
    source.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/source/bootstrap.py", source)
    (source / "01_first.py").write_text("# %% [markdown]\n# # 1 · First\n", encoding="utf-8")
    notebook = build.build_all(tmp_path / "tree")[tmp_path / "tree/notebooks/01_first.ipynb"]
    (tmp_path / "cell.py").write_text(
        nbformat.reads(notebook, as_version=4).cells[2].source, encoding="utf-8"
    )
    (tmp_path / "runner.py").write_text(RUNNER, encoding="utf-8")
    (tmp_path / "fake/pip").mkdir(parents=True)
    (tmp_path / "fake/pip/__init__.py").touch()  # without it the real pip would win
    (tmp_path / "fake/pip/__main__.py").write_text(FAKE_PIP, encoding="utf-8")

    def run(folder, **environment):
        folder.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, tmp_path / "runner.py", tmp_path / "cell.py"],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(tmp_path / "fake"),
                "PIP_LOG": str(tmp_path / "pip.log"),
                "WHISPER_NOTEBOOKS_REPO": str(repository),
                **environment,
            },
            capture_output=True,
            text=True,
        )

    return run


def pip_calls(tmp_path):
    log = tmp_path / "pip.log"
    return (
        [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []
    )


def facts(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_in_an_empty_folder_it_clones_and_goes_there(tmp_path, run_cell):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/utils.py").write_text("raise ImportError('not ours')", encoding="utf-8")
    found = facts(run_cell(tmp_path / "empty"))
    clone = str(tmp_path / "empty/whisper-fine-tuning")
    assert found["cwd"] == found["first"] == clone
    assert found["utils"] == f"{clone}/utils/__init__.py"


def test_nothing_is_installed_where_all_is_there_and_nothing_heavy_is_imported(tmp_path, run_cell):
    found = facts(run_cell(tmp_path / "empty"))
    assert pip_calls(tmp_path) == []
    assert found["heavy"] == []


def test_a_second_run_uses_the_clone_that_is_there(tmp_path, run_cell):
    facts(run_cell(tmp_path / "empty"))
    clone = tmp_path / "empty/whisper-fine-tuning"
    (clone / "mine.txt").write_text("kept", encoding="utf-8")
    for folder in (tmp_path / "empty", clone / "recipes"):
        found = facts(run_cell(folder, WHISPER_NOTEBOOKS_REPO=str(tmp_path / "gone")))
        assert found["cwd"] == str(clone)
    assert (clone / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_inside_the_repository_it_uses_the_repository(tmp_path, run_cell, repository):
    found = facts(run_cell(repository / "notebooks"))
    assert found["cwd"] == found["first"] == str(repository)
    assert not (repository / "notebooks/whisper-fine-tuning").exists()


def test_only_what_is_missing_or_too_old_is_installed_and_torch_stays(
    tmp_path, run_cell, repository
):
    require_also(repository, "# a comment", "torch>=99", "absent-package>=1.5  # why", "jiwer>=99")
    facts(run_cell(tmp_path / "empty"))
    (call,) = pip_calls(tmp_path)
    assert call[0] == "install"
    assert {"absent-package>=1.5", "jiwer>=99"} <= set(call)
    pinned = {argument for argument in call if "==" in argument}
    assert f"torch=={version('torch')}" in pinned and f"numpy=={version('numpy')}" in pinned
    assert {part.split("==")[0] for part in pinned} <= {
        *("torch", "torchvision", "torchaudio", "numpy", "ipykernel", "ipywidgets")
    }
    assert not any(argument.startswith("torch>") for argument in call)
    assert len(call) == 1 + 2 + len(pinned)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"WHISPER_NOTEBOOKS_REPO": "/there/is/nothing"}, "'/there/is/nothing' does not exist"),
        ({"PATH": ""}, "No such file or directory: 'git'"),
    ],
)
def test_a_failed_clone_is_one_sentence_with_the_reason(tmp_path, run_cell, environment, reason):
    process = run_cell(tmp_path / "empty", **environment)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: `git clone") and reason in last
    assert "During handling" not in process.stderr
    assert not (tmp_path / "empty/whisper-fine-tuning").exists()


def test_a_failed_installation_is_one_sentence_with_pips_reason(tmp_path, run_cell, repository):
    require_also(repository, "no-such-package>=1")
    process = run_cell(tmp_path / "empty")
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last.endswith("failed: ERROR: No matching distribution found for no-such-package>=1")
