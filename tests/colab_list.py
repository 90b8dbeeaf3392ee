"""Writes tests/colab.txt from the `pip freeze` of a runtime: what our requirements touch of it.

On Colab, in a fresh runtime before any other cell:

    !python --version; python -m pip freeze > freeze.txt

then here, in the set-up's environment, whose packages say what depends on what:

    .venv/bin/python tests/colab_list.py freeze.txt --date 2026-08-19 --python 3.13.15
"""

import argparse
import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.environment.packages import KEPT, REQUIREMENTS

LIST = Path(__file__).with_name("colab.txt")
# What does not follow from the packages here: PEFT asks for torchao where it is there; Colab's
# older IPython, ipykernel and ipywidgets need the second line, its newer Python the third.
BESIDES = (
    "torchao",
    *("backcall", "ipython-genutils", "nest-asyncio", "pickleshare", "setuptools", "six"),
    *("audioop-lts", "standard-aifc", "standard-chunk", "standard-sunau"),
)


def reachable(names: list[str]) -> set[str]:
    """Return the packages that these need, and those that they need, as they are installed here."""
    found: set[str] = set()
    while names:
        name = canonicalize_name(names.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needs = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        names += [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
    return found


def read_list(path: Path = LIST) -> dict[str, str]:
    """Return the versions of a `pip freeze` by canonical name; what has no version is left out."""
    pairs = re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {str(canonicalize_name(name)): version for name, version in pairs}


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("freeze", type=Path)
    parser.add_argument("--date", required=True, help="of the runtime: 2026-08-19")
    parser.add_argument("--python", required=True, help="its Python: 3.13.15")
    given = parser.parse_args()
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    ours = [Requirement(x.split("#")[0]).name for x in lines if x.split("#")[0].strip()]
    wanted = reachable([*ours, *KEPT, *BESIDES])
    kept = {name: v for name, v in read_list(given.freeze).items() if name in wanted}
    LIST.write_text(
        f"# Colab's GPU runtime of {given.date}, Python {given.python}: what our requirements "
        "touch, directly or\n# through a dependency. tests/colab_list.py writes it from "
        "a `pip freeze`.\n"
        + "".join(f"{name}=={version}\n" for name, version in sorted(kept.items())),
        encoding="utf-8",
    )
    print(f"{LIST}: {len(kept)} packages")


if __name__ == "__main__":
    main()
