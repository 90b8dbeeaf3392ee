"""The points of a learning curve: which clips each trains on, for how many steps, how often."""

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.config import Recipe, UserError

if TYPE_CHECKING:
    from datasets import Dataset

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the speech, where no minutes are given


@dataclass(frozen=True)
class Bounds:
    """What a curve costs: points × seeds × (steps of training + clips decoded at 30 s)."""

    minutes: tuple[float, ...] = ()  # of training speech; none: SHARES of what there is
    steps: int = 0  # of each training; 0: the recipe's
    clips: int = 500  # decoded of each test source, evenly spread; 0: all
    seeds: int = 3  # of points below half of the most minutes: they vary; larger ones have one
    equal_passes: bool = False  # fewer steps for fewer minutes; else equal steps for all points
    first: str = ""  # a source whose clips come before those of the others


@dataclass(frozen=True)
class Point:
    """One training; with 0 minutes, the model as it was."""

    minutes: float
    seed: int
    rows: tuple[int, ...]
    steps: int

    @property
    def name(self) -> str:
        """The name of its file and of its run folder."""
        return f"{self.minutes:g}min-seed{self.seed}-{self.steps}steps"


def add_bounds(parser: argparse._ActionsContainer, **defaults: Any) -> None:
    """Add the options of `Bounds` to a command."""
    both = {"default": defaults.get("minutes"), "type": float, "metavar": "MINUTES"}
    parser.add_argument("--minutes", nargs="+", help="of training speech, one point each", **both)
    for name, told in {
        "steps": "of each training; 0: the recipe's",
        "clips": "decoded of each test source; 0: all",
        "seeds": "of each point below half of the speech",
    }.items():
        value = defaults.get(name, getattr(Bounds, name))
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{told} (%(default)s)")
    parser.add_argument(
        "--equal-passes", action="store_true", help="steps in proportion to the speech"
    )


def bounds_of(options: argparse.Namespace, first: str = "") -> Bounds:
    """Return what `add_bounds` parsed.

    Raises:
        UserError: a number that cannot be used.
    """
    minutes = tuple(options.minutes or ())
    usable = all(0 < one < math.inf for one in minutes)
    if not usable or min(options.steps, options.clips) < 0 or options.seeds < 1:
        raise UserError("A learning curve needs minutes and seeds above 0, steps and clips from 0.")
    return Bounds(minutes, options.steps, options.clips, options.seeds, options.equal_passes, first)


def subset(train: "Dataset", minutes: float, seed: int, first: str = "") -> np.ndarray:
    """Return the rows of a random subset of about so many minutes, at least one row.

    Of two subsets of one seed, the larger contains the smaller.
    """
    order = np.random.default_rng(seed).permutation(len(train))
    if first:
        later = np.array(train["source"][:])[order] != first
        order = order[np.argsort(later, kind="stable")]
    ends = np.cumsum(np.array(train["seconds"][:])[order])
    return order[: max(np.searchsorted(ends, minutes * 60 + 1e-3, side="right"), 1)]


def plan(train: "Dataset", recipe: Recipe, bounds: Bounds) -> list[Point]:
    """Return all points, that of the untrained model first, then from little speech to much."""
    from utils.training.memory import effective_batch  # with torch, which a command starts without

    whole = sum(train["seconds"][:]) / 60
    wanted = bounds.minutes or [share * whole for share in SHARES]
    sizes = sorted({round(min(minutes, whole), 2) for minutes in wanted})
    updates = math.ceil(len(train) / effective_batch(recipe.training))
    most = bounds.steps or recipe.training.get("max_steps", 0)
    if most <= 0:
        most = math.ceil(updates * recipe.training.get("num_train_epochs", 3))
    points = [Point(0, 0, (), 0)]
    for minutes in sizes:
        steps = max(round(most * minutes / sizes[-1]), 1) if bounds.equal_passes else most
        for seed in range(bounds.seeds if minutes < sizes[-1] / 2 else 1):
            rows = subset(train, minutes, seed, bounds.first)
            points.append(Point(minutes, seed, tuple(rows.tolist()), steps))
    return points
