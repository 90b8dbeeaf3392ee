"""How certain an error rate is: its bootstrap interval, and the paired test of two models."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from utils.scoring.error_rates import error_rate

# Resamples are drawn this many at a time: 2000 of 10 000 clips at once would take gigabytes.
RESAMPLES_AT_ONCE = 100


def pool(counts: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Sum `count_errors` by group: intervals and tests over speakers draw speakers, not clips.

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
    """Return the error rates of test sets of the same size, drawn with replacement.

    Clips are drawn, not words: the errors of one clip depend on each other.

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

    A few clips cause most errors, so that rates are skewed: the percentiles of the resamples miss
    high true rates. Cube roots of such sums are nearly normal (Wilson and Hilferty, PNAS 17, 1931),
    so only their standard deviation comes from the bootstrap. Resamples of n clips vary too little
    by the square root of (n - 1) / n, and Student's t allows for a deviation that is itself
    estimated. How often it contains the true rate: `benchmarks/results/intervals.json`.

    Where all clips have one rate, usually because there was no error, the bootstrap has no
    variation to resample. The interval then follows the rule of three: with 95 % confidence at
    most a share 1 - 0.05^(1/n) of clips, about 3 / n, is different; these count as all wrong for
    the upper end and as all right for the lower one.

    Args:
        counts: of `count_errors`, or of `pool`: one row for each clip or speaker, at least one.
        resamples: 2000 leave about 0.1 points of noise in the bounds of a usual test set.
        seed: the same seed gives the same interval.

    Returns:
        `(low, high)`. The high end is at most 1, or the rate of the worst clip if that is more:
        with very few clips it could go far higher.
    """
    rate, clips = error_rate(counts), len(counts)
    own_rates = counts[:, 0] / np.maximum(counts[:, 1], 1)
    worst = max(own_rates.max(), rate, 1)
    if np.ptp(own_rates) == 0:
        otherwise = 1 - 0.05 ** (1 / clips)
        return rate * (1 - otherwise), float(rate + (worst - rate) * otherwise)
    roots = np.cbrt(resampled_rates(counts, resamples, seed))
    reach = stats.t.ppf(0.975, clips - 1) * np.sqrt(clips / (clips - 1)) * roots.std(ddof=1)
    low, high = max(np.cbrt(rate) - reach, 0) ** 3, (np.cbrt(rate) + reach) ** 3
    return float(low), float(min(high, worst))


def rate_with_interval(name: str, counts: np.ndarray, resamples: int) -> dict[str, float]:
    """Return an error rate and its `confidence_interval` as `NAME`, `NAME_low` and `NAME_high`."""
    low, high = confidence_interval(counts, resamples)
    return {name: error_rate(counts), f"{name}_low": low, f"{name}_high": high}


def _difference(before: np.ndarray, after: np.ndarray, axis: int = -1) -> np.ndarray:
    return (before - after).sum(axis=axis)


def paired_p_value(before: np.ndarray, after: np.ndarray, resamples: int, seed: int = 0) -> float:
    """Return how often chance alone would give a difference in edits at least as large.

    A two-sided permutation test: if both models were equally good, swapping their hypotheses of a
    clip would change nothing on average. With few clips all 2ⁿ swaps are tried. By clips, it
    assumes that the clips of one speaker are independent: where speakers gain differently from
    each other, it finds p < 0.05 in 17 to 32 % of studies without a true difference. Then `pool`
    both first, so that all clips of a speaker are swapped together.

    Args:
        before: of `count_errors` for one model, or `pool` of it.
        after: for the other, on the same clips in the same order.
        resamples: random swaps.
        seed: the same seed gives the same value.
    """
    if len(before) < 2:  # SciPy refuses one observation; its two swaps are equally extreme
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple tests (Holm, Scand. J. Statist. 6, 1979).

    Of k true null hypotheses, one or more has a corrected value below 0.05 in at most 5 % of
    studies; uncorrected it would be 40 % of studies for ten of them.
    """
    order, corrected, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        corrected[index] = float(largest)
    return corrected
