"""How sure an error rate is: its bootstrap interval, and the paired test of two models."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from utils.error_rates import error_rate

# Resamples are drawn this many at a time: 2000 of 10 000 clips at once would take gigabytes.
RESAMPLES_AT_ONCE = 100


def pool(counts: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Sum `count_errors` by group: an interval over speakers draws speakers, not clips.

    Args:
        counts: `(clips, 2)`.
        groups: the speaker of each clip.

    Returns:
        int64 `(groups, 2)`.
    """
    names, which = np.unique([str(group) for group in groups], return_inverse=True)
    pooled = np.zeros((len(names), counts.shape[1]), dtype=np.int64)
    np.add.at(pooled, which, counts)
    return pooled


def _rates(edits: np.ndarray, lengths: np.ndarray, axis: int = -1) -> np.ndarray:
    return edits.sum(axis=axis) / np.maximum(lengths.sum(axis=axis), 1)


def percentile_level(clips: int) -> float:
    """Return which middle share of the resamples is a 95 % interval: a little more than 0.95.

    Resamples of a small set vary too little, by the square root of (n - 1) / n, and too normally.
    This is the expanded percentile interval of Hesterberg, The American Statistician 69 (2015).
    """
    reach = stats.t.ppf(0.975, clips - 1) * np.sqrt(clips / (clips - 1))
    return float(1 - 2 * stats.norm.sf(reach))


def confidence_interval(counts: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of an error rate.

    Clips are drawn with replacement, not words: errors of one clip come together. It is the
    percentile interval at `percentile_level`; BCa held the true rate less often with 54 clips of a
    skewed error distribution (91 % of 400 trials against 94 %), and gave NaN in 6 % of the trials
    with 8 clips. Where few clips hold most of the errors, as in endless hypotheses, the interval is
    too narrow with either: `benchmarks/results/intervals.json` says how often it holds.

    Args:
        counts: of `count_errors`, at least one clip.
        resamples: 2000 leave about 0.1 points of noise in the bounds of a usual test set.
        seed: the same seed gives the same interval.

    Returns:
        `(low, high)`. Both are the rate itself for a single clip and where there are no errors: the
        bootstrap cannot see what did not happen.
    """
    if len(counts) < 2:
        return error_rate(counts), error_rate(counts)
    interval = stats.bootstrap(
        (counts[:, 0], counts[:, 1]),
        _rates,
        n_resamples=resamples,
        batch=RESAMPLES_AT_ONCE,
        paired=True,
        vectorized=True,
        confidence_level=percentile_level(len(counts)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _difference(before: np.ndarray, after: np.ndarray, axis: int = -1) -> np.ndarray:
    return (before - after).sum(axis=axis)


def paired_p_value(before: np.ndarray, after: np.ndarray, resamples: int, seed: int = 0) -> float:
    """Return how often chance alone would give a difference in edits at least as large.

    A two-sided permutation test: if both models were equally good, it would not matter which of a
    clip's two hypotheses came from which. With few clips all 2ⁿ exchanges are tried; otherwise the
    smallest possible value is 2 / (resamples + 1).

    Args:
        before: of `count_errors` for one model.
        after: for the other, on the same clips in the same order.
        resamples: random exchanges.
        seed: the same seed gives the same value.
    """
    if len(before) < 2:  # SciPy refuses one observation; its two exchanges are equally extreme
        return 1.0
    result = stats.permutation_test(
        (before[:, 0], after[:, 0]),
        _difference,
        permutation_type="samples",
        n_resamples=resamples,
        batch=RESAMPLES_AT_ONCE,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
