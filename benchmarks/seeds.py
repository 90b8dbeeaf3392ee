"""How much of a result is luck: the default recipe trained with several seeds, each test set read.

A seed decides which clips meet in a batch, in which order and how they are augmented; weights,
data and recipe are the same. Before training the clips are read at 30 s, after it in the window
trained in, as lesson 05 does, and those of the speakers trained on at 30 s, too. The errors of a
clip are added over the seeds before clips are drawn: the intervals are of the mean over the seeds.
The ratio is the first source's word errors before over those after.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from datasets import load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import count_test_errors, error_ratio, open_prepared_run, save_result
from utils.config import AudioContext, Recipe, load_recipe
from utils.environment.machine import device
from utils.preprocessing.prepare import prepare
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import confidence_interval, paired_p_value
from utils.training.run import train
from utils.whisper.load import load_model

TARGET = "every seed halves the trained speaker's WER; the unheard speaker's falls (p < 0.05)"


def count_errors_by_source(
    recipe: Recipe,
    prepared: Path,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    context: AudioContext | None,
) -> dict[str, np.ndarray]:
    """Return `count_test_errors` of every source, trained on or not."""
    splits = load_from_disk(str(prepared))
    names = [name for name in ("test", "unseen") if name in splits]
    errors = count_test_errors(recipe, prepared, model, processor, context, names)
    sources = np.concatenate([splits[name]["source"][:] for name in names])
    return {str(source): errors[sources == source] for source in dict.fromkeys(sources)}


def main() -> None:
    """Train, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    base, processor = load_model(recipe)
    base.to(device())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared = folder / "prepared"
        prepare(recipe, processor.tokenizer, prepared)
        before = count_errors_by_source(recipe, prepared, base, processor, None)
        after: dict[str, list[np.ndarray]] = {source: [] for source in before}
        stock_window = []  # the sources trained on, read as other programs will
        for seed in range(options.seeds):
            seeded = dataclasses.replace(recipe, training={**recipe.training, "seed": seed})
            run = open_prepared_run(recipe, folder / str(seed), prepared)
            model = train(seeded, run).model
            found = count_errors_by_source(recipe, prepared, model, processor, recipe.audio_context)
            for source, errors in found.items():
                after[source].append(errors)
            stock_window.append(count_test_errors(recipe, prepared, model, processor, None))
            rates = {source: f"{error_rate(errors):.1%}" for source, errors in found.items()}
            print(f"seed {seed}: {rates}, at 30 s {error_rate(stock_window[-1]):.1%}", flush=True)

    rows, resamples = [], recipe.evaluation.resamples
    for source, errors in before.items():
        pooled = np.sum(after[source], axis=0)
        low, high = confidence_interval(pooled, resamples)
        p = paired_p_value(errors * options.seeds, pooled, resamples)
        rows.append(
            {"source": source, "clips": len(errors), "wer_before": error_rate(errors)}
            | {"wer": error_rate(pooled), "wer_low": low, "wer_high": high, "p_value": p}
            | {"wers": [error_rate(one) for one in after[source]]}
        )
        print(rows[-1])
    first = next(iter(before))
    ratios = error_ratio(before[first] * options.seeds, np.sum(after[first], axis=0))
    at_30s = [error_rate(errors) for errors in stock_window]
    print("wrote", save_result("seeds", TARGET, ratios, rows, test_wers_at_30s=at_30s))


if __name__ == "__main__":
    main()
