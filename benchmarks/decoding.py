"""Reading a test set: stock `generate` at 30 s, ours at the short context, and faster-whisper.

All read the same clips with the same fine-tuned weights, greedily and without timestamps. The base
checkpoint would not do: at a short context it repeats itself, see `utils.audio_context`.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk

from benchmarks.common import alternate, count_heard, open_trained, ratio, save_result
from utils.config import load_recipe
from utils.decoding import transcribe
from utils.error_rates import error_rate
from utils.export import to_ctranslate2, with_faster_whisper
from utils.preprocessing import waveform

TARGET = "at least 6 times stock generate (8 is better) and no slower than faster-whisper, 2 cores"
OURS, STOCK = "ours, short context", "Transformers, 30 s"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="with a finished run of the recipe")
    parser.add_argument("--clips", type=int, default=32, help="of the test split, evenly spread")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    run, model, processor = open_trained(recipe, options.runs)
    test = load_from_disk(str(run.prepared))["test"]
    count = min(options.clips, len(test))
    rows = test.select(np.linspace(0, len(test) - 1, count).astype(int))
    clips, languages = [waveform(row) for row in rows], rows["language"][:]
    texts: dict[str, list[str]] = {}

    def batched(name: str, **settings: object) -> Callable[[], None]:
        def read() -> None:
            texts[name] = transcribe(model, processor, clips, language=languages, **settings)

        return read

    def one_by_one(name: str, hear: Callable[[np.ndarray, str], str]) -> Callable[[], None]:
        def read() -> None:
            texts[name] = [hear(*clip) for clip in zip(clips, languages, strict=True)]

        return read

    task, size = recipe.model.task, recipe.evaluation.batch_size
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for kind, compute in (("int8", "default"), ("float16", "float32")):
            to_ctranslate2(run.model, Path(folder) / kind, kind)
            name = f"faster-whisper, {'int8' if kind == 'int8' else 'float32'}, 30 s"
            engines[name] = with_faster_whisper(Path(folder) / kind, task, compute)
        arms = {
            STOCK: batched(STOCK, batch_size=size, task=task),
            OURS: batched(OURS, batch_size=size, task=task, context=recipe.audio_context),
            **{name: one_by_one(name, hear) for name, hear in engines.items()},
        }
        times = alternate(arms, options.rounds)

    result = []
    for name, seconds in times.items():
        faster = ratio(seconds, times[OURS])
        result.append(
            {
                "arm": name,
                "clips": count,
                "speech_seconds": round(float(sum(rows["seconds"][:])), 1),
                "seconds": [round(value, 3) for value in seconds],
                "ours_is_times_as_fast": {key: round(float(x), 2) for key, x in faster.items()},
                "wer": round(error_rate(count_heard(rows, texts[name])), 4),
                "threads": torch.get_num_threads(),
            }
        )
        print(f"{name}: ours is {faster['median']:.1f} times as fast, WER {result[-1]['wer']:.1%}")
    print("wrote", save_result("decoding", TARGET, ratio(times[STOCK], times[OURS]), result))


if __name__ == "__main__":
    main()
