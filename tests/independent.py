"""The report's figures by other means: no jiwer, no bootstrap of SciPy's, nothing under test."""

import statistics

import numpy as np
from scipy.stats import t

from utils.text import normalize


def edits(row: dict, model: str, unit: str) -> tuple[int, int]:
    """Edit distance by the textbook's table, and the reference's length."""
    said, hypothesis = (normalize(row[key], row["language"]) for key in ("reference", model))
    if unit == "word":
        said, hypothesis = said.split(), hypothesis.split()
    line = list(range(len(hypothesis) + 1))
    for i, one in enumerate(said, 1):
        corner, line[0] = line[0], i
        for j, other in enumerate(hypothesis, 1):
            best = min(line[j] + 1, line[j - 1] + 1, corner + (one != other))
            corner, line[j] = line[j], best
    return line[-1], len(said)


def interval(counts: np.ndarray, resamples: int) -> tuple[float, float]:
    """The bootstrap over clips on the scale of cube roots, from the seed that the report uses."""
    draws = np.random.default_rng(0).integers(0, len(counts), (resamples, len(counts)))
    roots = [
        (sum(edits) / max(sum(said), 1)) ** (1 / 3)
        for edits, said in counts[draws].transpose(0, 2, 1)
    ]
    middle = (counts[:, 0].sum() / max(counts[:, 1].sum(), 1)) ** (1 / 3)
    variance = statistics.variance(roots) * len(counts) / (len(counts) - 1)
    reach = t(len(counts) - 1).ppf(0.975) * variance**0.5
    worst = max(edits / max(said, 1) for edits, said in counts.tolist())
    return max(middle - reach, 0) ** 3, min((middle + reach) ** 3, max(worst, 1))
