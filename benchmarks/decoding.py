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
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import alternate, count_hypotheses, open_trained, ratio, save_result
from utils.config import AudioContext, load_recipe
from utils.export.formats import to_ctranslate2
from utils.export.programs import with_faster_whisper
from utils.preprocessing.examples import waveform
from utils.scoring.error_rates import error_rate
from utils.whisper.decoding import asked, clips_at_once, transcribe
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
    texts = []
    for start in range(0, len(clips), batch_size):
        batch = slice(start, start + batch_size)
        features = log_mel(processor, clips[batch]).to(model.device, model.dtype)
        tokens = model.generate(
            features,
            attention_mask=features.new_ones(len(features), features.shape[-1]),
            max_length=STOCK_TOKENS,
            num_beams=1,
            do_sample=False,
            **asked(model, list(languages[batch])),
        )
        texts += processor.batch_decode(tokens, skip_special_tokens=True)
    return [text.strip() for text in texts]


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
    clips, languages = [waveform(row) for row in rows], rows["language"][:]
    texts: dict[str, list[str]] = {}

    def stock(name: str, batch_size: int) -> Callable[[], None]:
        def read() -> None:
            texts[name] = generate(low, processor, clips, languages, batch_size=batch_size)

        return read

    def batched(name: str, context: AudioContext | None) -> Callable[[], None]:
        def read() -> None:
            texts[name] = transcribe(
                model,
                processor,
                clips,
                language=languages,
                context=context,
                batch_size=most,
            )

        return read

    def one_by_one(
        name: str, transcribe_one: Callable[[np.ndarray, str], str]
    ) -> Callable[[], None]:
        def read() -> None:
            texts[name] = [transcribe_one(*clip) for clip in zip(clips, languages, strict=True)]

        return read

    size = recipe.evaluation.batch_size
    most = clips_at_once(model, size)
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        on_gpu = model.device.type == "cuda"
        low = copy.deepcopy(model).bfloat16() if on_gpu else model
        for kind, compute in () if on_gpu else (("int8", "default"), ("float16", "float32")):
            to_ctranslate2(run.model, Path(folder) / kind, kind)
            name = f"faster-whisper, {'int8' if kind == 'int8' else 'float32'}, 30 s"
            engines[name] = with_faster_whisper(Path(folder) / kind, compute, beam_size=1)
        arms = {
            STOCK: stock(STOCK, size),
            **({f"{STOCK}, {most} clips": stock(f"{STOCK}, {most} clips", most)} if on_gpu else {}),
            LONG: batched(LONG, None),
            OURS: batched(OURS, recipe.audio_context),
            **{name: one_by_one(name, transcribe_one) for name, transcribe_one in engines.items()},
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
