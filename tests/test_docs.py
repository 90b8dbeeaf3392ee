"""The handbook is true: its commands, its anchors, its tables, the licences and the workflows."""

import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import httpx
import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from test_build import build
from test_links import PAGES, ROOT, markdown

DOCS = sorted((ROOT / "docs").glob("*.md"))
BASH = re.compile(r"^ *```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# Cannot run here: the pattern of the command, and why.
NOT_HERE = {
    r"nvidia-smi": "needs a GPU's driver",
    r"(sudo |\$AS_ROOT )?(apt-get|add-apt-repository) .*": "needs root and changes the machine",
    r"AS_ROOT=.*": "says how the next lines run",
    r"pip install --user uv|~/\.local/bin/uv venv .*": "downloads a Python",
    r"rsync .* HOST:.*": "needs a second machine",
    r"tmux attach .*": "needs a terminal",
    r"python3 -m venv .venv|\.venv/bin/pip install torch .*": "downloads; CI does the same",
    r"cd \S+|mkdir -p runs|export \w+=\S+": "says where the next line runs",
    r"read -rs \w+; export \w+": "asks for a key",
}


def run(*command, **options):
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": False} | options
    done = subprocess.run(command, **options)
    assert done.returncode == 0, f"{command}: {done.stderr[-1000:]}"
    return done.stdout


def bash_commands(text):
    """The commands of the `bash` blocks: one a line, without comments."""
    lines = "\n".join(BASH.findall(text)).replace("\\\n", " ").splitlines()
    return [line.split(" # ")[0].strip() for line in lines if line.strip()]


COMMANDS = sorted({c for page in PAGES for c in bash_commands(markdown(page))})


def check_make(words, _):
    run("make", "--dry-run", *words[1:])
    for word in words:
        if word.startswith("RECIPE="):
            assert Path(word.removeprefix("RECIPE=")).exists()


def check_module(words, _):
    """`… -m MODULE RECIPE --option`: the module, its options and the recipe exist."""
    module, *arguments = words[words.index("-m") + 1 :]
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    if spec.submodule_search_locations:  # of a package, Python runs __main__
        spec = importlib.util.find_spec(f"{module}.__main__")
    source = Path(spec.origin).read_text(encoding="utf-8")
    for word in arguments:
        assert not word.startswith("--") or f'"{word}"' in source, word
        assert not word.endswith(".toml") or Path(word).exists(), word


def check_code(words, folder):
    (folder / "runs/embedded").mkdir(parents=True)
    (folder / "runs/embedded/evaluation.json").write_text('{"summary": {"clips": 7}}', "utf-8")
    assert "7" in run(sys.executable, "-c", words[2], cwd=folder)


def check_papermill(words, _):
    """The lesson exists and has the parameters; tests/test_remote.py runs the command."""
    notebook = nbformat.read(words[1], as_version=4)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    for flag, name, value in zip(words, words[1:], words[2:], strict=False):
        if flag == "-p":
            assert f"{name}: str" in cell.source
            assert name != "RECIPE" or Path(value).exists()


def check_loop(words, folder):
    """It visits every lesson once, in order, and stops at one that fails."""
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    (programs / "papermill").write_text('#!/bin/sh\necho "$2"; test "$2" != runs/$STOP\n', "utf-8")
    (programs / "papermill").chmod(0o755)
    lessons = [f"runs/{path.name}" for path in sorted(ROOT.glob("notebooks/*.ipynb"))]
    for stop, visited in (("", lessons), ("02_streaming.ipynb", lessons[:2])):
        here = {"cwd": folder, "env": {**os.environ, "STOP": stop}}
        assert run("bash", "-c", words[0], **here).split() == visited


def check_ssh(words, _):
    """The client itself reads the options; tests/test_remote.py opens the tunnel."""
    said = run("ssh", "-G", *words[1:])
    for port in (w.split(":")[0] for w in words if ":127.0.0.1:" in w):
        assert f"localforward {port} [127.0.0.1]:{port}" in said


def check_key(words, folder):
    """Make the key in a home folder of its own, and show it as the next line does."""
    home = {**os.environ, "HOME": str(folder)}
    (folder / ".ssh").mkdir()
    made = " ".join(words).replace("~", str(folder))
    run("bash", "-c", f"{made} -N '' && cat ~/.ssh/id_ed25519.pub", env=home)
    assert (folder / ".ssh/id_ed25519.pub").read_text(encoding="utf-8").startswith("ssh-ed25519 ")


def check_tmux(words, folder):
    socket = ["tmux", "-L", f"test-{os.getpid()}", "-f", "/dev/null"]
    try:
        # Detached, and with a harmless program: a test has no terminal, and trains elsewhere.
        session = words[words.index("-s") + 1]
        run(*socket, "new", "-d", "-s", session, "sleep 30", cwd=folder)
        run(*socket, "has-session", "-t", session)
        assert all(run("bash", "-n", "-c", word) == "" for word in words if " " in word)
    finally:
        subprocess.run([*socket, "kill-server"], check=False, capture_output=True)


def check_clone(words, _):
    home = build.recorded_home(ROOT).repository
    assert words[2:] == [f"https://github.com/{home}" if home else "ADDRESS", "whisper-fine-tuning"]


def check_file(words, _):
    assert all(Path(word).exists() for word in words[1:] if "/" in word)


def check_lab_list(words, _):
    run(sys.executable, "-m", *words[0].split("/")[-1:], *words[1:])


def check_tensorboard(words, folder):
    """It starts and answers, on this machine alone."""
    command = [sys.executable, "-m", "tensorboard.main", *words[1:], "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as board:
        try:
            said = next(line for line in board.stderr if "at http:" in line)
            address = re.search(r"http://localhost:\d+/", said).group()
            assert httpx.get(address).status_code == 200
        finally:
            board.kill()  # asked to end in order, it once hung in its own threads for half an hour


HOW = {
    r"make( .*)?": check_make,
    r"\.venv/bin/python -m .*|\.venv/bin/torchrun .* -m .*": check_module,
    r"\.venv/bin/python -c .*": check_code,
    r"\.venv/bin/python \S+\.py( .*)?": check_file,
    r"\.venv/bin/papermill .*": check_papermill,
    r"for .*": check_loop,
    r"\.venv/bin/jupyter lab list": check_lab_list,
    r"\.venv/bin/tensorboard .*": check_tensorboard,
    r"ssh .*": check_ssh,
    r"ssh-keygen .*": check_key,
    r"cat ~/\.ssh/id_ed25519\.pub": lambda *_: None,  # check_key runs it
    r"tmux new .*": check_tmux,
    r"git clone .*": check_clone,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_works_or_says_why_it_cannot_be_tried(command, tmp_path):
    checks = [check for pattern, check in HOW.items() if re.fullmatch(pattern, command)]
    reasons = [why for pattern, why in NOT_HERE.items() if re.fullmatch(pattern, command)]
    assert len(checks) + len(reasons) == 1, f"say in HOW or NOT_HERE how {command!r} is checked"
    for check in checks:
        check([command] if check is check_loop else shlex.split(command), tmp_path)


def test_a_wrong_command_is_found():
    with pytest.raises(AssertionError):
        check_make(["make", "no-such-target"], None)
    with pytest.raises(AssertionError):
        check_module(shlex.split(".venv/bin/python -m utils.demo --no-such-option"), None)
    with pytest.raises(AssertionError):
        check_papermill(
            shlex.split("papermill notebooks/01_environment.ipynb o -p NO_SUCH 1"), None
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_bash_blocks_are_valid_bash(page):
    for block in BASH.findall(markdown(page)):
        run("bash", "-n", "-c", block)


@cache
def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    prose = re.sub(r"^ *```.*?^ *```", "", markdown(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_anchors_lead_to_headings(page):
    for target, anchor in re.findall(r"\]\(([^)\s#:]*\.md)?#([^)\s]+)\)", markdown(page)):
        goal = (page.parent / target).resolve() if target else page
        assert anchor in anchors(goal), f"{target}#{anchor}; {goal.name} has {anchors(goal)}"


@pytest.mark.parametrize("page", DOCS, ids=lambda p: p.stem)
def test_a_page_has_no_blanks_and_is_linked(page):
    text = markdown(page)
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX)\b", text)
    assert len(text.splitlines()) <= 320, "a page that nobody reads"
    if page.stem != "README":
        assert f"({page.name})" in markdown(ROOT / "docs/README.md")


def test_every_recipe_is_a_row_of_recipes():
    text = markdown(ROOT / "docs/recipes.md")
    missing = [p.name for p in ROOT.glob("recipes/*.toml") if f"`{p.name}`" not in text]
    assert missing == [], "add a row to docs/recipes.md: when to take it"


def test_what_changed_is_true_of_the_installed_versions():
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

    text = markdown(ROOT / "docs/changes.md")
    known = {f.name for f in fields(Seq2SeqTrainingArguments)}
    gone = ["evaluation_strategy", "overwrite_output_dir", "group_by_length", "warmup_ratio"]
    gone += ["logging_dir", "push_to_hub_model_id", "push_to_hub_token", "no_cuda", "fp16_backend"]
    today = ["eval_strategy", "train_sampling_strategy", "warmup_steps", "hub_model_id", "use_cpu"]
    today += ["activation_checkpointing", "report_to"]
    assert known.isdisjoint(gone)
    assert known.issuperset(today)
    assert all(name in text for name in gone + today)
    names = Seq2SeqTrainer.__init__.__code__.co_varnames
    assert "processing_class" in names
    assert "tokenizer" not in names


def test_what_changed_in_metrics_page_and_data_is_true_of_the_installed_versions():
    import inspect

    import datasets
    import gradio
    import jiwer
    from transformers import WhisperForConditionalGeneration

    assert hasattr(jiwer, "process_words")
    assert not hasattr(jiwer, "compute_measures")
    assert not hasattr(datasets, "load_metric")
    assert {"sources"} <= set(inspect.signature(gradio.Audio.__init__).parameters)
    parameters = inspect.signature(gradio.Interface.__init__).parameters
    assert "flagging_mode" in parameters
    assert "allow_flagging" not in parameters
    assert hasattr(WhisperForConditionalGeneration, "freeze_encoder")
    assert not hasattr(WhisperForConditionalGeneration, "freeze_feature_encoder")
    scripts = {e.name for e in importlib.metadata.entry_points(group="console_scripts")}
    assert "hf" in scripts
    assert "huggingface-cli" not in scripts


def licence(package):
    """What a package says of its licence, as short as it says it."""
    about = importlib.metadata.metadata(package)
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if " License" in c]
    stated = about.get("License-Expression") or next(iter(classifiers), "") or about.get("License")
    return (stated or "not stated in the package").splitlines()[0]  # praatio states all of it


def requirements(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(x.split("#")[0]).name for x in lines if x.strip() and x[0] not in "#-"]


@pytest.mark.parametrize(
    "package", [*requirements("requirements.txt"), *requirements("requirements-dev.txt")]
)
def test_the_licence_of_a_dependency_is_listed(package):
    row = f"| {package} | {licence(package)} |"
    assert row in markdown(ROOT / "docs/licences.md"), f"docs/licences.md lacks {row}"


def test_nothing_that_is_installed_must_be_passed_on_under_the_gpl():
    names = requirements("constraints.txt")
    found = {n: licence(n) for n in names}
    strict = {n: said for n, said in found.items() if re.search(r"(?<!L)GPL", said)}
    assert strict == {}
    listed = markdown(ROOT / "docs/licences.md")
    assert all(f"`{n}`" in listed for n, said in found.items() if "LGPL" in said)


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_pinned_reads_only_and_runs_what_people_run(path):
    text = path.read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in text
    for used in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    for command in (step["run"] for step in steps if "run" in step):
        assert "${{" not in command, "an input in a command could be code: pass it as env"
        for target in re.findall(r"\bmake ([a-z-]+)", command):
            run("make", "--dry-run", target)
    writes = {name for name, job in flow["jobs"].items() if job.get("permissions")}
    assert writes <= {"badges"}  # it pushes what it built, and has nothing to keep
    assert writes or any("upload-artifact" in step.get("uses", "") for step in steps)


def secret_pattern():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (entry,) = (h["entry"] for h in hooks["repos"][0]["hooks"] if h["id"] == "secrets")
    return re.compile(entry)


def test_the_secret_scan_finds_tokens_and_the_repository_has_none():
    pattern = secret_pattern()
    for planted in (
        "hf_" + "a1B2" * 9,
        "ghp_" + "a1B2" * 9,
        "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    ):
        assert pattern.search(f"token = '{planted}'"), planted
    assert not pattern.search("hf_hub_download(repo)")
    tracked = run("git", "ls-files", "-z").split("\0")
    texts = {n: (ROOT / n).read_text("utf-8", "ignore") for n in tracked if (ROOT / n).is_file()}
    assert [name for name, text in texts.items() if pattern.search(text)] == []


def test_pre_commit_hooks_run_what_the_set_up_installs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [h["entry"] for h in hooks["repos"][0]["hooks"] if h["language"] == "system"]
    assert {e.split()[0] for e in entries} <= {".venv/bin/ruff", ".venv/bin/python"}
    assert all(Path(w).exists() for e in entries for w in e.split() if w.endswith(".py"))
