"""The bootstrap cell, run as Colab runs it: in a folder where nothing of the series is."""

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from test_build import build

from utils.environment.packages import KEPT

ROOT = Path(__file__).resolve().parents[1]
RUNNER = """\
import json, os, pathlib, subprocess, sys, types, urllib.request
os.name = os.environ.get("SYSTEM", os.name)
if told := os.environ.get("PYTHON_VERSION"):
    sys.version, sys.version_info = told, tuple(map(int, told.split(".")))
sys.modules["google.colab"] = types.ModuleType("google.colab")
for name in os.environ.get("LOADED", "").split():
    sys.modules[name] = types.ModuleType(name)
exec(open(sys.argv[1], encoding="utf-8").read())
import utils
found = {"cwd": os.getcwd(), "first": sys.path[0], "utils": utils.__file__}
found["heavy"] = sorted({"torch", "transformers", "numpy"} & set(sys.modules))
print(json.dumps(found))
"""
FAKE_PIP = """\
import json, os, sys
kept = open(sys.argv[sys.argv.index("-c") + 1], encoding="utf-8").read().split()
with open(os.environ["PIP_LOG"], "a", encoding="utf-8") as log:
    log.write(json.dumps({"arguments": sys.argv[1:], "kept": kept}) + "\\n")
if "no-such-package>=1" in sys.argv:
    sys.exit(os.environ.get("PIP_SAYS") or "WARNING: x\\nERROR: No matching distribution\\nhelp")
if os.environ.get("EXCHANGES"):  # what pip leaves behind
    name, new = os.environ["EXCHANGES"].split("==")
    folder = os.path.join(os.environ["PYTHONPATH"], f"{name}-{new}.dist-info")
    os.makedirs(folder)
    with open(os.path.join(folder, "METADATA"), "w", encoding="utf-8") as file:
        file.write(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {new}\\n")
"""


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, "-c", "init.defaultBranch=main", *arguments]
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


def test_only_what_is_missing_or_too_old_is_installed_and_what_is_kept_is_a_constraint(
    tmp_path, run_cell, repository
):
    also = ["# a comment", "torch>=99", "absent-package>=1.5  # why", "jiwer>=99"]
    require_also(repository, *also, 'not-for-this-python>=1; python_version < "3"')
    facts(run_cell(tmp_path / "empty"))
    (call,) = pip_calls(tmp_path)
    install, *needs, flag, _ = call["arguments"]
    assert (install, flag) == ("install", "-c")
    assert set(needs) == {"absent-package>=1.5", "jiwer>=99"}
    assert {f"{name}=={version(name)}" for name in ("torch", "numpy")} <= set(call["kept"])
    assert {line.split("==")[0] for line in call["kept"]} <= set(KEPT)


@pytest.mark.parametrize(("loaded", "stops"), [("jiwer", True), ("pyarrow", False), ("", False)])
def test_a_package_that_was_imported_before_it_is_exchanged_asks_for_another_session(
    tmp_path, run_cell, repository, loaded, stops
):
    require_also(repository, "jiwer>=99")
    process = run_cell(tmp_path / "empty", LOADED=loaded, EXCHANGES="jiwer==99.0")
    if not stops:
        facts(process)
        return
    last = process.stderr.strip().splitlines()[-1]
    assert "jiwer 4" in last and "Runtime → Restart session" in last
    facts(run_cell(tmp_path / "empty"))  # a new kernel, and nothing is left to install
    assert len(pip_calls(tmp_path)) == 1


@pytest.mark.parametrize("other", [{"SYSTEM": "nt"}, {"PYTHON_VERSION": "3.10.12"}])
def test_a_kernel_that_cannot_run_the_lessons_is_told_before_anything_is_fetched(
    tmp_path, run_cell, other
):
    last = last_line(run_cell(tmp_path / "empty", **other))
    assert last.startswith("RuntimeError: This kernel is Python 3.") and "WSL" in last
    assert not any((tmp_path / "empty").iterdir())


def last_line(process):
    assert process.returncode != 0
    assert "During handling" not in process.stderr
    return process.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"WHISPER_NOTEBOOKS_REPO": "/there/is/nothing"}, "'/there/is/nothing' does not exist"),
        (
            {"WHISPER_NOTEBOOKS_REPO": "file://me:secret@host/x"},
            "file://host/x could not be cloned",
        ),
        (
            {"WHISPER_NOTEBOOKS_REPO": ""},
            'os.environ["WHISPER_NOTEBOOKS_REPO"] = "ACCOUNT/REPOSITORY"',
        ),
        ({"PATH": ""}, "git is missing"),
    ],
)
def test_a_failed_clone_is_one_sentence_with_the_way_out(tmp_path, run_cell, environment, reason):
    last = last_line(run_cell(tmp_path / "empty", **environment))
    assert last.startswith("RuntimeError: ") and reason in last
    assert "secret" not in last
    assert not (tmp_path / "empty/whisper-fine-tuning").exists()


