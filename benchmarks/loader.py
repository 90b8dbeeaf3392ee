"""What reading costs training: a step with the real loader beside one on batches that are there.

The same rows in the same batches, three ways: batches that were made before, the loader alone, and
both together, from prepared clips and from a stream that is not stored. The ratio is a step with
the loader over a step without.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.common import alternate, open_prepared_run, ratio, save_result
from utils.config import load_recipe
from utils.preprocessing.prepare import prepare
from utils.training.run import build_trainer
from utils.training.trainer import WhisperTrainer
from utils.whisper.load import load_model

TARGET = "a step with the loader takes at most 1.03 times one without: 16 cores, one H100, MP3"


def endless(trainer: WhisperTrainer) -> Iterator[dict[str, Any]]:
    """Yield a trainer's own batches, pass after pass."""
    loader, epoch = trainer.get_train_dataloader(), 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def stepper(
    trainer: WhisperTrainer, batches: Iterator[dict[str, Any]], steps: int
) -> Callable[[], None]:
    """Return a function that trains on so many batches."""
    model = trainer.model.to(trainer.args.device).train()
    optimizer = trainer.create_optimizer()

    def work() -> None:
        for batch in islice(batches, steps):
            batch = {name: values.to(trainer.args.device) for name, values in batch.items()}
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return work


def read(batches: Iterator[dict[str, Any]], steps: int) -> None:
    """Take so many batches and do nothing with them."""
    for _ in islice(batches, steps):
        pass


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--steps", type=int, default=8, help="in a round of each arm")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = load_recipe(options.recipe)
        prepare(recipe, load_model(recipe)[1].tokenizer, folder / "prepared")
        stored = build_trainer(recipe, open_prepared_run(recipe, folder, folder / "prepared"))
        path = folder / "streamed.toml"
        text = options.recipe.read_text(encoding="utf-8")
        path.write_text(f"{text}\n[preprocessing]\nstored = false\n", encoding="utf-8")
        recipe = load_recipe(path)
        streamed = build_trainer(recipe, open_prepared_run(recipe, folder, folder / "prepared"))

        # Each worker has two batches ready when a round begins: a round must outlast them.
        options.steps = max(options.steps, 16 * stored.args.dataloader_num_workers)
        made = list(islice(endless(stored), options.rounds * options.steps + options.steps))
        arms = {
            "batches that are there": stepper(stored, cycle(made), options.steps),
            "with the loader": stepper(stored, endless(stored), options.steps),
            "the loader alone": partial(read, endless(stored), options.steps),
            "with a stream": stepper(streamed, endless(streamed), options.steps),
            "the stream alone": partial(read, endless(streamed), options.steps),
        }
        times = alternate(arms, options.rounds)

    there = times["batches that are there"]
    rows = [
        {"arm": name, "steps": options.steps, "seconds": seconds}
        | {"over_batches_that_are_there": ratio(seconds, there)}
        for name, seconds in times.items()
    ]
    print("wrote", save_result("loader", TARGET, ratio(times["with the loader"], there), rows))


if __name__ == "__main__":
    main()
