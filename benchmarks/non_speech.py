"""What does training on non-speech buy? Text invented for silence, noise and music, and the WER.

The default recipe with several shares of clips whose sound is silence or noise and whose label is
empty ([augmentation] non_speech). All models decode the same probes and the same test clips at
30 s. Noise and silence are of the kind that was trained, music is not. The ratio is that of the
test's word errors without non-speech over those with the largest share.
"""

from dataclasses import replace

import numpy as np
from datasets import load_from_disk

from benchmarks.common import error_ratio, prepare_once, save_result
from benchmarks.seeds import seeds_parser
from utils.config import load_recipe
from utils.evaluation.curve_points import Point
from utils.evaluation.learning_curve import Splits, test_rows, train_point
from utils.evaluation.probes import make_probes
from utils.scoring.intervals import paired_p_value, rate_with_interval
from utils.training.dev import count_dev_errors
from utils.whisper.decoding import transcribe

TARGET = "with a twentieth of non-speech no text for silence and noise, and no higher WER"
LEVELS_DB = (-10, 0, 10, 20)  # of noise and music, against those of `make_probes`


def make_sounds(count: int) -> list[tuple[str, np.ndarray]]:
    """Return kind and samples of probes: noise anew each time, at several levels, and music."""
    sounds = [("silence", make_probes()["silence"])]
    for number in range(count):
        gain = 10 ** (LEVELS_DB[number % len(LEVELS_DB)] / 20)
        probes = make_probes(number)
        sounds += [(kind, np.float32(gain) * probes[kind]) for kind in ("noise", "music")]
    return sounds


def main() -> None:
    """Train, measure, print and save."""
    parser = seeds_parser(__doc__, "runs/non_speech")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.1])
    parser.add_argument("--probes", type=int, default=20, help="of noise and of music")
    parser.set_defaults(seeds=1, clips=60)
    options = parser.parse_args()

    recipe, sounds = load_recipe(options.recipe), make_sounds(options.probes)
    run = prepare_once(recipe, options.runs)
    whole = load_from_disk(str(run.prepared))
    splits = Splits(whole["train"], whole["dev"], test_rows(whole, recipe, options.clips))
    steps = options.steps or recipe.training["max_steps"]
    everything = tuple(range(len(splits.train)))
    kinds, waves = zip(*sounds, strict=True)
    resamples, rows, counts = recipe.evaluation.resamples, [], {}
    for share in (None, *options.shares):
        changed = replace(recipe, augmentation=replace(recipe.augmentation, non_speech=share or 0))
        found, texts = [], []
        for seed in range(options.seeds if share is not None else 1):
            point = Point(0, seed, everything, steps if share is not None else 0)
            model, processor = train_point(changed, point, splits, run.folder / f"{share} {seed}")
            found.append(count_dev_errors(model, processor, splits.tested, recipe, None)["wer"])
            told = transcribe(model, processor, waves, language=recipe.languages[0])
            texts += zip(kinds, told, strict=True)
        errors = counts[share] = np.sum(found, axis=0)
        row = {"share": share, "steps": point.steps, "seeds": len(found), "clips": len(errors)}
        row |= rate_with_interval("wer", errors, resamples)
        for kind in ("silence", "noise", "music"):
            own = [text for one, text in texts if one == kind]
            row[f"text_for_{kind}"] = float(np.mean([bool(text) for text in own]))
            row[f"characters_for_{kind}"] = float(np.mean([len(text) for text in own]))
        if share is not None:
            first = counts[options.shares[0]]
            row["p_against_first_share"] = paired_p_value(first, errors, resamples)
        rows.append(row)
        print(row, flush=True)
    ratios = error_ratio(counts[options.shares[0]], counts[options.shares[-1]])
    print("wrote", save_result("non_speech", TARGET, ratios, rows))


if __name__ == "__main__":
    main()
