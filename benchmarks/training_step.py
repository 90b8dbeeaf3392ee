"""A training step as the stock recipe takes it, beside ours: same clips, same weights, one run.

Stock: every clip padded to 30 s, batches of a fixed number of clips; on a CPU in 32 bits, for the
fp16 of the published recipes needs a GPU. Ours: the audio context of the batch, tail included, and
batches of like lengths and equal speech; in this machine's precision, as `train` does. Beside them
what each of the two does alone, and ours with the encoder frozen. Each takes the whole step:
log-mel, forward, backward, clipped AdamW. By the length of the clips: `benchmarks.lengths`.
"""

import argparse
import copy
import dataclasses
import tempfile

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import alternate, ratio, save_result
from utils.artifacts import open_run
from utils.config import Method, Recipe, load_recipe
from utils.environment.machine import device, precision
from utils.preprocessing.batches import EqualSpeechBatches
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.prepare import prepare
from utils.training.adapters import choose_weights
from utils.whisper.audio_context import audio_context
from utils.whisper.load import load_model

TARGET = (
    "12 times the stock throughput on the embedded clips where the CPU multiplies bf16, else 8; "
    "18 with the encoder frozen; 2 cores"
)
STOCK, SHORT, OURS = "stock 30 s", "short context", "ours"


class Arm:
    """One way to train: takes the given batches, one step each, in 32 bits or in `half`."""

    def __init__(self, model, processor, batches, context, half=None):  # noqa: ANN001
        self.model, self.batches = model.train(), batches
        self.autocast = torch.autocast(model.device.type, half, enabled=half is not None)
        self.collator = SpeechCollator(processor, context)
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
        self.frames = 0

    def __call__(self) -> None:
        """Train one step on each batch."""
        self.frames = 0
        for rows in self.batches:
            batch = self.collator.with_samples(rows)
            batch = {name: values.to(self.model.device) for name, values in batch.items()}
            batch = self.collator.with_features(batch)
            with audio_context(self.model, batch["input_features"].shape[-1]), self.autocast:
                loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.frames += batch["input_features"].shape[0] * batch["input_features"].shape[-1]


def training_rows(recipe: Recipe, processor: WhisperProcessor) -> Dataset:
    """Return the recipe's prepared training clips, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(recipe, folder)
        prepare(recipe, processor.tokenizer, run.prepared)
        rows = load_from_disk(str(run.prepared), keep_in_memory=True)["train"]
    return rows.with_format("numpy", columns=["audio"], output_all_columns=True)


def batches_of_both(rows: Dataset, count: int, size: int) -> tuple[list, list]:
    """Return stock's batches and ours, of the same clips.

    Ours are from batches of many short clips to batches of one long clip, evenly spaced: together
    they are as long as the clips of the set. Stock takes their clips in batches of its own.
    """
    by_size = sorted(EqualSpeechBatches(rows["seconds"][:], size, seed=0), key=len)
    picks = [int((number + 0.5) / count * len(by_size)) for number in range(count)]
    equal = [[rows[index] for index in by_size[pick]] for pick in picks]
    flat = [row for batch in equal for row in batch]
    np.random.default_rng(0).shuffle(flat)
    fixed = [flat[first : first + size] for first in range(0, len(flat), size)]
    return fixed, equal


def contestants(
    recipe: Recipe,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    fixed: list,
    equal: list,
) -> dict[str, Arm]:
    """Return stock, what precision and short context do alone, and ours, encoder frozen or not."""
    name, half, on_gpu = precision().name, precision().half, model.device.type == "cuda"
    long = (fixed, dataclasses.replace(recipe.audio_context, enabled=False))
    short = (equal, recipe.audio_context)
    alone = {f"{STOCK}, {name}": (*long, half), SHORT: short} if half and not on_gpu else {}
    ways = {STOCK: (*long, half if on_gpu else None), **alone, f"{OURS}, {name}": (*short, half)}
    arms = {way: Arm(copy.deepcopy(model), processor, *told) for way, told in ways.items()}
    frozen = choose_weights(model, Method(weights="frozen_encoder"))
    arms[f"{OURS}, {name}, frozen encoder"] = Arm(frozen, processor, *short, half)
    return arms


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--batches", type=int, default=4, help="steps in a round of each arm")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    model, processor = load_model(recipe)
    model.to(device())
    rows = training_rows(recipe, processor)
    fixed, equal = batches_of_both(rows, options.batches, options.batch_size)
    flat = [row for batch in equal for row in batch]
    facts = {
        "clips": len(flat),
        "speech_seconds": round(float(sum(row["seconds"] for row in flat)), 1),
        "mean_clip_seconds_of_the_set": round(float(np.mean(rows["seconds"][:])), 2),
        "label_tokens": sum(len(row["labels"]) for row in flat),
    }
    print(f"In a round of each arm: {facts}")

    arms = contestants(recipe, model, processor, fixed, equal)
    times = alternate(arms, options.rounds)
    ratios = {name: ratio(times[STOCK], times[name]) for name in list(arms)[1:]}
    for name, one in ratios.items():
        print(f"{name}: {{median:.1f}} times stock ({{low:.1f}}–{{high:.1f}})".format(**one))
    result = [
        {
            "arm": name,
            **facts,
            "encoder_seconds": arms[name].frames / 100,
            "seconds": [round(value, 3) for value in seconds],
            "times_stock": ratios.get(name, {}),
            "threads": torch.get_num_threads(),
        }
        for name, seconds in times.items()
    ]
    ours = ratios[f"{OURS}, {precision().name}"]
    print("wrote", save_result("training_step", TARGET, ours, result))


if __name__ == "__main__":
    main()
