"""Real environments with the packages of Colab and the Pythons of Debian: `make test-platforms`.

Each is made anew from ordinary packages (gigabytes, half an hour on 2 cores), so that `make test`
and `make test-all` leave them out; tests/environment/test_packages.py compares Colab's list in a
second.
"""

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from colab_list import read_list

from tests.conftest import ROOT

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("WHISPER_PLATFORMS"), reason="`make test-platforms` runs them"
    ),
    pytest.mark.timeout(7200),
]
# What the lessons ask of google.colab; a .pth file imports it at start, as Colab's kernel does.
STUBS = {
    "google/colab/__init__.py": "",
    "google/colab/drive.py": "def mount(folder):\n    raise ValueError('no Drive here')\n",
    "google/colab/output.py": "def serve_kernel_port_as_iframe(*_, **__):\n    pass\n",
    "google/colab/userdata.py": "class SecretNotFoundError(Exception):\n    pass\n\n"
    "def get(name):\n    raise SecretNotFoundError(name)\n",
    "stub.pth": "import os; os.environ.get('STUB_COLAB') and __import__('google.colab')\n",
}
# A LoRA beside the torchao that Colab preinstalls, which PEFT refuses.
LORA = """
from importlib.metadata import version
from transformers import WhisperConfig, WhisperForConditionalGeneration
from utils.config import Method
from utils.training.adapters import choose_weights
assert version("torchao") == "0.10.0"
sizes = dict(d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32)
sizes |= dict(encoder_attention_heads=2, decoder_attention_heads=2)
model = WhisperForConditionalGeneration(WhisperConfig(**sizes))
print(type(choose_weights(model, Method(weights="lora"))).__name__)
"""


def run(*command, cwd, log, **environment):
    """Run a command; what it says goes to a file, of which a failure shows the end."""
    with log.open("ab") as file:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = log.read_text("utf-8", "replace").splitlines()
    assert done.returncode == 0, "\n".join(x for x in said if "WARNING" not in x)[-4000:]
    return "\n".join(said)


def interpreter(version):
    """Return a Python of this version: from the PATH, else pyenv's newest; None without one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    newest = sorted(versions.glob(f"{version}.*/bin/python"), reverse=True)
    found = [shutil.which(f"python{version}"), *newest]
    # pyenv's own command is there for versions that are switched off, too.
    return next((one for one in found if one and runs(one)), None)


def runs(python):
    """Return whether a command is a Python that starts."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The Python of an environment with Colab's versions, and `google.colab` to be switched on."""
    python = interpreter("3.13")
    if not python:
        pytest.skip("no Python 3.13 here")
    folder = tmp_path_factory.mktemp("colab")
    log = folder / "pip.log"
    run(python, "-m", "venv", folder / "venv", cwd=folder, log=log)
    # The builds of Colab's CUDA are on PyTorch's index alone; those of PyPI are the same version.
    exact = [f"{name}=={version.split('+')[0]}" for name, version in read_list().items()]
    torch = next(line for line in exact if line.startswith("torch=="))
    (folder / "exact.txt").write_text("\n".join(exact), encoding="utf-8")
    pip = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet"]
    run(*pip, torch, cwd=folder, log=log)
    run(*pip, "--no-deps", "-r", folder / "exact.txt", cwd=folder, log=log)
    (site,) = (folder / "venv/lib").glob("python3*/site-packages")
    for name, text in STUBS.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
    return folder / "venv/bin/python"


@pytest.mark.parametrize("platform", ["colab", "kaggle"])
def test_the_lessons_run_on_colabs_packages(colab, tmp_path, platform):
    """The set-up cell as it stands, in an empty folder; then the seven lessons on smoke.toml."""
    kind = {"colab": {"STUB_COLAB": "1"}, "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}}
    cells = nbformat.read(ROOT / "notebooks/01_environment.ipynb", as_version=4).cells
    (cell,) = (c.source for c in cells if "bootstrap" in c.metadata.get("tags", []))
    (tmp_path / "cell.py").write_text(cell, encoding="utf-8")
    log, environment = tmp_path / "log.txt", kind[platform] | {"WHISPER_NOTEBOOKS_REPO": str(ROOT)}
    run(colab, "cell.py", cwd=tmp_path, log=log, **environment)
    clone = tmp_path / "whisper-fine-tuning"
    lessons = [colab, "-m", "utils", "recipes/smoke.toml", "--runs", tmp_path / "runs"]
    assert "WER after" in run(*lessons, cwd=clone, log=log, **environment)
    installed = run(colab, "-m", "pip", "freeze", cwd=tmp_path, log=tmp_path / "freeze.txt")
    for kept in ("torch==2.11.0", "numpy==2.1.3", "ipykernel==6.17.1", "ipywidgets==7.7.1"):
        assert kept in installed.splitlines()
    assert "jedi==" not in installed  # IPython asks for it, and Colab leaves it out
    lora = run(colab, "-c", LORA, cwd=clone, log=tmp_path / "lora.txt", **environment)
    assert "PeftModel" in lora


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_make_first_works_with_the_pythons_of_debian_and_ubuntu(tmp_path, version):
    """Debian 12 has 3.11.2, Debian 13 3.13, Ubuntu 24.04 3.12 and 26.04 3.14."""
    system = Path(f"/usr/bin/python{version}")
    python = system if system.exists() else interpreter(version)
    if not python:
        pytest.skip(f"no Python {version} here")
    run("git", "clone", "-q", ROOT, tmp_path / "clone", cwd=tmp_path, log=tmp_path / "git.txt")
    make = ["make", f"PYTHON={python}", "RECIPE=recipes/smoke.toml", "first"]
    said = run(*make, cwd=tmp_path / "clone", log=tmp_path / "make.txt", MAKEFLAGS="")
    assert "first_transcription" in said
