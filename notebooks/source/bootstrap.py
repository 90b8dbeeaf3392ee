# @title Set-up: finds the folder of this series, or fetches it, and installs what is missing
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

URL = os.environ.get("WHISPER_NOTEBOOKS_REPO", "https://github.com/__REPOSITORY__")
# Not exchanged where they are installed: Colab's torch fits its driver, and the others may be in
# use by the running kernel. The rest is installed before its first import: nothing loads twice.
KEPT = ("torch", "torchvision", "torchaudio", "numpy", "ipykernel", "ipywidgets")


def call(*command):
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}  # a wrong address fails, and asks for nothing
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().split("\n")[-1]
        raise RuntimeError(f"`{' '.join(command)}` failed: {reason}") from None


def have(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


here = Path.cwd()
for root in (here, *here.parents, here / "whisper-fine-tuning"):
    if (root / "utils/artifacts.py").exists() and (root / "recipes").is_dir():
        break
else:  # nowhere: fetch it into the last of these folders
    call("git", "clone", "--depth", "1", "--branch", "__BRANCH__", URL, str(root))
os.chdir(root)
sys.path.insert(0, str(root))

lines = Path("requirements.txt").read_text(encoding="utf-8").splitlines()
needs = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
stale = [n for n in needs if n.name not in KEPT and have(n.name) not in n.specifier]
missing = [n for n in needs if n in stale or not have(n.name)]
if missing:
    print("Installing (some minutes):", *missing, sep="\n  ")
    kept = [f"{name}=={have(name)}" for name in KEPT if have(name)]
    call(sys.executable, "-m", "pip", "install", *map(str, missing), *kept)
print("Working in", root)
