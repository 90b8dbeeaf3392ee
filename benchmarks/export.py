"""Every exported format, and every documented call, on the whole test split: errors, speed, size.

The ratio is Transformers' seconds over those of CTranslate2's int8, both in the recipe's short
window, clip by clip: the 95 % interval of a bootstrap over clips. It needs a run with lesson 7.
"""

import argparse
import sys

import numpy as np
from datasets import load_from_disk

from benchmarks.common import open_trained, save_result
from utils.artifacts import require
from utils.config import load_recipe
from utils.export.measure import rate_programs, run_programs
from utils.export.programs import load_programs
from utils.preprocessing.examples import waveform

TARGET = "WER within 0.5 points of Transformers; int8 at most 30 % of its size, at least 2x as fast"
SLOW, FAST = "Transformers float32, short", "CTranslate2 int8, short"


def main() -> int:
    """Transcribe the test split with every program, and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    run, model, processor = open_trained(recipe, options.runs)
    sizes = require(run, "export")["formats"]
    programs = load_programs(recipe, run, model.cpu(), processor)  # as the others
    test = load_from_disk(str(run.prepared))["test"]
    returned = run_programs(programs, [waveform(row) for row in test], test["language"][:])
    rows = rate_programs(returned, test["text"][:], test["language"][:])
    seconds = np.array([returned[name]["seconds"] for name in (SLOW, FAST)])
    draws = np.random.default_rng(0).integers(0, len(test), (2000, len(test)))
    slow, fast = seconds[:, draws].sum(axis=-1)
    low, median, high = np.percentile(slow / fast, [2.5, 50, 97.5])
    ratio = {"median": median, "low": low, "high": high}
    table = [
        {"format": name, "megabytes": sizes[name]["megabytes"]} | row for name, row in rows.items()
    ]
    print("wrote", save_result("export", TARGET, ratio, table, on_cpu=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
