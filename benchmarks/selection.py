"""How often the rule that keeps a checkpoint is right, in simulated trainings whose truth is known.

With patience: dev falls to the fourth evaluation and rises again until patience ends the run; how
often is the fourth kept? Without: all evaluations are equally good; how often is the last refused
though only luck set it apart? Beside today's rule stands the one before: the newest is kept unless
p < 0.05 against the best so far, whatever the number of evaluations and patience.

    python -m benchmarks.selection
"""

import argparse
from unittest import mock

import numpy as np

from benchmarks.common import save_result
from utils.training import dev
from utils.training.dev import CHANCE, Selection

TARGET = "with patience the true best is kept most often; of equal ones the last is refused in 5 %"
TRUE_RATES = (0.30, 0.22, 0.18, 0.16, 0.172, 0.184, 0.196)  # patience 3 ends at the seventh
WORDS, CHANGED = 6, 0.3  # in a clip; share of the clips that two evaluations differ in


def overfitted(random: np.random.Generator, clips: int) -> list[np.ndarray]:
    """Return `count_errors` of each evaluation; clips that are hard stay hard."""
    hard, draws = random.gamma(1.0, 1.0, clips), random.random((clips, 30))
    evaluations = []
    for rate in TRUE_RATES:
        mean = np.clip(hard * rate * WORDS, 0, WORDS)
        errors = (draws < mean[:, None] / 30).sum(axis=1)
        changed = random.random(clips) < CHANGED
        errors[changed] = random.poisson(mean[changed])
        evaluations.append(np.stack([errors, np.full(clips, WORDS)], axis=1))
    return evaluations


def equals(random: np.random.Generator, clips: int, count: int) -> list[np.ndarray]:
    """Return `count_errors` of evaluations that are equally good, half of whose clips differ."""
    base = random.poisson(0.6, clips)
    evaluations = []
    for _ in range(count):
        errors, changed = base.copy(), random.random(clips) < 0.5
        errors[changed] = random.poisson(0.6, changed.sum())
        evaluations.append(np.stack([errors, np.full(clips, WORDS)], axis=1))
    return evaluations


def kept(evaluations: list[np.ndarray]) -> dict[str, int]:
    """Return which evaluation each rule keeps when patience has ended a run, counted from 0."""
    now, before = Selection(best=True), 0
    for number, errors in enumerate(evaluations):
        now.add(errors, number)
        if now.p_value() >= CHANCE:
            before = number
    return {"before": before, "now": now.fewest_step}


def main() -> None:
    """Simulate, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--clips", type=int, default=100)
    options = parser.parse_args()
    random, rows = np.random.default_rng(3), []
    with mock.patch.object(dev, "RESAMPLES", 2000):  # enough for 20 evaluations
        found = [kept(overfitted(random, options.clips)) for _ in range(options.runs)]
        best = int(np.argmin(TRUE_RATES))
        row: dict[str, object] = {"what": "true best kept after patience", "evaluations": 7}
        for rule in ("before", "now"):
            row[rule] = float(np.mean([one[rule] == best for one in found]))
            row[f"true_rate_{rule}"] = float(np.mean([TRUE_RATES[one[rule]] for one in found]))
        rows.append(row)
        print(row, flush=True)
        for count in (2, 5, 10, 20):
            values = []
            for _ in range(options.runs):
                told = Selection()
                for number, errors in enumerate(equals(random, options.clips, count)):
                    told.add(errors, number)
                values.append(told.p_value())
            row = {"what": "last of equal ones refused", "evaluations": count}
            row["before"] = float(np.mean(np.array(values) < CHANCE))
            row["now"] = float(np.mean(np.array(values) < told.level()))
            rows.append(row)
            print(row, flush=True)
    shares = [row["now"] for row in rows[1:]]
    ratio = {"median": np.median(shares), "low": min(shares), "high": max(shares)}
    print(save_result("selection", TARGET, ratio, rows))


if __name__ == "__main__":
    main()
