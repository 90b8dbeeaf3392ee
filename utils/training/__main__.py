"""`python -m utils.training RECIPE`: what lesson 4 does, from the shell and under torchrun."""

import argparse
import sys
import time
from collections.abc import Sequence

from utils.artifacts import open_run, save_report
from utils.config import load_recipe
from utils.environment.command import command
from utils.environment.lock import only_writer


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Train a recipe from the shell; several processes under torchrun share the work."""
    parser = argparse.ArgumentParser(prog="python -m utils.training", description=main.__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args(arguments)
    # Imported here, as in all commands: it takes seconds, in which Ctrl+C has its sentence too.
    from utils.training.progress import progress_line, training_report
    from utils.training.run import train

    started = time.perf_counter()
    recipe = load_recipe(options.recipe)
    run = open_run(recipe, options.runs)
    with only_writer(run.folder):
        trainer = train(
            recipe, run, lambda rows, steps: print(progress_line(rows, steps), flush=True)
        )
        if trainer.args.should_save:
            report = training_report(trainer, run, time.perf_counter() - started)
            print("wrote", save_report(run, "training", report))


if __name__ == "__main__":
    sys.exit(main())
