"""`python -m utils.demo RECIPE`: serve the page of lesson 6."""

import argparse
import secrets
import sys
from collections.abc import Sequence

from utils.artifacts import open_run, require
from utils.config import load_recipe
from utils.demo.guard import end_on_signals
from utils.environment.command import command


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page of a recipe until Ctrl+C."""
    parser = argparse.ArgumentParser(prog="python -m utils.demo", description=main.__doc__)
    parser.add_argument("recipe", help="the experiment, for example recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="the folder of results (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")
    parser.add_argument(
        "--share",
        action="store_true",
        help="give the page a public address too, behind a password that is made up and printed; "
        "Gradio downloads and runs its tunnel program for this",
    )
    chosen = parser.parse_args(arguments)
    end_on_signals()
    from utils.demo.page import build_page
    from utils.demo.serve import GUEST, announce, credits, example_rows, launch, load_transcribers

    recipe = load_recipe(chosen.recipe)
    run = open_run(recipe, chosen.runs)
    require(run, "training")
    transcribers, examples = load_transcribers(recipe, run), example_rows(run)
    page = build_page(transcribers, recipe.spoken, examples, credits(recipe), run.corrections)
    password = secrets.token_urlsafe(12) if chosen.share else ""
    url = launch(page, chosen.port, password)
    announce(url, chosen.port)
    if password:
        print(f"{page.share_url or 'No public address: is there a network?'}")
        print(f"User {GUEST}, password {password}")
    page.block_thread()


if __name__ == "__main__":
    sys.exit(main())
