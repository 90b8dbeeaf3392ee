"""`python -m utils.evaluation`: evaluate a checkpoint, or compare runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.artifacts import open_run, require
from utils.config import load_recipe
from utils.environment.command import command
from utils.evaluation.evaluate import compare_folders, evaluate
from utils.evaluation.page import verdict
from utils.evaluation.report import comparison_text
from utils.scoring.predictions import percent, say_p


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate or compare from the shell; return the exit code: 2 where a run is worse."""
    parser = argparse.ArgumentParser(prog="python -m utils.evaluation", description=__doc__)
    parser.add_argument("recipe", nargs="?", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="the folder for results")
    parser.add_argument("--checkpoint", help="a folder, a Hub id or embedded/NAME; read at 30 s")
    parser.add_argument("--compare", nargs="+", type=Path, metavar="RUN", help="evaluated folders")
    parser.add_argument(
        "--fail-if-worse",
        action="store_true",
        help="with --compare: exit with 2 if a later run is significantly worse than the first",
    )
    options = parser.parse_args(arguments)
    if options.fail_if_worse and len(options.compare or []) < 2:
        parser.error("--fail-if-worse compares runs: give --compare BEFORE AFTER with it.")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if options.compare:
        table = compare_folders(options.compare)
        print(comparison_text(table))
        worse = [row for row in table if row["worse"]] if options.fail_if_worse else []
        for row in worse:
            rate = row["first_rate"]
            print(
                f"{row['run']} is worse than {options.compare[0]} on {row['source']}: "
                f"{rate.upper()} {percent(row, f'{rate}_after')}, {row['more']} errors more, "
                f"{say_p(row)}.",
                file=sys.stderr,
            )
        return 2 if worse else 0
    recipe = load_recipe(options.recipe)
    run = open_run(recipe, options.runs)
    folder = run.folder
    if options.checkpoint:
        folder /= "evaluation-" + options.checkpoint.strip("/.").replace("/", "-")
    else:
        require(run, "training")
    report = evaluate(recipe, run, options.checkpoint or run.model, folder)
    print(verdict(report))
    print(f"report: {folder}/evaluation.html, {folder}/evaluation.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
