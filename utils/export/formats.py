"""The fine-tuned model for other programs: CTranslate2 and ggml, and what each makes of speech."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import Run
from utils.config import AudioContext, Recipe
from utils.scoring.error_rates import count_errors, error_rate
from utils.text import normalize
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS, decoding_seconds
from utils.whisper.decoding import most_tokens, transcribe
from utils.whisper.features import log_mel
from utils.whisper.labels import prefix_ids

Hear = Callable[[np.ndarray, str], str]  # 16 kHz samples, language code → text

# What each program reads of the model's folder. Transformers 5 itself writes only its own.
READS: Mapping[str, tuple[str, ...]] = {
    "Transformers": (
        *("config.json", "generation_config.json", "model.safetensors"),
        *("processor_config.json", "tokenizer.json", "tokenizer_config.json"),
    ),
    "faster-whisper": ("tokenizer.json", "preprocessor_config.json"),
    "whisper.cpp's converter": ("config.json", "vocab.json", "added_tokens.json"),
    "older tokenizers": ("vocab.json", "merges.txt", "added_tokens.json"),
}


def to_ctranslate2(model: Path, folder: Path, quantization: str) -> None:
    """Convert a Whisper folder with CTranslate2's own converter; the result is whole or not there.

    Args:
        model: a folder that `save_model` wrote.
        folder: where model.bin goes, and beside it all that faster-whisper reads.
        quantization: how matrices are stored: "float16" or "int8".
    """
    # Here and not above: whoever exports nothing needs no CTranslate2.
    from ctranslate2.converters import TransformersConverter

    copied = list(READS["faster-whisper"])
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        TransformersConverter(str(model), copy_files=copied).convert(
            str(partial), quantization=quantization, force=True
        )
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def size_mb(path: Path) -> float:
    """Return the size of a file, or of all files in a folder, in millions of bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


# One clip at a time, greedily, on the CPU with the same threads: the programs are compared, and
# not their settings.


def with_transformers(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    context: AudioContext | None = None,
) -> Hear:
    """Return how Transformers hears a clip, in the stock 30 s window or a short one."""

    def hear(clip: np.ndarray, language: str) -> str:
        return transcribe(model, processor, [clip], language=language, context=context)[0]

    return hear


def with_faster_whisper(folder: Path, compute_type: str = "default") -> Hear:
    """Return how faster-whisper hears a clip of up to 30 s, in a window filled up with silence.

    Left alone it fills up the log-mel with zeros, where silence is about -0.7 (faster-whisper 1.2):
    another picture than the model was trained on, in which it may hear other words.

    Args:
        folder: that `to_ctranslate2` wrote.
        compute_type: in what it calculates; "default" is what is stored.
    """
    from faster_whisper import WhisperModel

    model = WhisperModel(
        str(folder),
        device="cpu",
        compute_type=compute_type,
        cpu_threads=torch.get_num_threads(),
        local_files_only=True,
    )

    def hear(clip: np.ndarray, language: str) -> str:
        rest = max(round(STOCK_SECONDS * SAMPLING_RATE) - len(clip), 0)
        segments, _ = model.transcribe(
            np.pad(clip, (0, rest)),
            language=language if model.model.is_multilingual else "en",
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            max_new_tokens=most_tokens(clip),
        )
        return "".join(segment.text for segment in segments).strip()

    return hear


def with_ctranslate2(folder: Path, processor: WhisperProcessor, context: AudioContext) -> Hear:
    """Return how CTranslate2 hears a clip in a short window, without faster-whisper around it.

    Only for models that were trained in a short window: others repeat themselves in it.

    Args:
        folder: that `to_ctranslate2` wrote.
        processor: the checkpoint's.
        context: the recipe's.
    """
    import ctranslate2

    model = ctranslate2.models.Whisper(
        str(folder), device="cpu", intra_threads=torch.get_num_threads()
    )

    def hear(clip: np.ndarray, language: str) -> str:
        seconds = decoding_seconds(len(clip) / SAMPLING_RATE, context)
        features = np.ascontiguousarray(log_mel(processor, [clip], seconds).numpy())
        (result,) = model.generate(
            ctranslate2.StorageView.from_array(features),
            [prefix_ids(processor.tokenizer, language)],
            beam_size=1,
            max_length=most_tokens(clip),
        )
        return processor.decode(result.sequences_ids[0], skip_special_tokens=True).strip()

    return hear


