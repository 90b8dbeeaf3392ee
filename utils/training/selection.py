"""Which checkpoint is kept: the newest one, unless dev shows that another was better.

A dev split of a few hundred words cannot tell neighbours apart: the lowest of several dev WERs is
mostly the luckiest. Where no difference is shown, the end of the schedule, at its lowest learning
rate, is the better guess. The same thought as the one-standard-error rule (Breiman et al. 1984).
"""

import json
from pathlib import Path

import numpy as np

from utils.scoring.intervals import paired_p_value

CHANCE = 0.05  # a difference that luck alone gives more often is none
RESAMPLES = 2000  # of the permutation test
FILE = "dev_errors.json"  # in every checkpoint: a resumed run decides as an uninterrupted one


class Selection:
    """Compares each evaluation with the one of the fewest errors so far, clip by clip."""

    def __init__(self) -> None:
        self.fewest: np.ndarray | None = None  # errors of the evaluation with the fewest
        self.newest: np.ndarray | None = None

    def accepts(self, errors: np.ndarray) -> bool:
        """Tell whether the newest checkpoint is to be kept.

        Args:
            errors: its `count_errors` on dev, the same clips in the same order every time.
        """
        self.newest = errors
        if self.fewest is None or errors[:, 0].sum() <= self.fewest[:, 0].sum():
            self.fewest = errors
        return self.p_value() >= CHANCE

    def p_value(self) -> float:
        """Return how often luck alone would set the newest so far from the one of the fewest."""
        return paired_p_value(self.fewest, self.newest, RESAMPLES)

    def verdict(self) -> str:
        """Return the comparison in one line."""
        if self.newest is None:
            return "dev was not read"
        newest, fewest = (int(errors[:, 0].sum()) for errors in (self.newest, self.fewest))
        p = self.p_value()
        return (
            f"errors on dev: {newest} in the newest evaluation, {fewest} in the best one, "
            f"p = {p:.2g}: the newest is {'' if p >= CHANCE else 'not '}kept"
        )

    def save(self, folder: Path) -> None:
        """Write what later evaluations are compared with into a checkpoint."""
        both = None if self.newest is None else [self.fewest.tolist(), self.newest.tolist()]
        (folder / FILE).write_text(json.dumps(both), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint; one without the file, from before there was one, starts anew."""
        path = folder / FILE
        both = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        self.fewest, self.newest = map(np.array, both) if both else (None, None)
