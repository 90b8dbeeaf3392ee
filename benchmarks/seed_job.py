"""The job of the published recipe, clock on the wall: 160,000 clips of about 5 s, five evaluations.

MP3 files on disk, written before the clock starts: each joins whole training clips of the embedded
speech to about 5 s, so that text and sound belong together and no two files are alike. The clock
runs over reading them once (`prepare`) and `train`, with all that a run of a recipe does. The
ratio is the 8 hours of the published recipe over that: it says something on a GPU, with all clips.
"""

import argparse
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import save_result, seconds_of
from utils.artifacts import open_run, save_report
from utils.config import Source, load_recipe
from utils.environment.machine import usable_cores
from utils.preprocessing.prepare import prepare
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.training.progress import progress_line, read_metrics
from utils.training.run import train
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.load import load_model

TARGET = "one H100, whisper-small, all clips: 5 minutes; 5 % of the training spent evaluating"
PUBLISHED_SECONDS = 8 * 3600  # the handbook's figure for one GPU
EVALUATIONS = 5
RECIPE = """
[model]
checkpoint = "{checkpoint}"

[[sources]]
dataset = "recordings"
language = "cs"
name = "{folder}"

[preprocessing]
drop_tested_sentences = false # few clips, joined in many ways
stored = {stored}

[evaluation]
dev_minutes = 1e9 # all of --dev-clips

[training]
max_steps = {steps}
per_device_train_batch_size = {batch}
learning_rate = 1e-5
warmup_steps = {warmup}
logging_steps = {log}
eval_steps = {every}
save_steps = {every}
save_total_limit = 2
"""


def write_clips(folder: Path, splits: dict[str, int], seconds: float) -> None:
    """Write for each split so many MP3 files of about so many seconds, and their texts."""
    random = np.random.default_rng(0)
    rows = list(stream(Source("embedded", "cs", "big"), "train"))
    sounds = [decode_audio(row["audio"]) for row in rows]
    usual = [number for number, sound in enumerate(sounds) if len(sound) < 4 * SAMPLING_RATE]

    def draw() -> list[int]:
        chosen = [random.choice(usual)]
        while sum(len(sounds[one]) for one in chosen) < (seconds - 1) * SAMPLING_RATE:
            chosen.append(random.choice(usual))
        return chosen

    for split, count in splits.items():
        (folder / split).mkdir(parents=True)
        clips = {f"{number:06}.mp3": draw() for number in range(count)}
        lines = [
            json.dumps({"file_name": name, "text": " ".join(rows[one]["text"] for one in chosen)})
            for name, chosen in clips.items()
        ]
        (folder / split / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")

        def write(name: str, chosen: list[int], place: Path = folder / split) -> None:
            joined = np.concatenate([sounds[one] for one in chosen])
            soundfile.write(place / name, joined, SAMPLING_RATE, format="MP3")

        with ThreadPoolExecutor(usable_cores()) as threads:  # soundfile lets them run together
            list(threads.map(write, clips.keys(), clips.values()))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="openai/whisper-small")
    parser.add_argument("--clips", type=int, default=160_000, help="of the training split")
    parser.add_argument("--dev-clips", type=int, default=1000, help="read at each evaluation")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a clip, about")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--streamed", action="store_true", help="store no prepared clips")
    options = parser.parse_args()

    every = max(options.clips // options.batch // EVALUATIONS, 1)
    steps = EVALUATIONS * every
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = {"train": options.clips, "dev": options.dev_clips, "test": options.dev_clips}
        write_clips(folder / "clips", counts, options.seconds)
        path = folder / "seed_job.toml"
        text = RECIPE.format(
            checkpoint=options.checkpoint,
            folder=folder / "clips",
            stored=str(not options.streamed).lower(),
            steps=steps,
            batch=options.batch,
            warmup=steps // 10,
            log=max(steps // 50, 1),
            every=every,
        )
        path.write_text(text, encoding="utf-8")
        recipe = load_recipe(path)
        run = open_run(recipe, folder / "runs")
        tokenizer = load_model(recipe)[1].tokenizer

        preparing = seconds_of(lambda: prepare(recipe, tokenizer, run.prepared))
        save_report(run, "preprocessing", {})
        training = seconds_of(
            lambda: train(
                recipe, run, lambda logs, last: print(progress_line(logs, last), flush=True)
            )
        )
        logs = read_metrics(run.metrics)
    evaluating = sum(row.get("eval_runtime", 0) for row in logs)
    gain = PUBLISHED_SECONDS / (preparing + training)
    row = {"checkpoint": options.checkpoint, "clips": options.clips, "steps": steps}
    row |= {"batch": options.batch, "dev_clips": options.dev_clips, "streamed": options.streamed}
    row |= {"prepare_seconds": preparing, "train_seconds": training}
    row |= {"evaluating_share": evaluating / training}
    print(row)
    print(
        "wrote", save_result("seed_job", TARGET, {"median": gain, "low": gain, "high": gain}, [row])
    )


if __name__ == "__main__":
    main()
