"""What all commands do alike: any terminal, one sentence, the exit code of a shell."""

import ast
import io
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.config import UserError
from utils.environment.command import command


def raises(problem):
    raise problem


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 2, 2, ""),
        (lambda: raises(UserError("say what to do")), 1, "say what to do"),
        (lambda: raises(PermissionError(13, "Permission denied", "/x")), 1, "denied: '/x'"),
        (lambda: raises(OSError(28, "No space left")), 1, "bytes for temporary files, of which"),
        (lambda: raises(KeyboardInterrupt), 130, "Interrupted"),
        (lambda: "ü".encode("ascii"), 1, "set LC_ALL=C.UTF-8"),
    ],
)
def test_a_fault_is_one_sentence_and_its_exit_code(capsys, work, code, said):
    assert command(lambda _: work())([]) == code
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command(lambda _: 1 / 0)([])


def test_sigterm_cleans_up_and_ends_with_its_code():
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def work(_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as ended:
        command(work)([])
    assert (ended.value.code, cleaned) == (143, [True])
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_letter_shows_another(monkeypatch, encoding):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding=encoding))
    assert command(lambda _: print("Čeština … · 5–6 %"))([]) == 0
    sys.stdout.flush()
    assert file.getvalue().endswith(b"5?6 %\n")


def test_a_command_says_what_is_missing_in_any_locale(tmp_path):
    words = [str(tmp_path / "mañana é.toml"), "--runs", str(tmp_path)]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    done = subprocess.run(
        [sys.executable, "-m", "utils", *words],
        cwd=ROOT,
        env=os.environ | plain,
        capture_output=True,
    )
    assert done.returncode == 1
    assert b"is not there" in done.stderr and b"Traceback" not in done.stderr


def python(script, *arguments, **variables):
    """Run a few lines in a process of their own; return what they print."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMANDS = [*ROOT.glob("utils/**/__main__.py"), ROOT / "utils/recorder.py"]
COMMANDS += [ROOT / "utils/environment/estimate.py"]


def test_commands_start_without_what_takes_seconds_in_which_ctrl_c_would_be_a_traceback():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in COMMANDS]
    script = """
        import importlib, sys
        for name in sys.argv[1:]:
            importlib.import_module(name)
        print({"torch", "transformers", "datasets", "gradio", "scipy"} & sys.modules.keys())
    """
    assert python(textwrap.dedent(script), *names).splitlines()[-1] == "set()"


def test_a_long_name_for_temporary_files_is_no_fault_of_the_sockets_in_it(tmp_path):
    long = tmp_path / ("long-" * 20) / ("er-" * 30)
    long.mkdir(parents=True)
    script = """
        import multiprocessing, os, tempfile
        from pathlib import Path
        from utils.environment.command import shorten_temporary
        shorten_temporary()
        with multiprocessing.get_context("forkserver").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]
        file, name = tempfile.mkstemp(prefix="kept-")
        print(os.environ["TMPDIR"])
    """
    short = Path(python(textwrap.dedent(script), TMPDIR=str(long)).strip())
    assert len(str(short)) < 40 and not short.parent.exists()
    assert [path.name[:5] for path in long.iterdir()] == ["kept-"], "it was chosen for its room"


@pytest.mark.parametrize("path", [*COMMANDS, ROOT / "utils/streaming/align.py"], ids=str)
def test_every_command_is_one_of_these(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (main,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "main")
    assert [ast.unparse(one) for one in main.decorator_list] == ["command"]
    assert ast.unparse(tree.body[-1]).endswith("sys.exit(main())")