def with_whisper_cpp(path: Path, context: AudioContext | None = None) -> Hear:
    """Return how whisper.cpp hears a clip, in the stock 30 s window or a short one.

    Args:
        path: a ggml file.
        context: None is the stock window; see `with_ctranslate2`.
    """
    from pywhispercpp.model import Model

    with _silence():
        model = Model(
            str(path),
            n_threads=torch.get_num_threads(),
            # With flash attention, its default, a window is filled up to a multiple of 256
            # positions, and what happens to stand there is heard too: in short windows 11.3 % WER
            # on the default's test and not 6.4 % (pywhispercpp 1.5.1, ggml-org/whisper.cpp#3941).
            context_params={"use_gpu": False, "flash_attn": False},
            print_progress=False,
            no_timestamps=True,
            single_segment=True,
            temperature_inc=0.0,  # no second try at a higher temperature: the others have none
            greedy={"best_of": 1},
        )

    def hear(clip: np.ndarray, language: str) -> str:
        seconds = decoding_seconds(len(clip) / SAMPLING_RATE, context)
        segments = model.transcribe(clip, language=language, audio_ctx=round(50 * seconds))
        return " ".join(segment.text for segment in segments).strip()

    return hear


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what C code writes to stderr: whisper.cpp tells 40 lines about a model.

    Its own redirection follows `sys.stderr`, which in a notebook is not the process's.
    """
    saved = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def load_programs(
    recipe: Recipe, run: Run, model: WhisperForConditionalGeneration, processor: WhisperProcessor
) -> dict[str, Hear]:
    """Return every program that lesson 07 compares, by its name; Transformers first.

    Args:
        recipe: names the short window.
        run: with all conversions in `run.repository`.
        model: the fine-tuned one, in float32 on the CPU.
        processor: the checkpoint's.
    """
    short = recipe.audio_context
    float16, int8 = (run.repository / f"ctranslate2-{kind}" for kind in ("float16", "int8"))
    ggml = run.repository / "ggml-model.bin"
    return {
        "Transformers float32, 30 s": with_transformers(model, processor),
        "Transformers float32, short": with_transformers(model, processor, short),
        # CTranslate2 has no float16 on a CPU: the weights are small there, the sums are not.
        "faster-whisper float16, 30 s": with_faster_whisper(float16, "float32"),
        "faster-whisper int8, 30 s": with_faster_whisper(int8),
        "CTranslate2 int8, short": with_ctranslate2(int8, processor, short),
        "whisper.cpp float16, 30 s": with_whisper_cpp(ggml),
        "whisper.cpp float16, short": with_whisper_cpp(ggml, short),
    }


def baseline(name: str) -> str:
    """Return the program that another is compared with: Transformers in the same window."""
    return f"Transformers float32, {name.rpartition(', ')[2]}"


def compare(
    programs: Mapping[str, Hear], clips: Sequence[np.ndarray], languages: Sequence[str]
) -> dict[str, dict[str, list]]:
    """Let every program hear every clip, in turn, so that a busy machine slows all alike.

    Args:
        programs: by name.
        clips: float32 samples at 16 kHz, each at most 30 s.
        languages: Whisper's code of each clip.

    Returns:
        By name `texts` and `seconds`, both in the order of the clips.
    """
    heard: dict[str, dict[str, list]] = {name: {"texts": [], "seconds": []} for name in programs}
    for hear in programs.values():
        hear(clips[0], languages[0])  # the first call also pays for warming up
    for clip, language in zip(clips, languages, strict=True):
        for name, hear in programs.items():
            started = time.perf_counter()
            heard[name]["texts"].append(hear(clip, language))
            heard[name]["seconds"].append(time.perf_counter() - started)
    return heard


def judge(
    heard: Mapping[str, Mapping[str, list]], references: Sequence[str], languages: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return how fast and how right every program of `compare` is.

    Returns:
        By name `wer` (normalised, a fraction), `speed` (times the first program's), `differing`
        (clips with another text, letter by letter, than `baseline` wrote), `apart` (the CER of its
        texts, held against the baseline's) and `clips`.
    """

    def plain(texts: Sequence[str]) -> list[str]:
        return [normalize(text, code) for text, code in zip(texts, languages, strict=True)]

    said, first, rows = plain(references), next(iter(heard.values())), {}
    for name, one in heard.items():
        texts, theirs = plain(one["texts"]), heard[baseline(name)]["texts"]
        rows[name] = {
            "wer": error_rate(count_errors(said, texts, "word")),
            "speed": sum(first["seconds"]) / sum(one["seconds"]),
            "differing": sum(a != b for a, b in zip(one["texts"], theirs, strict=True)),
            "apart": error_rate(count_errors(plain(theirs), texts, "char")),
            "clips": len(texts),
        }
    return rows
