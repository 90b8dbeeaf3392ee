"""What the short window saves by the length of the clips: a training step, and decoding.

Real clips of a finished run, joined and cut to each length, with as many label tokens as their
seconds have on average; the same model at 30 s and in the short window, silent tail included. The
ratio is that of a training step on clips of 5 s.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk

from benchmarks.common import alternate, open_trained, ratio, save_result
from benchmarks.training_step import Arm
from utils.config import AudioContext, load_recipe
from utils.preprocessing.examples import INT16_SCALE, waveform
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.decoding import transcribe

TARGET = "at 2 and 5 s several times as fast in both, at 30 s no slower; 2 cores"
SECONDS = (2, 5, 10, 20, 30)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--runs", default="runs", help="with the finished run")
    parser.add_argument("--seconds", type=int, nargs="+", default=SECONDS)
    parser.add_argument("--clips", type=int, default=4, help="in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    run, model, processor = open_trained(recipe, options.runs)
    train = load_from_disk(str(run.prepared))["train"]
    some = train.select(range(min(200, len(train)))).with_format(
        "numpy", columns=["audio"], output_all_columns=True
    )
    sound = np.concatenate([waveform(row) for row in some])
    tokens = [token for row in some for token in row["labels"][4:-1]]
    a_second = len(tokens) / (len(sound) / SAMPLING_RATE)
    prefix, end = list(some[0]["labels"][:4]), some[0]["labels"][-1]
    windows = {"30 s": AudioContext(enabled=False), "short": recipe.audio_context}
    rows, training = [], {}
    for seconds in options.seconds:
        size, said = seconds * SAMPLING_RATE, round(seconds * a_second)
        clips = [np.roll(sound, -number * size)[:size] for number in range(options.clips)]
        batch = [
            {
                "audio": np.round(clip * INT16_SCALE).astype(np.int16),
                "labels": [*prefix, *np.roll(tokens, -number * said)[:said].tolist(), end],
                "cut_samples": [size],
                "cut_tokens": [said],
                "previous": [],
                "id": f"{seconds}-{number}",
            }
            for number, clip in enumerate(clips)
        ]
        arms = {name: Arm(model, processor, [batch], window) for name, window in windows.items()}
        # A step changes the weights, hardly: decoding is timed with those of before.
        state = {name: value.clone() for name, value in model.state_dict().items()}
        times = alternate(arms, options.rounds)
        model.load_state_dict(state)
        decode = partial(transcribe, model, processor, clips, language=recipe.languages[0])
        readers = {
            name: partial(decode, context=window if window.enabled else None)
            for name, window in windows.items()
        }
        decoding = alternate(readers, options.rounds)
        training[seconds] = ratio(times["30 s"], times["short"])
        row = {"seconds": seconds, "clips": options.clips, "label_tokens": said + 5}
        row |= {"training": training[seconds], "decoding": ratio(*map(decoding.get, windows))}
        row |= {f"step_seconds_{name}": values for name, values in times.items()}
        row |= {f"decoding_seconds_{name}": values for name, values in decoding.items()}
        rows.append(row)
        print({key: row[key] for key in ("seconds", "training", "decoding")}, flush=True)
    first = training.get(5) or training[options.seconds[0]]
    print("wrote", save_result("lengths", TARGET, first, rows, threads=torch.get_num_threads()))


if __name__ == "__main__":
    main()
