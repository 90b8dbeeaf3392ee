"""`python -m utils.evaluation`: evaluate a checkpoint, or compare runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.artifacts import open_run, require
from utils.config import load_recipe
from utils.environment.command import command
from utils.evaluation.evaluate import compare, evaluate
from utils.evaluation.page import verdict


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate or compare from the shell."""
    parser = argparse.ArgumentParser(prog="python -m utils.evaluation", description=__doc__)
    parser.add_argument("recipe", nargs="?", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="the folder for results")
    parser.add_argument("--checkpoint", help="a folder, a Hub id or embedded/NAME; read at 30 s")
    parser.add_argument("--compare", nargs="+", type=Path, metavar="RUN", help="evaluated folders")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if options.compare:
        print(compare(options.compare))
        return
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


if __name__ == "__main__":
    sys.exit(main())
