"""What reading costs training, from prepared clips and from a stream that is not stored.

The same MP3 clips of 5 s, several ways: batches that were made before, the loader, and the stream,
each trained on; the stream alone in whole passes, in the process that trains and in workers, with a
consumer that takes no time; the processor time of a streamed clip beside decoding and resampling
alone; and, from a source of 100 clips a second, how long the first batch and the end take. The
ratio is the pace of the stream in most workers over that without.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.common import (
    IN_MEMORY,
    alternate,
    open_prepared_run,
    ratio,
    save_result,
    seconds_of,
)
from benchmarks.decode import RATE, cpu_seconds, speech_clips
from utils.config import Augmentation, Recipe, load_recipe
from utils.environment.machine import loader_workers, usable_cores
from utils.preprocessing import examples as preparing
from utils.preprocessing.prepare import prepare
from utils.preprocessing.stream import BEGIN, SpeechStream
from utils.preprocessing.stream_loader import StreamLoader
from utils.streaming.sound import decode_audio
from utils.training.run import build_trainer
from utils.training.trainer import WhisperTrainer
from utils.whisper.load import load_model

TARGET = (
    "with 2 workers at least 1.85 times the clips of none, with 16 at least 2,000 a second; a "
    "streamed clip takes at most 1.35 times the processor time of decoding; first batch and end "
    "within 1 s"
)
SECONDS, PART_CLIPS = 5, 64
SPEECH = '[[sources]]\ndataset = "recordings"\nlanguage = "cs"\nname = "{}"\n'
CHECKS = "[preprocessing]\ndrop_tested_sentences = false\nstored = {}\n"
AUGMENTED = Augmentation(speed=0.1, noise=0.5, spec_augment=True)


def write_clips(folder: Path, count: int) -> list[bytes]:
    """Write MP3 clips with a table of texts; return the files' bytes."""
    folder.mkdir()
    clips = speech_clips(PART_CLIPS, SECONDS)

    def write(number: int) -> None:
        louder = 0.5 + 0.5 * number / count  # no clip is there twice
        samples = clips[number % PART_CLIPS] * np.float32(louder)
        path = folder / f"{number}.mp3"
        soundfile.write(path, samples, RATE, format="MP3", subtype="MPEG_LAYER_III")

    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(write, range(count)))
    lines = [f"{number}.mp3,toto je věta číslo {number}" for number in range(count)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *lines]), encoding="utf-8")
    return [path.read_bytes() for path in sorted(folder.glob("*.mp3"))]


def open_recipe(folder: Path, base: Path, name: str, stored: bool, batch: int) -> Recipe:
    """Return a recipe for the clips with another's [training], stored or streamed."""
    path = folder / f"{name}.toml"
    text = '[model]\ncheckpoint = "embedded/whisper-base"\n' + SPEECH.format(folder / "speech")
    training = base.read_text(encoding="utf-8").partition("[training]")[2]
    path.write_text(f"{text}{CHECKS.format(str(stored).lower())}[training]{training}", "utf-8")
    recipe = load_recipe(path)
    clips = batch or recipe.training["per_device_train_batch_size"]
    return replace(recipe, training={**recipe.training, "per_device_train_batch_size": clips})


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


def read(stream: SpeechStream, workers: int, clips: int) -> None:
    """Take so many clips from the stream's begin on and do nothing with them."""
    stream.load_state_dict(BEGIN)
    batches, left = iter(StreamLoader(stream, workers)), clips
    while left > 0:
        left -= len(next(batches)["labels"])
    batches.close()


def waits(stream: SpeechStream) -> dict[str, float]:
    """Return the seconds to the first batch and to the end, from 100 clips a second."""

    def slow(*given: Any) -> np.ndarray:
        time.sleep(0.01)
        return decode_audio(*given)

    preparing.decode_audio = slow  # also in the workers, which are copies of this process
    stream.load_state_dict(BEGIN)  # a resumed stream fills its buffer first
    batches = iter(StreamLoader(stream, workers=1))
    try:
        first = seconds_of(lambda: next(batches))
        time.sleep(1)
        return {"first_batch_seconds": first, "end_seconds": seconds_of(batches.close)}
    finally:
        preparing.decode_audio = decode_audio


def costs(stream: SpeechStream, clips: int, files: list[bytes]) -> dict[str, float]:
    """Return the processor time of a clip of a streamed pass, of decoding one, and their ratio."""
    torch.set_num_threads(1)
    decoding = cpu_seconds(lambda: [decode_audio(one) for one in files]) / len(files)
    streamed = cpu_seconds(partial(read, stream, 0, clips)) / clips
    return {
        "streamed_clip_cpu_ms": round(1000 * streamed, 2),
        "decode_and_resample_cpu_ms": round(1000 * decoding, 2),
        "streamed_over_decoding": round(streamed / decoding, 3),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=0, help="clips; 0: the recipe's")
    parser.add_argument("--steps", type=int, default=8, help="in a round of each arm that trains")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the stream")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        folder = Path(name)
        files = write_clips(folder / "speech", options.clips)
        trainers = {}
        for kind in ("stored", "streamed", "augmented"):
            stored = kind == "stored"
            recipe = open_recipe(folder, options.recipe, kind, stored, options.batch)
            if stored:
                prepare(recipe, load_model(recipe)[1].tokenizer, folder / "prepared")
            if kind == "augmented":
                recipe = replace(recipe, augmentation=AUGMENTED)
            run = open_prepared_run(recipe, folder / "runs", folder / "prepared")
            trainers[kind] = build_trainer(recipe, run)
        stored, streamed, augmented = trainers.values()
        batch = stored.args.per_device_train_batch_size

        # While other arms work, workers fill their buffers: a round must outlast them.
        steps = max(options.steps, 16 * loader_workers())
        made = list(islice(endless(stored), options.steps))
        arms = {
            "batches that are there": stepper(stored, cycle(made), steps),
            "with the loader": stepper(stored, endless(stored), steps),
            "with a stream": stepper(streamed, endless(streamed), steps),
        }
        clips = dict.fromkeys(arms, steps * batch)
        a_pass = len(stored.train_dataset)  # in whole passes what is read is what is given
        most = max(options.workers)
        alone = [("the stream alone", streamed, workers) for workers in options.workers]
        alone.append(("the augmented stream alone", augmented, most))
        for kind, trainer, workers in alone:
            arm = f"{kind}, {workers} workers"
            clips[arm] = a_pass * max(1, workers // 2)
            arms[arm] = partial(read, trainer.train_dataset, workers, clips[arm])
        times = alternate(arms, options.rounds)
        stream = streamed.train_dataset
        facts = costs(stream, a_pass, files) | waits(stream)

    a_clip = {name: [one / clips[name] for one in seconds] for name, seconds in times.items()}
    rows: list[dict[str, Any]] = [
        {"arm": name, "batch": batch, "clips": clips[name], "seconds": times[name]}
        | {"clips_per_second": 1 / float(np.median(seconds))}
        for name, seconds in a_clip.items()
    ]
    for row in rows:
        print(f"{row['arm']}: {row['clips_per_second']:.0f} clips/s")
    rows.append(facts)
    print(facts)
    none, many = (a_clip[f"the stream alone, {one} workers"] for one in (options.workers[0], most))
    print("wrote", save_result("loader", TARGET, ratio(none, many), rows))


if __name__ == "__main__":
    main()
