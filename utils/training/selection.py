"""Which checkpoint is kept: the last one, unless dev shows that the best one was better.

A dev split of a few hundred words cannot separate neighbouring checkpoints: the lowest of several
dev error rates is mostly the luckiest. If no difference is shown, the end of the schedule, at its
lowest learning rate, is the better guess; the idea is that of the one-standard-error rule (Breiman
et al. 1984). The best of many evaluations had many chances to be lucky, so the level is divided by
their number (Bonferroni). With `patience`, which is early stopping, training ends after dev has
stopped improving, and the best one is kept. How often either rule is right:
`python -m benchmarks.selection`.
"""

import json
from pathlib import Path

import numpy as np

from utils.scoring.intervals import paired_p_value

CHANCE = 0.05  # a p value from here on counts as no difference
RESAMPLES = 10_000  # of the permutation test: p goes down to 1 / 5000, for up to 250 evaluations
FILE = "dev_errors.json"  # in every checkpoint: a resumed run decides as an uninterrupted one


class Selection:
    """Compares the last evaluation with the one with the fewest errors, clip by clip.

    Args:
        best: always keep the one with the fewest errors.
    """

    def __init__(self, best: bool = False) -> None:
        self.best = best
        self.fewest: np.ndarray | None = None  # errors of the evaluation with the fewest
        self.last: np.ndarray | None = None
        self.steps: list[int] = []  # of every evaluation
        self.fewest_step = 0

    def add(self, errors: np.ndarray, step: int) -> bool:
        """Add an evaluation; return whether it has the fewest errors so far.

        Args:
            errors: its `count_errors` on dev, the same clips in the same order every time.
            step: of its checkpoint.
        """
        self.last, self.steps = errors, [*self.steps, step]
        fewest = self.fewest is None or errors[:, 0].sum() <= self.fewest[:, 0].sum()
        if fewest:
            self.fewest, self.fewest_step = errors, step
        return fewest

    def level(self) -> float:
        """Return the p value below which the best evaluation is not luck."""
        return CHANCE / max(len(self.steps) - 1, 1)

    def p_value(self) -> float:
        """Return the p value of the difference between the last evaluation and the best."""
        return paired_p_value(self.fewest, self.last, RESAMPLES)

    def prefers_best(self) -> bool:
        """Tell whether to go back to the best evaluation's checkpoint."""
        return self.last is not None and (self.best or self.p_value() < self.level())

    def verdict(self) -> str:
        """Return the comparison in one line."""
        if self.last is None:
            return "dev was not evaluated"
        last, fewest = (int(errors[:, 0].sum()) for errors in (self.last, self.fewest))
        said = f"errors on dev: {last} at the last evaluation, {fewest} at the best one"
        if self.best:
            return f"{said}: with patience the best is kept"
        kept = "best" if self.prefers_best() else "last"
        return f"{said}, p = {self.p_value():.2g} against {self.level():.2g}: the {kept} is kept"

    def save(self, folder: Path) -> None:
        """Store in a checkpoint what later evaluations are compared with."""
        told = {"steps": self.steps, "fewest_step": self.fewest_step}
        if self.last is not None:
            told |= {"fewest": self.fewest.tolist(), "last": self.last.tolist()}
        (folder / FILE).write_text(json.dumps(told), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint; one with a file of an older form starts from nothing."""
        path = folder / FILE
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if isinstance(told, dict) and told["steps"]:
            self.steps, self.fewest_step = told["steps"], told["fewest_step"]
            self.fewest, self.last = np.array(told["fewest"]), np.array(told["last"])
