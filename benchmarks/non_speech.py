"""What does training on non-speech buy? Text invented for silence, noise and music, and the WER.

The default recipe with several shares of clips whose sound is silence or noise and whose label is
empty ([augmentation] non_speech). All models decode the same probes and the same test clips at
30 s. Noise and silence are of the kind that was trained, music is not. The ratio is that of the
test's word errors without non-speech over those with the largest share.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import load_from_disk

from benchmarks.common import error_ratio, open_prepared_run, save_result
from utils.config import load_recipe
from utils.environment.machine import device
from utils.evaluation.learning_curve import test_rows
from utils.evaluation.probes import make_probes
from utils.preprocessing.prepare import prepare
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import confidence_interval, paired_p_value
from utils.training.dev import count_dev_errors
from utils.training.progress import progress_line
from utils.training.run import train
from utils.whisper.decoding import transcribe
from utils.whisper.load import load_model

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.05, 0.1])
    parser.add_argument("--clips", type=int, default=60, help="of each test source; 0: all")
    parser.add_argument("--probes", type=int, default=20, help="of noise and of music")
    options = parser.parse_args()

    recipe, sounds = load_recipe(options.recipe), make_sounds(options.probes)
    base, processor = load_model(recipe)
    base.to(device())
    rows, counts = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(recipe, processor.tokenizer, folder / "prepared")
        tested = test_rows(load_from_disk(str(folder / "prepared")), recipe, options.clips)
        for share in (None, *options.shares):
            model = base
            if share is not None:
                changed = replace(
                    recipe, augmentation=replace(recipe.augmentation, non_speech=share)
                )
                run = open_prepared_run(changed, folder / str(share), folder / "prepared")
                model = train(
                    changed, run, lambda *logs: print(progress_line(*logs), flush=True)
                ).model
            errors = counts[share] = count_dev_errors(model, processor, tested, recipe, None)["wer"]
            texts = transcribe(
                model, processor, [one for _, one in sounds], language=recipe.languages[0]
            )
            told = [(kind, text) for (kind, _), text in zip(sounds, texts, strict=True)]
            low, high = confidence_interval(errors, recipe.evaluation.resamples)
            row = {"share": share, "clips": len(errors)}
            row |= {"wer": error_rate(errors), "wer_low": low, "wer_high": high}
            for kind in ("silence", "noise", "music"):
                own = [text for one, text in told if one == kind]
                row[f"text_for_{kind}"] = float(np.mean([bool(text) for text in own]))
                row[f"characters_for_{kind}"] = float(np.mean([len(text) for text in own]))
            if share is not None:
                first = counts[options.shares[0]]
                row["p_against_first_share"] = paired_p_value(
                    first, errors, recipe.evaluation.resamples
                )
            rows.append(row)
            print(row, flush=True)
    ratios = error_ratio(counts[options.shares[0]], counts[options.shares[-1]])
    print("wrote", save_result("non_speech", TARGET, ratios, rows))


if __name__ == "__main__":
    main()
