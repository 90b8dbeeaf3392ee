"""What reading costs training, from prepared clips and from a stream that is not stored.

The same MP3 clips of 5 s, several ways: batches that were made before, the loader alone, and both
together; the stream in the process that trains and in workers, with a consumer that takes no time;
the processor time of a streamed clip beside decoding and resampling alone; and, from a source of
100 clips a second, how long the first batch and the end take. The ratio is the stream in two
workers over the stream without.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.common import alternate, open_prepared_run, ratio, save_result
from benchmarks.decode import RATE, cpu_seconds, speech_clips
from utils.config import load_recipe
from utils.preprocessing import examples as preparing
from utils.preprocessing.prepare import prepare
from utils.preprocessing.stream import BEGIN
from utils.preprocessing.stream_loader import StreamLoader
from utils.streaming.sound import decode_audio
from utils.training.run import build_trainer
from utils.training.trainer import WhisperTrainer
from utils.whisper.load import load_model

TARGET = (
    "with 2 workers at least 1.85 times the clips of none; a streamed clip takes at most 1.35 "
    "times the processor time of decoding; first batch and end within 1 s"
)
SECONDS, PART_CLIPS = 5, 64
SOURCES = '[[sources]]\ndataset = "recordings"\nlanguage = "it"\nname = "{}"\n'
CHECKS = "[preprocessing]\ndrop_tested_sentences = false\nstored = {}\n"


def write_clips(folder: Path, count: int) -> list[bytes]:
    """Write MP3 clips with a table of texts; return the files' bytes."""
    folder.mkdir()
    clips, lines = speech_clips(PART_CLIPS, SECONDS), ["file_name,text"]
    for number in range(count):
        name, louder = f"{number}.mp3", 0.5 + 0.5 * number / count  # no clip is there twice
        samples = clips[number % PART_CLIPS] * np.float32(louder)
        soundfile.write(folder / name, samples, RATE, format="MP3", subtype="MPEG_LAYER_III")
        lines.append(f"{name},questa è la frase numero {number}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path.read_bytes() for path in sorted(folder.glob("*.mp3"))]


def endless(trainer: WhisperTrainer) -> Iterator[dict[str, Any]]:
    """Yield a trainer's own batches, pass after pass."""
    loader, epoch = trainer.get_train_dataloader(), 0
    while True:
        if not trainer.stream:
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
            inputs = trainer._prepare_inputs(batch)
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(model, inputs)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return work


def read(batches: Iterator[dict[str, Any]], steps: int) -> None:
    """Take so many batches and do nothing with them."""
    for _ in islice(batches, steps):
        pass


def waits(trainer: WhisperTrainer) -> dict[str, float]:
    """Return the seconds to the first batch and to the end, from 100 clips a second."""

    def slow(*given: Any) -> np.ndarray:
        time.sleep(0.01)
        return decode_audio(*given)

    preparing.decode_audio = slow  # also in the workers, which are copies of this process
    trainer.train_dataset.load_state_dict(BEGIN)  # a resumed stream fills its buffer first
    batches = iter(StreamLoader(trainer.train_dataset, workers=1))
    try:
        started = time.perf_counter()
        next(batches)
        first = time.perf_counter() - started
        time.sleep(1)
        started = time.perf_counter()
        batches.close()
        return {"first_batch_seconds": first, "end_seconds": time.perf_counter() - started}
    finally:
        preparing.decode_audio = decode_audio


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=8, help="in a round of each arm")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_clips(folder / "speech", options.clips)
        training = options.recipe.read_text(encoding="utf-8").partition("[training]")[2]
        model = '[model]\ncheckpoint = "embedded/whisper-base"\n'
        trainers = {}
        for kind, stored in (("stored", "true"), ("streamed", "false")):
            path = folder / f"{kind}.toml"
            text = model + SOURCES.format(folder / "speech") + CHECKS.format(stored)
            path.write_text(f"{text}[training]{training}", encoding="utf-8")
            recipe = load_recipe(path)
            if kind == "stored":
                prepare(recipe, load_model(recipe)[1].tokenizer, folder / "prepared")
            run = open_prepared_run(recipe, folder / "runs", folder / "prepared")
            trainers[kind] = build_trainer(recipe, run)
        stored, streamed = trainers.values()

        # While other arms work, workers fill their buffers: a round must outlast them.
        options.steps = max(options.steps, 16 * stored.args.dataloader_num_workers)
        reads = max(options.steps, 256)
        made = list(islice(endless(stored), options.steps))
        stream = streamed.train_dataset
        arms = {
            "batches that are there": stepper(stored, cycle(made), options.steps),
            "with the loader": stepper(stored, endless(stored), options.steps),
            "the loader alone": partial(read, endless(stored), reads),
            "with a stream": stepper(streamed, endless(streamed), options.steps),
            **{
                f"the stream alone, {workers} workers": partial(
                    read, iter(StreamLoader(stream, workers)), reads
                )
                for workers in (0, 2)
            },
        }
        times = alternate(arms, options.rounds)

        torch.set_num_threads(1)
        decoding = cpu_seconds(lambda: [decode_audio(one) for one in files[:500]]) / 500
        batches = iter(StreamLoader(stream))
        next(batches)
        count = 0

        def some() -> None:
            nonlocal count
            while count < 1000:
                count += len(next(batches)["labels"])

        before = stream.report.kept.total()  # what was read, and not what was given
        spent = cpu_seconds(some)
        streamed_cpu = spent / (stream.report.kept.total() - before)
        wait = waits(streamed)

    steps = {name: reads if "alone" in name else options.steps for name in times}
    a_step = {name: [one / steps[name] for one in seconds] for name, seconds in times.items()}
    there = a_step["batches that are there"]
    rows: list[dict[str, Any]] = [
        {"arm": name, "steps": steps[name], "seconds": times[name]}
        | {"over_batches_that_are_there": ratio(seconds, there)}
        for name, seconds in a_step.items()
    ]
    none, two = (times[f"the stream alone, {workers} workers"] for workers in (0, 2))
    rows.append(
        {
            "streamed_clip_cpu_ms": round(1000 * streamed_cpu, 2),
            "decode_and_resample_cpu_ms": round(1000 * decoding, 2),
            "streamed_over_decoding": round(streamed_cpu / decoding, 3),
            **{key: round(value, 2) for key, value in wait.items()},
        }
    )
    print(rows[-1])
    print("wrote", save_result("loader", TARGET, ratio(none, two), rows))


if __name__ == "__main__":
    main()
