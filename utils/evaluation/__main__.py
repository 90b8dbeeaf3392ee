"""`python -m utils.evaluation`: evaluate checkpoints, compare runs, or draw a learning curve."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.artifacts import open_run, require, write_json
from utils.config import Recipe, load_recipe
from utils.environment.command import command
from utils.environment.lock import only_writer
from utils.evaluation.curve_points import Bounds, add_bounds, bounds_of


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate or compare from the shell; return the exit code: 2 where a run is worse."""
    parser = argparse.ArgumentParser(prog="python -m utils.evaluation", description=__doc__)
    parser.add_argument("recipe", nargs="?", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="the folder for results")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        help="folders, Hub ids or embedded/NAME, read at 30 s; several end in one table",
    )
    parser.add_argument("--compare", nargs="+", type=Path, metavar="RUN", help="evaluated folders")
    parser.add_argument(
        "--fail-if-worse",
        action="store_true",
        help="with --compare: exit with 2 if a later run is significantly worse than the first",
    )
    curve = parser.add_argument_group("how much speech does it take?")
    curve.add_argument(
        "--learning-curve",
        action="store_true",
        help="train the recipe with an eighth, a quarter, half and all of its prepared speech",
    )
    add_bounds(curve)
    options = parser.parse_args(arguments)
    if options.fail_if_worse and len(options.compare or []) < 2:
        parser.error("--fail-if-worse compares runs: give --compare BEFORE AFTER with it.")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if options.compare:
        return compare(options.compare, options.fail_if_worse)
    recipe = load_recipe(options.recipe)
    if options.learning_curve:
        draw_curve(recipe, options.runs, bounds_of(options))
    else:
        evaluate_all(recipe, options.runs, options.checkpoint or [])
    return 0


def compare(folders: Sequence[Path], fail_if_worse: bool) -> int:
    """Print evaluated folders beside each other; return 2 where one is worse, if asked to."""
    from utils.evaluation.evaluate import compare_folders
    from utils.evaluation.report import comparison_text
    from utils.scoring.predictions import percent, say_p

    table = compare_folders(folders)
    print(comparison_text(table))
    worse = [row for row in table if row["worse"]] if fail_if_worse else []
    for row in worse:
        rate = row["first_rate"]
        print(
            f"{row['run']} is worse than {folders[0]} on {row['source']}: "
            f"{rate.upper()} {percent(row, f'{rate}_after')}, {row['more']} errors more, "
            f"{say_p(row)}.",
            file=sys.stderr,
        )
    return 2 if worse else 0


def evaluate_all(recipe: Recipe, runs: str, checkpoints: Sequence[str]) -> None:
    """Evaluate checkpoints, or the run's own model if there are none; compare several."""
    from utils.evaluation.evaluate import evaluate
    from utils.evaluation.page import verdict

    run, folders = open_run(recipe, runs), []
    if not checkpoints:
        require(run, "training")
    for checkpoint in checkpoints or [run.model]:
        folder = run.folder
        if checkpoints:
            folder /= "evaluation-" + checkpoint.strip("/.").replace("/", "-")
        print(verdict(evaluate(recipe, run, checkpoint, folder)))
        print(f"report: {folder}/evaluation.html, {folder}/evaluation.json")
        folders.append(folder)
    if len(folders) > 1:
        compare(folders, fail_if_worse=False)
        print('what training may gain from there: docs/choosing.md, "Should you fine-tune at all?"')


def draw_curve(recipe: Recipe, runs: str, bounds: Bounds) -> None:
    """Measure a learning curve on what lesson 3 prepared; write its figure and its numbers."""
    from utils.evaluation.learning_curve import learning_curve
    from utils.evaluation.plotting import draw_learning_curve
    from utils.scoring.predictions import percent

    run = open_run(recipe, runs)
    require(run, "preprocessing")
    with only_writer(run.folder):
        rows = learning_curve(recipe, run.prepared, run.folder / "learning_curve", bounds)
    for row in rows:
        rates = ", ".join(f"{rate.upper()} {percent(row, rate)}" for rate in ("wer", "cer"))
        print(f"{row['minutes']:5g} min  {row['source']}: {rates}")
    figure, path = run.figures / "learning_curve.png", run.folder / "learning_curve.json"
    draw_learning_curve(rows).savefig(figure, dpi=150)
    write_json(path, {"rows": rows})
    print(f"figure: {figure}, numbers: {path}")


if __name__ == "__main__":
    sys.exit(main())
