"""What was measured: one shape for all results, and one page that says all of them."""

import json

import pytest

from benchmarks.common import RESULTS, overview

SHAPE = ["name", "date", "command", "commit", "machine", "versions", "target", "ratio", "rows"]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_says_what_where_when_and_how(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert list(result)[: len(SHAPE)] == SHAPE
    assert result["name"] == path.stem and f"benchmarks.{path.stem}" in result["command"]
    assert (RESULTS.parent / f"{path.stem}.py").exists()
    ratio = result["ratio"]
    assert ratio["low"] <= ratio["median"] <= ratio["high"]


def test_the_page_of_results_is_that_of_the_results():
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert page == overview(), "run any benchmark, or write benchmarks.common.overview() to it"
