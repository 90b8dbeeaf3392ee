"""The faults that the project survives, and the tests that inject them: a table in CONTRIBUTING.md.

`python tests/faults.py` writes it from the markers `@pytest.mark.fault(NUMBER, …)` in the tests.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
OPEN, CLOSE = "<!-- faults: python tests/faults.py -->\n", "<!-- /faults -->"
FAULTS = {
    1: "the process is killed at any step",
    2: "SIGTERM",
    3: "the newest weights are cut off, or other bytes of the same size",
    4: "optimizer, state or marker of a checkpoint is missing or damaged",
    5: "the disk is full, or a quota is",
    6: "resuming in a later pass, with workers or without",
    7: "accumulation, and two processes for one",
    8: "NaN in a recording, and in the loss",
    9: "the GPU runs out of memory",
    10: "a stream breaks off: dropped, cut, 503, 429",
    11: "a server that never answers",
    12: "401 in the middle of a stream",
    13: "the Hub is down, and the checkpoint is in the cache",
    14: "gated, a bad token, a token that may not write",
    15: "a commit whose answer is lost",
    16: "an upload that ends between files and commit",
    17: "two pushes at once",
    18: "damaged recordings among good ones",
    19: "transcripts of any encoding, script and length",
    20: "not one usable row",
    21: "a token in the environment",
    22: "pickles and secrets in a folder that is pushed",
    23: "outputs, tokens and dangerous calls in notebooks",
    24: "the page: large files, paths, crowds, attacks",
    25: "a notebook dies in the middle",
    26: "a folder for results that cannot be written",
    27: "no FFmpeg, no torchcodec",
    28: "a process that makes batches dies",
    29: "a worker of torchrun is killed",
    30: "a locale without UTF-8, another time zone",
    31: "no network, and all is cached",
    32: "packages that are too old",
}


def injected() -> Iterator[tuple[int, str, bool]]:
    """Yield (number, test, whether `make test` leaves it out) of every marker."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_slow_file = "pytest.mark.slow" in "".join(
            ast.unparse(one) for one in tree.body if isinstance(one, ast.Assign)
        )
        for test in (one for one in tree.body if isinstance(one, ast.FunctionDef)):
            marks = [ast.unparse(one) for one in test.decorator_list]
            is_slow = is_slow_file or "pytest.mark.slow" in marks
            for mark in test.decorator_list:
                if ast.unparse(mark).startswith("pytest.mark.fault("):
                    for number in mark.args:
                        name = f"{path.relative_to(ROOT).as_posix()}::{test.name}"
                        yield number.value, name, is_slow


def table() -> str:
    """Return the faults as a table."""
    lines = ["| | What happens | Injected by |", "| ---: | --- | --- |"]
    for number, fault in FAULTS.items():
        tests = [
            f"`{name}`" + (" (`make test-all`)" if is_slow else "")
            for one, name, is_slow in injected()
            if one == number
        ]
        lines.append(f"| {number} | {fault} | {', '.join(tests)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return CONTRIBUTING.md with today's table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(OPEN)
    return f"{before}{OPEN}{table()}{CLOSE}{rest.partition(CLOSE)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
