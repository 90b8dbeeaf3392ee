"""Intervals that cover, and a test that is exact where it can be."""

import numpy as np
import pytest

from benchmarks.intervals import random_pairs, simulate
from utils.scoring import intervals
from utils.scoring.error_rates import count_errors, error_rate


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(7)
    hits, trials, clips, rate = 0, 150, 60, 0.15
    for trial in range(trials):
        lengths = random.integers(2, 14, clips)
        counts = np.stack([random.binomial(lengths, rate), lengths], axis=1)
        low, high = intervals.confidence_interval(counts, 300, seed=trial)
        hits += low <= rate <= high
    assert 0.88 <= hits / trials <= 0.99


def test_few_errors_in_few_clips_are_covered_too():
    """Where rates are skewed; the percentiles of the resamples hold 88 % here."""
    random, hits = np.random.default_rng(5), 0
    for trial in range(200):
        counts = simulate(0.05, 30, random)
        low, high = intervals.confidence_interval(counts, 300, seed=trial)
        hits += low <= 0.05 <= high
    assert 0.92 <= hits / 200 <= 0.99


def test_the_interval_narrows_as_clips_are_added():
    references, hypotheses = random_pairs("Latin", 400)
    counts = count_errors(references, hypotheses, "word")
    few = intervals.confidence_interval(counts[:25], 300)
    many = intervals.confidence_interval(counts, 300)
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_the_interval_is_the_same_for_the_same_seed():
    counts = count_errors(*random_pairs("Latin", 20), "word")
    assert intervals.confidence_interval(counts, 100) == intervals.confidence_interval(counts, 100)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[0, 5]] * 12, (0, 1 - 0.05 ** (1 / 12))),  # no error seen: near 3 / 12
        ([[5, 5]] * 12, (0.05 ** (1 / 12), 1)),
        ([[1, 4]], (0.25 * 0.05, 0.25 + 0.75 * 0.95)),  # one clip says next to nothing
        ([[0, 4]], (0, 0.95)),
        ([[0, 0], [2, 0]], None),
    ],
)
def test_degenerate_intervals_are_finite(counts, expected):
    low, high = intervals.confidence_interval(np.array(counts), 100)
    assert np.isfinite([low, high]).all()
    assert low <= error_rate(np.array(counts)) <= high
    assert expected is None or (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("wrong", "most"), [(10, 1.0), (40, 4.0)])
def test_a_few_clips_reach_no_further_than_all_wrong_or_the_worst_of_them(wrong, most):
    counts = np.array([[0, 10], [wrong, 10], [0, 10], [0, 10]])
    assert intervals.confidence_interval(counts, 1000)[1] == most


def test_p_value_is_small_for_a_clear_gain_and_large_for_none():
    random = np.random.default_rng(3)
    lengths = random.integers(3, 12, 60)
    before = np.stack([random.binomial(lengths, 0.3), lengths], axis=1)
    better = np.stack([random.binomial(lengths, 0.05), lengths], axis=1)
    equal = np.stack([random.binomial(lengths, 0.3), lengths], axis=1)
    assert intervals.paired_p_value(before, better, 500) < 0.01
    assert intervals.paired_p_value(better, before, 500) < 0.01, "two-sided: a loss counts too"
    assert intervals.paired_p_value(before, equal, 500) > 0.05
    assert intervals.paired_p_value(before, before, 500) == 1.0


def test_p_value_of_few_clips_is_exact():
    before, after = np.array([[2, 5]] * 4), np.array([[0, 5]] * 4)
    assert intervals.paired_p_value(before, after, 500) == pytest.approx(2 / 2**4)
    assert intervals.paired_p_value(before[:1], after[:1], 500) == 1.0


def test_holm_multiplies_by_what_is_left_and_never_decreases():
    assert intervals.holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert intervals.holm([0.9, 0.6]) == [1.0, 1.0]
    assert intervals.holm([]) == []
