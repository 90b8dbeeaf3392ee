"""`python -m utils.export RECIPE --repository YOU/NAME`: push a finished model to the Hub."""

import argparse
import sys
from collections.abc import Sequence

from utils.artifacts import open_run, require
from utils.config import load_recipe
from utils.environment.command import command
from utils.environment.lock import only_writer


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Push the model of a recipe, and its Space if asked to."""
    parser = argparse.ArgumentParser(prog="python -m utils.export", description=main.__doc__)
    parser.add_argument("recipe", help="the experiment, for example recipes/embedded.toml")
    parser.add_argument("--repository", required=True, help="YOU/NAME on the Hub")
    parser.add_argument("--space", default="", help="YOU/NAME of a Space; left out, none is pushed")
    parser.add_argument("--public", action="store_true", help="a new repository is open to all")
    parser.add_argument("--runs", default="runs", help="the folder of results (%(default)s)")
    chosen = parser.parse_args(arguments)
    from utils.export.hub import address, push, push_line

    recipe = load_recipe(chosen.recipe)
    run = open_run(recipe, chosen.runs)
    exported, private = require(run, "export"), not chosen.public
    with only_writer(run.folder):
        address(recipe, run, chosen.repository, exported)
        told = [push(run.repository, chosen.repository, private=private)]
        if chosen.space:
            told.append(push(run.space, chosen.space, "space", private=private))
    for done in told:
        print(push_line(done))


if __name__ == "__main__":
    sys.exit(main())
