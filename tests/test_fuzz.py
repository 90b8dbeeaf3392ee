"""A slice of `benchmarks.fuzz`: malformed inputs for every loader, and no traceback."""

from benchmarks.fuzz import fuzz


def test_malformed_inputs_end_in_a_result_or_a_sentence():
    rows = fuzz(600, seed=3)
    assert sum(row["inputs"] for row in rows) >= 590
    assert [row for row in rows if row["raw"] or row["hang"]] == []
