"""`python -m utils.training RECIPE`: what lesson 04 does, from the shell and under torchrun."""

import argparse
import sys
import time

from utils.artifacts import RunMismatch, open_run, save_report
from utils.config import RecipeError, load_recipe
from utils.embedded.cache import FetchError
from utils.environment.gpu import HardwareError
from utils.training.progress import progress_line, training_report
from utils.training.run import Stopped, train
from utils.training.stopping import SIGNAL
from utils.training.trainer import TrainingError


def main() -> None:
    """Train a recipe from the shell; several processes under torchrun share the work."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    started = time.perf_counter()
    try:
        recipe = load_recipe(options.recipe)
        run = open_run(recipe, options.runs)
        trainer = train(
            recipe, run, lambda rows, steps: print(progress_line(rows, steps), flush=True)
        )
        if trainer.args.should_save:
            report = training_report(trainer, run, time.perf_counter() - started)
            print("wrote", save_report(run, "training", report))
    except Stopped as reason:
        print(reason, file=sys.stderr)
        sys.exit(128 + SIGNAL)  # what a shell reports for a process that the signal has ended
    except (FetchError, HardwareError, OSError, RecipeError, RunMismatch, TrainingError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
