"""Reading a test set: stock `generate` at 30 s, ours at 30 s and short, and faster-whisper.

All read the same clips with the same fine-tuned weights, greedily and without timestamps. The base
checkpoint would not do: at a short context it repeats itself, see `utils.whisper.audio_context`.
On a GPU stock has its weights in bf16, in the recipe's batches and in ours, which are as large as
the memory allows; the ratio is that of the quicker one. faster-whisper reads on a CPU alone.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import alternate, count_hypotheses, open_trained, ratio, save_result
from utils.config import AudioContext, Recipe, load_recipe
from utils.export.formats import to_ctranslate2
from utils.export.programs import with_faster_whisper
from utils.preprocessing.examples import waveform
from utils.scoring.error_rates import error_rate
from utils.whisper.decoding import clips_at_once, transcribe
from utils.whisper.features import log_mel

TARGET = "at least 6 times stock generate (8 is better) and no slower than faster-whisper, 2 cores"
OURS, LONG, STOCK = "ours, short context", "ours, 30 s", "Transformers' generate, 30 s"
STOCK_TOKENS = 225  # generation_max_length of the published fine-tuning recipes


@torch.inference_mode()
def generate(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    languages: Sequence[str],
    *,
    batch_size: int,
) -> list[str]:
    """Return what stock `generate` returns, batch by batch in the order of the clips."""
    model.eval()
    texts, multilingual = [], model.generation_config.is_multilingual
    for start in range(0, len(clips), batch_size):
        batch = slice(start, start + batch_size)
        features = log_mel(processor, clips[batch]).to(model.device, model.dtype)
        # English-only checkpoints refuse both.
        asked = {"language": list(languages[batch]), "task": "transcribe"} if multilingual else {}
        tokens = model.generate(
            features,
            attention_mask=features.new_ones(len(features), features.shape[-1]),
            max_length=STOCK_TOKENS,
            num_beams=1,
            do_sample=False,
            **asked,
        )
        texts += processor.batch_decode(tokens, skip_special_tokens=True)
    return [text.strip() for text in texts]


class Clips(NamedTuple):
    """What all contestants transcribe."""

    samples: list[np.ndarray]
    languages: list[str]


Contestant = Callable[[Clips], list[str]]


def batched_contestants(
    recipe: Recipe, model: WhisperForConditionalGeneration, processor: WhisperProcessor
) -> dict[str, Contestant]:
    """Return stock `generate` and ours, by name."""

    def stock(clips: Clips, size: int) -> list[str]:
        return generate(low, processor, clips.samples, clips.languages, batch_size=size)

    def ours(clips: Clips, context: AudioContext | None) -> list[str]:
        return transcribe(
            model,
            processor,
            clips.samples,
            language=clips.languages,
            context=context,
            batch_size=most,
        )

    size = recipe.evaluation.batch_size
    most, on_gpu = clips_at_once(model, size), model.device.type == "cuda"
    low = copy.deepcopy(model).bfloat16() if on_gpu else model
    arms = {STOCK: partial(stock, size=size)}
    if on_gpu:
        arms[f"{STOCK}, {most} clips"] = partial(stock, size=most)
    arms[LONG] = partial(ours, context=None)
    arms[OURS] = partial(ours, context=recipe.audio_context)
    return arms


def faster_whisper_contestants(model: Path, folder: Path) -> dict[str, Contestant]:
    """Return faster-whisper on the CPU, converted into a folder, clip by clip, by name."""

    def one_by_one(clips: Clips, transcribe_one: Callable[[np.ndarray, str], str]) -> list[str]:
        return [transcribe_one(*clip) for clip in zip(*clips, strict=True)]

    arms = {}
    for kind, compute, name in (("int8", "default", "int8"), ("float16", "float32", "float32")):
        to_ctranslate2(model, folder / kind, kind)
        engine = with_faster_whisper(folder / kind, compute, beam_size=1)
        arms[f"faster-whisper, {name}, 30 s"] = partial(one_by_one, transcribe_one=engine)
    return arms


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="with a finished run of the recipe")
    parser.add_argument("--clips", type=int, help="of the test split, evenly spread; else all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe)
    run, model, processor = open_trained(recipe, options.runs)
    test = load_from_disk(str(run.prepared))["test"]
    count = min(options.clips or len(test), len(test))
    rows = test.select(np.linspace(0, len(test) - 1, count).astype(int))
    clips = Clips([waveform(row) for row in rows], rows["language"][:])
    texts: dict[str, list[str]] = {}

    def read(name: str, contestant: Contestant) -> None:
        texts[name] = contestant(clips)

    with tempfile.TemporaryDirectory() as folder:
        contestants = batched_contestants(recipe, model, processor)
        if model.device.type != "cuda":
            contestants |= faster_whisper_contestants(run.model, Path(folder))
        arms = {name: partial(read, name, one) for name, one in contestants.items()}
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
                "ours_is_times_as_fast": faster,
                "wer": round(error_rate(count_hypotheses(rows, texts[name])), 4),
                "threads": torch.get_num_threads(),
            }
        )
        print(f"{name}: ours is {faster['median']:.1f} times as fast, WER {result[-1]['wer']:.1%}")
    stocks = [times[name] for name in times if name.startswith(STOCK)]
    found = ratio(min(stocks, key=np.median), times[OURS])
    print("wrote", save_result("decoding", TARGET, found, result))


if __name__ == "__main__":
    main()
