"""What the handbook describes, done as a new user would: tunnel, JupyterLab, papermill, a fault."""

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager

import nbformat
import pytest
from test_links import ROOT

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
WAIT_SECONDS = 180  # for a server on a busy machine
LESSON = ROOT / "notebooks/01_environment.ipynb"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what):
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what} did not come within {WAIT_SECONDS} s")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(*command, log, **options):
    """Run a program in the background; end it and what it started when the block ends."""
    with log.open("w") as file:
        started = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
        try:
            yield started
        finally:
            os.killpg(started.pid, 15)
            started.wait(30)


@pytest.fixture
def server(tmp_path):
    """An SSH server of our own on loopback; returns the `ssh` options that reach it."""
    if not os.path.exists(SSHD):
        pytest.skip("no sshd here: apt-get install openssh-server")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", tmp_path / name], check=True
        )
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized_keys")
    port = free_port()
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\n"
        f"AuthorizedKeysFile {tmp_path}/authorized_keys\nPidFile none\nUsePAM no\n"
        # The test's folder may lie below one that others can write to.
        "StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
        encoding="utf-8",
    )
    if os.geteuid() == 0:  # where sshd drops its rights; the package's service makes it
        os.makedirs("/run/sshd", exist_ok=True)
    options = ["-F", "none", "-i", str(tmp_path / "user"), "-p", str(port)]
    options += ["-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes"]
    options += ["-o", f"UserKnownHostsFile={tmp_path}/known_hosts"]
    log = tmp_path / "sshd.log"
    with process(SSHD, "-D", "-e", "-f", tmp_path / "sshd_config", log=log):
        wait_for(lambda: listens(port), "sshd")
        yield [*options, f"{getpass.getuser()}@127.0.0.1"]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab as `make lab` starts it; returns its port and token."""
    wanted = subprocess.run(
        ["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]
    command = wanted.removeprefix(".venv/bin/python -m ").split()
    assert "--ip=127.0.0.1" in command
    assert not any("token" in word.lower() or "0.0.0.0" in word for word in command)
    home = {"JUPYTER_RUNTIME_DIR": tmp_path / "runtime", "JUPYTER_CONFIG_DIR": tmp_path / "config"}
    env = os.environ | {name: str(folder) for name, folder in home.items()}
    port, log = free_port(), tmp_path / "lab.log"
    own = [f"--port={port}", "--no-browser"]  # the machine may run another one; no desktop here
    with process(sys.executable, "-m", *command, *own, log=log, cwd=ROOT, env=env):
        address = wait_for(
            lambda: re.search(r"http://127\.0\.0\.1:(\d+)/lab\S*\?token=(\w+)", log.read_text()),
            "the address with its token",
        )
        yield int(address[1]), address[2]


def ask(port, path, token="", data=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"token {token}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def execute(port, token, kernel, code):
    """Run a cell in a kernel through Jupyter's web socket, as the browser does."""
    import websocket

    line = websocket.create_connection(
        f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels",
        header=[f"Authorization: token {token}"],
        timeout=600,
    )
    header = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": "reader"}
    header |= {"msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
    line.send(json.dumps(message | {"channel": "shell"}))
    printed = []
    while True:
        got = json.loads(line.recv())
        if got["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        content = got["content"]
        if got["msg_type"] == "stream":
            printed.append(content["text"])
        elif got["msg_type"] == "error":
            line.close()
            pytest.fail(f"{content['ename']}: {content['evalue']}")
        elif got["msg_type"] == "status" and content["execution_state"] == "idle":
            line.close()
            return "".join(printed)


@pytest.mark.slow
def test_a_lesson_runs_in_jupyterlab_through_an_ssh_tunnel(server, lab, tmp_path):
    far, token = lab
    near = free_port()
    tunnel = ["ssh", "-N", "-L", f"{near}:127.0.0.1:{far}", *server]
    with process(*tunnel, log=tmp_path / "tunnel.log"):
        wait_for(lambda: listens(near), "the tunnel")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(near, "/api/contents")  # who has no token gets nothing
        for folder, name in (("", "recipes"), ("notebooks", LESSON.name)):
            files = ask(near, f"/api/contents/{folder}", token)["content"]
            assert name in {file["name"] for file in files}
        kernel = ask(near, "/api/kernels", token, data=b'{"name": "python3"}')["id"]
        printed = ""
        for cell in nbformat.read(LESSON, as_version=4).cells:
            if cell.cell_type == "code":
                code = cell.source
                if "parameters" in cell.metadata.get("tags", []):
                    code += f'\nRECIPE, RUNS = "recipes/smoke.toml", {str(tmp_path / "runs")!r}'
                printed += execute(near, token, kernel, code)
        screenshot(near, token, tmp_path)
    assert "hypothesis" in printed
    assert "this machine can train" in printed
    assert token not in printed
    assert (tmp_path / "runs/smoke/environment.json").exists()


def screenshot(port, token, folder):
    """Open the lesson in a browser through the tunnel, and see that its page is drawn."""
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(
            f"http://127.0.0.1:{port}/lab/tree/notebooks/{LESSON.name}?token={token}",
            timeout=WAIT_SECONDS * 1000,
        )
        title = nbformat.read(LESSON, as_version=4).cells[0].source.partition("\n")[0]
        heading = page.get_by_role("heading", name=title.lstrip("# "))
        heading.first.wait_for(timeout=WAIT_SECONDS * 1000)
        page.screenshot(path=folder / "lesson.png")
        browser.close()
    assert (folder / "lesson.png").stat().st_size > 20_000


def papermill(notebook, output, *parameters):
    return subprocess.run(
        [sys.executable, "-m", "papermill", notebook, output, *parameters, "--no-progress-bar"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.fault(25)
def test_a_failure_mid_lesson_is_kept_and_a_second_run_goes_on(tmp_path):
    """A full disk, a lost network: the fault goes away, and the same command then succeeds."""
    lesson = nbformat.read(LESSON, as_version=4)
    index = next(i for i, c in enumerate(lesson.cells) if "resolve(recipe" in c.source)
    fault = tmp_path / "fault"
    fault.touch()
    check = f'assert not Path({str(fault)!r}).exists(), "the disk is full"\n'
    lesson.cells[index].source = check + lesson.cells[index].source
    nbformat.write(lesson, tmp_path / "lesson.ipynb")
    out = tmp_path / "out.ipynb"
    command = (tmp_path / "lesson.ipynb", out, "-p", "RECIPE", "recipes/smoke.toml")
    command += ("-p", "RUNS", str(tmp_path / "runs"))

    failed = papermill(*command)
    assert failed.returncode != 0
    assert "the disk is full" in failed.stderr
    cells = [c for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code"]
    done = [bool(cell.execution_count) for cell in cells]
    assert done.count(True) > 4, "what came before the fault is kept"
    assert not done[-1], "what comes after it was not run"
    assert any("injected-parameters" in c.metadata.get("tags", []) for c in cells)
    assert not (tmp_path / "runs/smoke/environment.json").exists(), "a report means complete"

    fault.unlink()
    again = papermill(*command)
    assert again.returncode == 0, again.stderr[-2000:]
    assert (tmp_path / "runs/smoke/environment.json").exists()
    cells = nbformat.read(out, as_version=4).cells
    assert all(c.execution_count for c in cells if c.cell_type == "code")
