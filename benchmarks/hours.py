"""How much speech do you need? The default recipe with 4 to 66 minutes of it, the same test clips.

The minutes are of the lead that the default trains on; beyond what he says (35 minutes) come those
of the other lead, so that 66 minutes are two voices. All points decode the same test clips at 30 s.
Three seeds draw the small subsets, their order and the augmentation. With `--equal-passes`, all
points are trained a second time, with steps in proportion to their speech. An interrupted run goes
on.
The ratio is the first source's word errors before training over those with the most speech.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.common import PLACE, prepare_once, save_result
from utils.config import Recipe, load_recipe
from utils.evaluation.curve_points import add_bounds, bounds_of
from utils.evaluation.learning_curve import learning_curve
from utils.evaluation.plotting import draw_learning_curve

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
    run = prepare_once(recipe, options.runs)
    first = next(source.label for source in recipe.sources if source.train)
    bounds, rows = bounds_of(options, first), []
    for equal in ("steps", "passes") if options.equal_passes else ("steps",):
        own = replace(bounds, equal_passes=equal == "passes")
        found = learning_curve(recipe, run.prepared, run.folder, own)
        draw_learning_curve(found).savefig(PLACE / f"hours_{equal}.png", dpi=150)
        rows += [{"equal": equal, **row} for row in found]
    for row in rows:
        print("{equal} {minutes:5g} min  {source:12} WER {wer:.1%}  CER {cer:.1%}".format(**row))
    source = rows[0]["source"]
    same = [row for row in rows if row["source"] == source and row["equal"] == "steps"]
    before, after = same[0]["wer"], same[-1]
    ratios = {
        "median": before / after["wer"],
        "low": before / after["wer_high"],
        "high": before / max(after["wer_low"], 1e-9),
    }
    print("wrote", save_result("hours", TARGET, ratios, rows))


if __name__ == "__main__":
    main()
