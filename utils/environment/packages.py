"""Installed packages compared with requirements.txt, for the set-up cell and lesson 1.

The set-up cell imports this file before anything is installed: nothing here needs more than
`packaging`, which every Jupyter brings.
"""

import importlib.metadata
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.environment.colab import in_kaggle, is_hosted

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
# Never replaced if they are installed. The first line fits the driver and one another; the
# second is the running kernel, and Colab's is built on exactly its own versions.
KEPT = (
    *("torch", "torchvision", "torchaudio", "torchcodec", "numpy"),
    *("ipykernel", "ipywidgets", "ipython", "jupyter-client", "pyzmq", "tornado", "traitlets"),
)
# Half-loaded, these break: compiled parts of one version with the Python files of another.
COMPILED = ("pandas", "pyarrow", "tokenizers", "safetensors")
RESTART = "Runtime → Restart session (Kernel → Restart elsewhere), then Run all"
ROOM_GB = 3  # what the set-up cell adds to a Colab runtime, with room to unpack it
NO_NETWORK = "the package index cannot be reached: is there a network?"
# What pip says, and what helps.
WAYS_OUT = {
    "No space left": f"the disk of {sys.prefix} is full: delete what you can spare",
    "CERTIFICATE_VERIFY_FAILED": "a proxy's certificate is not trusted: name it, PIP_CERT=FILE in "
    "the environment",
    "NameResolutionError": NO_NETWORK,
    "Failed to establish": NO_NETWORK,
    "externally-managed-environment": "this Python is the system's, into which pip installs "
    "nothing: take a kernel of an environment of your own, such as the one that `make lab` makes",
    "No module named pip": "this kernel's environment has no pip: `uv pip install pip` in it, or "
    f"`{shlex.quote(sys.executable)} -m ensurepip`, brings it",
}


class OutdatedPackages(RuntimeError):
    """A package is missing or outside its range; the message is the way out."""


class Package(NamedTuple):
    """One line of the version table."""

    package: str
    installed: str  # "" if it is missing
    floor: str  # as in requirements.txt: ">=5.3,<6"
    ok: bool


def read_floors(path: Path = REQUIREMENTS) -> dict[str, str]:
    """Return the range of each package that this Python needs; requirements.txt is the one list."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line]
    wanted = [item for item in wanted if item.marker is None or item.marker.evaluate()]
    # str() of a specifier set sorts by text: "<6,>=5.3". People read the floor first.
    return {item.name: ",".join(sorted(map(str, item.specifier), reverse=True)) for item in wanted}


def installed_version(package: str) -> str:
    """Return the installed version of a package; "" if it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_versions(floors: dict[str, str] | None = None) -> list[Package]:
    """Return, for every package of requirements.txt, the installed version and whether it is ok."""
    rows = []
    for name, floor in (read_floors() if floors is None else floors).items():
        version = installed_version(name)
        # "2.13.0+cpu" is 2.13.0 for this purpose; a pre-release counts as its version.
        ok = bool(version) and Requirement(f"{name}{floor}").specifier.contains(
            version, prereleases=True
        )
        rows.append(Package(name, version, floor, ok))
    return rows


def is_kept(package: str) -> bool:
    """Tell whether the set-up cell leaves a package as it is installed."""
    return canonicalize_name(package) in KEPT and bool(installed_version(package))


def require_versions(rows: list[Package]) -> None:
    """Stop if a row of `check_versions` is not ok.

    Raises:
        OutdatedPackages: names each wrong package and the command that repairs all of them.
    """
    faults = [row for row in rows if not row.ok]
    if not faults:
        return
    found = ", ".join(f"{row.package} {row.installed or '(missing)'}" for row in faults)
    needed = " ".join(f'"{row.package}{row.floor}"' for row in faults)
    if is_hosted() and any(is_kept(row.package) for row in faults):
        # Another torch would lose the GPU there, another ipykernel the runtime.
        raise OutdatedPackages(
            f"{found} will not do, {needed} is needed, and what this runtime is built on must not "
            "be exchanged: take a newer runtime (Runtime → Change runtime type → Runtime version; "
            "on Kaggle, Session options → Environment)."
        )
    # On a hosted runtime the preinstalled torch must stay; constraints.txt would replace it.
    exact = "" if is_hosted() else " -c constraints.txt"
    raise OutdatedPackages(
        f"{found} will not do: run `{shlex.quote(sys.executable)} -m pip install {needed}{exact}`, "
        "then start this lesson again."
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package of requirements.txt."""
    packages = {row.package: row.installed for row in check_versions()}
    return {"python": platform.python_version(), **packages}


def install_missing() -> None:
    """Install what requirements.txt asks for and this Python lacks; change nothing that is kept.

    Raises:
        OutdatedPackages: pip failed, the disk is too full, or a package was exchanged that is
            already imported, so that the kernel holds half of each version.
    """
    wanted = [row for row in check_versions() if not row.ok and not is_kept(row.package)]
    if not wanted:
        return
    free = shutil.disk_usage(sys.prefix).free / 1e9
    if free < ROOM_GB:
        raise OutdatedPackages(
            f"{free:.1f} GB are free below {sys.prefix}, and the packages that are missing need "
            f"{ROOM_GB}: delete what you can spare, then run this cell again."
        )
    needs = [f"{row.package}{row.floor}" for row in wanted]
    print("Installing (some minutes):", *needs, sep="\n  ")
    # Each of them is imported by its own name.
    loaded = [n for n in (*read_floors(), *COMPILED) if n.replace("-", "_") in sys.modules]
    before = {name: installed_version(name) for name in loaded}
    with tempfile.TemporaryDirectory() as folder:
        # As constraints and not as requirements: pip then completes nothing around them.
        constraints = Path(folder) / "kept.txt"
        kept = [f"{name}=={installed_version(name)}\n" for name in KEPT if is_kept(name)]
        constraints.write_text("".join(kept), encoding="utf-8")
        _pip("install", *needs, "-c", str(constraints))
    importlib.invalidate_caches()
    changed = {name: old for name, old in before.items() if installed_version(name) != old}
    if changed:
        told = ", ".join(
            f"{name} {old} → {installed_version(name)}" for name, old in changed.items()
        )
        raise OutdatedPackages(
            f"Installed. But {told} had been imported before and is exchanged now, so that this "
            f"kernel holds half of each version: {RESTART}."
        )


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stderr.strip() or "pip gave no reason"
    lines = said.splitlines()
    reason = next((line for line in lines if line.lower().startswith("error:")), lines[-1])
    reason = next((way_out for sign, way_out in WAYS_OUT.items() if sign in said), reason)
    if reason == NO_NETWORK and in_kaggle():
        reason = "there is no Internet: switch it on in Kaggle's Session options"
    raise OutdatedPackages(f"`{' '.join(command[:4])} …` failed: {reason}")
