"""A training step as the stock recipe takes it, beside ours: same clips, same weights, one run.

Stock: every clip padded to 30 s, batches of a fixed number of clips. Ours: the audio context of the
batch, tail included, and batches of like lengths and equal speech; with all weights, and with the
encoder frozen. Each takes the whole step: log-mel, forward, backward, clipped AdamW. By the length
of the clips: `benchmarks.lengths`.
"""

import argparse
import copy
import dataclasses
import tempfile

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from transformers import WhisperProcessor

from benchmarks.common import alternate, ratio, save_result
from utils.artifacts import open_run
from utils.config import Method, Recipe, load_recipe
from utils.environment.machine import device
from utils.preprocessing.batches import EqualSpeechBatches
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.prepare import prepare
from utils.training.adapters import choose_weights
from utils.whisper.audio_context import audio_context
from utils.whisper.load import load_model

TARGET = "8 times the stock throughput on the embedded clips, 18 with the encoder frozen, 2 cores"


class Arm:
    """One way to train: takes the given batches, one step each."""

    def __init__(self, model, processor, batches, context):  # noqa: ANN001
        self.model, self.batches = model.train(), batches
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
            with audio_context(self.model, batch["input_features"].shape[-1]):
                self.model(**batch).loss.backward()
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

    stock = dataclasses.replace(recipe.audio_context, enabled=False)
    arms = {
        "stock 30 s": Arm(copy.deepcopy(model), processor, fixed, stock),
        "short context": Arm(copy.deepcopy(model), processor, equal, recipe.audio_context),
        "short context, frozen encoder": Arm(
            choose_weights(model, Method(weights="frozen_encoder")),
            processor,
            equal,
            recipe.audio_context,
        ),
    }
    times = alternate(arms, options.rounds)
    ratios = {name: ratio(times["stock 30 s"], times[name]) for name in list(arms)[1:]}
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
    print("wrote", save_result("training_step", TARGET, ratios["short context"], result))


if __name__ == "__main__":
    main()
