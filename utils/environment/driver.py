"""The NVIDIA driver, and the PyTorch build that fits it: `make` runs this file in a bare `.venv`.

    python utils/environment/driver.py

installs PyTorch from its own index if pip's choice, the CUDA 13 build, does not fit, and writes
`constraints.txt` beside the environment, with the version of PyTorch that is there now.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc/driver/nvidia/version")  # there also in a container that was given no GPU
INDEX = "https://download.pytorch.org/whl"
# The first driver of each CUDA generation; within one, older drivers serve newer releases (NVIDIA,
# "CUDA Compatibility", minor version compatibility). PyPI's build is of CUDA 13 since torch 2.11.
FIRST_DRIVER = {13: 580, 12: 525}
# CUDA 13 has dropped what is older than Turing; CUDA 12.6 knows nothing newer than Hopper. torch
# 2.12 to 2.14 are built with 12.6, 13.0 and later alone, 2.11 was the last with 12.8 (pytorch
# issues 178665 and 190385).
TURING, BLACKWELL = (7, 5), (10, 0)
FIRST_BLACKWELL_DRIVER = 570
SECONDS = 5  # to wait for the index


class Wheel(NamedTuple):
    """A build of PyTorch: what pip installs, and from where."""

    torch: str
    index: str  # "" is PyPI


CPU = Wheel("torch", f"{INDEX}/cpu")
CUDA_12_6 = Wheel("torch", f"{INDEX}/cu126")
CUDA_12_8 = Wheel("torch==2.11.*", f"{INDEX}/cu128")
CUDA_13 = Wheel("torch", "")


def _nvidia_smi(field: str) -> str:
    # WSL keeps it apart, and not every shell there has that folder in its PATH.
    program = shutil.which("nvidia-smi") or "/usr/lib/wsl/lib/nvidia-smi"
    command = [program, f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def driver_version() -> str:
    """Return the version of the NVIDIA driver, `550.54.15`, say; "" where there is none."""
    said = _nvidia_smi("driver_version")
    if match := re.match(r"\d+\.[\d.]+", said):
        return match[0]
    try:
        text = PROC.read_text(encoding="utf-8")
    except OSError:
        return ""
    # "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build …"
    match = re.search(r"^NVRM version:.*?\s(\d{3,}\.[\d.]+)\s", text, re.MULTILINE)
    return match[1] if match else ""


def capabilities() -> list[tuple[int, int]]:
    """Return the compute capability of each card that `nvidia-smi` lists."""
    said = _nvidia_smi("compute_cap")
    return [(int(a), int(b)) for a, b in re.findall(r"^(\d+)\.(\d+)$", said, re.MULTILINE)]


def serves(driver: str, cuda: str) -> bool:
    """Tell whether a driver is new enough for a build with this CUDA."""
    return int(driver.split(".")[0]) >= FIRST_DRIVER.get(int(cuda.split(".")[0]), 0)


def fitting_wheel(driver: str, cards: list[tuple[int, int]]) -> Wheel | None:
    """Return the build for a driver and its cards; None where no current one serves them.

    Args:
        driver: of `driver_version`; "" is a machine without one.
        cards: of `capabilities`; empty if they are not known.
    """
    if not driver:
        return CPU
    oldest, newest = (pick(cards, default=(8, 0)) for pick in (min, max))
    if oldest >= TURING and serves(driver, "13"):
        return CUDA_13
    if newest >= BLACKWELL:
        return CUDA_12_8 if int(driver.split(".")[0]) >= FIRST_BLACKWELL_DRIVER else None
    return CUDA_12_6 if serves(driver, "12") else None


def is_reachable(address: str) -> bool:
    """Tell whether a web server answers at all, be it with an error."""
    try:
        urllib.request.urlopen(address, timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def installed_torch() -> str:
    """Return the version of the PyTorch in this environment; "" without one."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def choose() -> Wheel:
    """Return the build to install here, and print why."""
    if asked := os.environ.get("TORCH_INDEX"):
        print("PyTorch from the index that TORCH_INDEX names.")  # which may hold a password
        return Wheel("torch", asked)
    if platform.system() != "Linux":
        return CUDA_13  # elsewhere PyPI has one build alone
    driver = driver_version()
    wheel = fitting_wheel(driver, capabilities())
    if wheel is None:
        print(f"NVIDIA driver {driver} is too old for any current PyTorch: taking the CPU build.")
        wheel = CPU
    if wheel.index and not is_reachable(wheel.index):
        print(f"{wheel.index} cannot be reached: PyTorch is what pip finds.")
        return CUDA_13
    if wheel.index:
        print(f"PyTorch from {wheel.index}: NVIDIA driver {driver or 'none'}.")
    return wheel


def main() -> int:
    """Install PyTorch if it is missing, and write what keeps it; return pip's exit code."""
    exact = Path("constraints.txt").read_text(encoding="utf-8")
    if not installed_torch() and (wheel := choose()).index:
        pins = ["-c", "constraints.txt"] * (wheel.torch == "torch")
        where = [wheel.torch, "--index-url", wheel.index, *pins]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *where]
        if code := subprocess.run(command, check=False).returncode:
            print(
                f"PyTorch could not be installed from {wheel.index.rpartition('@')[2]} for Python "
                f"{platform.python_version()} (pip's reason is above): name another index by "
                "`make TORCH_INDEX=ADDRESS`.",
                file=sys.stderr,
            )
            return code
    if torch := installed_torch():  # what was found or chosen stays
        public = torch.partition("+")[0]
        exact = re.sub(r"^torch==.*$", f"torch=={public}", exact, flags=re.MULTILINE)
    (Path(sys.prefix) / "constraints.txt").write_text(exact, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
