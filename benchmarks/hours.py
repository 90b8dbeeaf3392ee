"""How much speech do you need? The default recipe with 4 to 66 minutes of it, the same test clips.

The minutes are of the lead that the default trains on; beyond what he says (35 minutes) come those
of the other lead, so that 66 minutes are two voices. All points decode the same test clips at 30 s.
Three seeds draw the small subsets, their order and the augmentation. An interrupted run goes on.
The ratio is the first source's word errors before training over those with the most speech.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.common import RESULTS, save_result
from utils.artifacts import open_run, save_report
from utils.config import Recipe, load_recipe
from utils.evaluation.curve_points import add_bounds, bounds_of
from utils.evaluation.learning_curve import learning_curve
from utils.evaluation.plotting import draw_learning_curve
from utils.preprocessing.prepare import prepare
from utils.whisper.load import load_model

TARGET = "each doubling of the speech lowers the held-out WER; half an hour takes off a third of it"
SECOND = "cs small"  # the held-out lead of the default, whose clips come after the first one's


def with_second_voice(recipe: Recipe) -> Recipe:
    """Return the recipe with the held-out lead's training clips; dev, which chooses, stays."""
    sources = tuple(
        replace(one, train="train", max_clips=0) if one.label == SECOND else one
        for one in recipe.sources
    )
    return replace(recipe, sources=sources)


def main() -> None:
    """Train, measure, print, draw and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--runs", type=Path, default=Path("runs/hours"), help="what is done so far")
    add_bounds(parser, minutes=[4, 8, 16, 33], clips=60)
    options = parser.parse_args()

    recipe = with_second_voice(load_recipe(options.recipe))
    run = open_run(recipe, options.runs)
    if not run.report("preprocessing").exists():
        prepare(recipe, load_model(recipe)[1].tokenizer, run.prepared)
        save_report(run, "preprocessing", {})
    first = next(source.label for source in recipe.sources if source.train)
    rows = learning_curve(recipe, run.prepared, run.folder, bounds_of(options, first))
    for row in rows:
        print("{minutes:5g} min  {source:12} WER {wer:.1%}  CER {cer:.1%}".format(**row))
    draw_learning_curve(rows).savefig(RESULTS / "hours.png", dpi=150)
    own = [row for row in rows if row["source"] == rows[0]["source"]]
    ratios = {
        "median": own[0]["wer"] / own[-1]["wer"],
        "low": own[0]["wer"] / own[-1]["wer_high"],
        "high": own[0]["wer"] / max(own[-1]["wer_low"], 1e-9),
    }
    equal = "passes" if options.equal_passes else "steps"
    print("wrote", save_result("hours", TARGET, ratios, rows, equal=equal))


if __name__ == "__main__":
    main()
