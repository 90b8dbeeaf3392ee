"""How sure an error rate is: its bootstrap interval, and the paired test of two models."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from utils.scoring.error_rates import error_rate

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


def resampled_rates(counts: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Return the error rates of test sets of as many clips, drawn with replacement.

    Clips are drawn, not words: errors of one clip come together.

    Args:
        counts: of `count_errors`.
        resamples: how many test sets.
        seed: the same seed gives the same rates.

    Returns:
        float64 `(resamples,)`.
    """
    random, rates = np.random.default_rng(seed), []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        size = min(RESAMPLES_AT_ONCE, resamples - start)
        drawn = counts[random.integers(0, len(counts), (size, len(counts)))].sum(axis=1)
        rates.append(drawn[:, 0] / np.maximum(drawn[:, 1], 1))
    return np.concatenate(rates)


def confidence_interval(counts: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of an error rate.

    Errors are few and sit in few clips, so that rates are skewed: the percentiles of the resamples
    miss high true rates. Cube roots of such sums are nearly normal (Wilson and Hilferty, PNAS 17,
    1931), so the bootstrap tells their standard deviation alone. Resamples of n clips vary too
    little by the square root of (n - 1) / n, and Student's t stands for a deviation that is itself
    estimated. How often it holds the true rate: `benchmarks/results/intervals.json`.

    Args:
        counts: of `count_errors`, at least one clip.
        resamples: 2000 leave about 0.1 points of noise in the bounds of a usual test set.
        seed: the same seed gives the same interval.

    Returns:
        `(low, high)`. Both are the rate itself for a single clip and where there are no errors: the
        bootstrap cannot see what did not happen. The high one is at most 1, or the rate of the
        worst clip if that is more: a few clips, which tell next to nothing, would reach far beyond.
    """
    rate, clips = error_rate(counts), len(counts)
    if clips < 2:
        return rate, rate
    roots = np.cbrt(resampled_rates(counts, resamples, seed))
    reach = stats.t.ppf(0.975, clips - 1) * np.sqrt(clips / (clips - 1)) * roots.std(ddof=1)
    low, high = max(np.cbrt(rate) - reach, 0) ** 3, (np.cbrt(rate) + reach) ** 3
    worst = (counts[:, 0] / np.maximum(counts[:, 1], 1)).max()
    return float(low), float(min(high, max(worst, 1)))


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
