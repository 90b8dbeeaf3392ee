"""The report's figures by other means: no jiwer, no bootstrap of SciPy's, nothing under test."""

from statistics import NormalDist

import numpy as np
from scipy.stats import t

from utils.text import normalize


def edits(row: dict, model: str, unit: str) -> tuple[int, int]:
    """Edit distance by the textbook's table, and the reference's length."""
    said, heard = (normalize(row[key], row["language"]) for key in ("reference", model))
    if unit == "word":
        said, heard = said.split(), heard.split()
    line = list(range(len(heard) + 1))
    for i, one in enumerate(said, 1):
        corner, line[0] = line[0], i
        for j, other in enumerate(heard, 1):
            best = min(line[j] + 1, line[j - 1] + 1, corner + (one != other))
            corner, line[j] = line[j], best
    return line[-1], len(said)


def interval(counts: np.ndarray, resamples: int) -> tuple[float, float]:
    """The expanded percentile bootstrap over clips, from the seed that the report uses."""
    random, rates = np.random.default_rng(0), []
    for start in range(0, resamples, 100):
        size = min(100, resamples - start)
        drawn = counts[random.integers(0, len(counts), (size, len(counts)))].sum(axis=1)
        rates += list(drawn[:, 0] / np.maximum(drawn[:, 1], 1))
    reach = t(len(counts) - 1).ppf(0.975) * (len(counts) / (len(counts) - 1)) ** 0.5
    tail = 100 * NormalDist().cdf(-reach)
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)