FAKE_GIT = """\
#!/bin/sh
echo "$@" >> "$GIT_LOG"
echo "$GIT_SAYS" >&2
exit 128
"""


@pytest.fixture
def fake_git(tmp_path):
    """Environment in which git writes down how it is called, and fails as it is told."""
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text(FAKE_GIT, encoding="utf-8")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {"PATH": path, "GIT_LOG": str(tmp_path / "git.log"), "WHISPER_NOTEBOOKS_REPO": ""}


@pytest.mark.parametrize(
    ("said", "kaggle", "reason"),
    [
        (
            "fatal: unable to access 'x': Could not resolve host: github.com",
            True,
            "Session options",
        ),
        ("fatal: unable to access 'x': Could not resolve host: github.com", False, "resolve host"),
        ("fatal: could not read Username for 'https://github.com'", False, "no such repository"),
        ("fatal: Remote branch dev not found in upstream origin", False, "Remote branch dev"),
        ("fatal: write error: No space left on device", False, "No space left"),
    ],
)
def test_what_git_says_becomes_a_sentence(tmp_path, run_cell, fake_git, said, kaggle, reason):
    environment = fake_git | {"WHISPER_NOTEBOOKS_REPO": "me/fork", "GIT_SAYS": said}
    environment |= {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"} if kaggle else {}
    last = last_line(run_cell(tmp_path / "empty", **environment))
    assert "https://github.com/me/fork could not be cloned" in last and reason in last


@pytest.mark.parametrize(
    ("sessions", "cloned"),
    [
        (
            '[{"path": "fileId=https%3A//github.com/me/fork/blob/a/b/notebooks/01_first.ipynb"}]',
            "--branch a/b https://github.com/me/fork",
        ),
        ('[{"path": "fileId=1AbCd"}, {"name": "x"}]', ""),  # a copy in Drive
        ('{"message": "no"}', ""),
        ("<html>", ""),
    ],
)
def test_in_colab_the_session_names_the_repository_and_the_branch(
    tmp_path, run_cell, fake_git, sessions, cloned
):
    class Sessions(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(sessions.encode() if self.path == "/api/sessions" else b"")

        def log_message(self, *_):
            pass

    # An address of this machine of its own: 9000 of 127.0.0.1 may be in use.
    server = HTTPServer(("127.0.0.9", 9000), Sessions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        last = last_line(run_cell(tmp_path / "empty", COLAB_JUPYTER_IP="127.0.0.9", **fake_git))
    finally:
        server.shutdown()
        server.server_close()
    log = tmp_path / "git.log"
    assert cloned in (log.read_text("utf-8") if log.exists() else "")
    assert log.exists() == bool(cloned)
    assert "could not be cloned" in last if cloned else "WHISPER_NOTEBOOKS_REPO" in last


@pytest.mark.parametrize(
    ("said", "kaggle", "reason"),
    [
        ("", False, "failed: ERROR: No matching distribution"),
        ("ERROR: [Errno 28] No space left on device", False, "is full"),
        ("error: externally-managed-environment\n\nhint: See PEP 668", False, "`make lab`"),
        ("/opt/venv/bin/python: No module named pip", False, "uv pip install pip"),
        (
            "WARNING: [SSL: CERTIFICATE_VERIFY_FAILED] certificate\nERROR: none found",
            False,
            "PIP_CERT=FILE",
        ),
        (
            "WARNING: NewConnectionError: Failed to establish\nERROR: none found",
            False,
            "a network?",
        ),
        ("WARNING: NewConnectionError: Failed to establish\nERROR: none found", True, "Internet"),
    ],
)
def test_a_failed_installation_is_one_sentence_with_pips_reason(
    tmp_path, run_cell, repository, said, kaggle, reason
):
    require_also(repository, "no-such-package>=1")
    environment = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"} if kaggle else {}
    last = last_line(run_cell(tmp_path / "empty", PIP_SAYS=said, **environment))
    assert "OutdatedPackages: `" in last and reason in last
