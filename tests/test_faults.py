"""Each promised fault is injected by a test, and CONTRIBUTING.md says by which."""

from tests.faults import FAULTS, PAGE, injected, page


def test_every_fault_is_injected_and_no_other_is_named():
    assert {number for number, *_ in injected()} == set(FAULTS)


def test_the_table_is_that_of_the_markers():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python tests/faults.py`"
