"""The fine-tuned model in other programs, each as a function from samples to text."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from utils.artifacts import Run
from utils.config import AudioContext, Recipe
from utils.export.documented import FASTER_WHISPER, TRANSFORMERS, WHISPER_CPP
from utils.whisper.audio_context import SAMPLING_RATE, decoding_seconds
from utils.whisper.decoding import most_tokens, transcribe
from utils.whisper.features import log_mel
from utils.whisper.labels import is_multilingual, prefix_ids

Transcribe = Callable[[np.ndarray, str], str]  # 16 kHz samples, language code → text


# One clip at a time, on the CPU with the same threads: this compares programs. Greedily, but where
# the documented call says otherwise.


def with_transformers(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    context: AudioContext | None = None,
) -> Transcribe:
    """Return a function that transcribes with Transformers, at 30 s or a short window."""

    def transcribe_clip(clip: np.ndarray, language: str) -> str:
        return transcribe(model, processor, [clip], language=language, context=context)[0]

    return transcribe_clip


def with_faster_whisper(
    folder: Path, compute_type: str = "default", workers: int = 1, **changed: Any
) -> Transcribe:
    """Return a function that transcribes with faster-whisper, called as documented, from samples.

    Args:
        folder: that `to_ctranslate2` wrote.
        compute_type: the precision it computes in; "default" is that of the file.
        workers: threads that may call the function at once; the cores are divided among them.
        changed: arguments that differ from the documented ones.
    """
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(
        str(folder),
        device="cpu",
        compute_type=compute_type,
        cpu_threads=max(torch.get_num_threads() // workers, 1),
        num_workers=workers,
        local_files_only=True,
    )
    batched = BatchedInferencePipeline(model)

    def transcribe_clip(clip: np.ndarray, language: str) -> str:
        code = language if model.model.is_multilingual else "en"
        segments, _ = batched.transcribe(clip, language=code, **{**FASTER_WHISPER, **changed})
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe_clip


def with_pipeline(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor
) -> Transcribe:
    """Return a function that transcribes with Transformers' pipeline, called as documented."""
    asr = pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device=model.device,  # else it moves the model to a GPU, also for all who share it
        **TRANSFORMERS,
    )

    def transcribe_clip(clip: np.ndarray, language: str) -> str:
        asked = {"language": language, "task": "transcribe"}
        found = asr(clip, generate_kwargs=asked if is_multilingual(processor.tokenizer) else {})
        return found["text"].strip()

    return transcribe_clip


def with_documented_whisper_cpp(path: Path) -> Transcribe:
    """Return a function that transcribes with whisper.cpp, called as documented."""
    from pywhispercpp.model import Model

    with _silence():
        model = Model(str(path), n_threads=torch.get_num_threads(), **WHISPER_CPP)

    def transcribe_clip(clip: np.ndarray, language: str) -> str:
        segments = model.transcribe(clip, language=language)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe_clip


def with_ctranslate2(
    folder: Path, processor: WhisperProcessor, context: AudioContext
) -> Transcribe:
    """Return a function that transcribes with CTranslate2 at a short window, no faster-whisper.

    Only for models that were trained at a short window: others repeat themselves there.

    Args:
        folder: that `to_ctranslate2` wrote.
        processor: the checkpoint's.
        context: the recipe's.
    """
    import ctranslate2

    model = ctranslate2.models.Whisper(
        str(folder), device="cpu", intra_threads=torch.get_num_threads()
    )

    def transcribe_clip(clip: np.ndarray, language: str) -> str:
        seconds = decoding_seconds(len(clip) / SAMPLING_RATE, context)
        features = np.ascontiguousarray(log_mel(processor, [clip], seconds).numpy())
        (result,) = model.generate(
            ctranslate2.StorageView.from_array(features),
            [prefix_ids(processor.tokenizer, language)],
            beam_size=1,
            max_length=most_tokens(clip),
        )
        return processor.decode(result.sequences_ids[0], skip_special_tokens=True).strip()

    return transcribe_clip


def with_whisper_cpp(path: Path, context: AudioContext) -> Transcribe:
    """Return a function that transcribes with whisper.cpp at a short window.

    Args:
        path: a ggml file.
        context: the recipe's.
    """
    from pywhispercpp.model import Model

    with _silence():
        model = Model(
            str(path),
            n_threads=torch.get_num_threads(),
            # With flash attention, its default, a window is filled up to a multiple of 256
            # positions, and what happens to be there is transcribed, too: in short windows
            # 11.3 % WER on the Italian test and not 6.4 % (pywhispercpp 1.5.1,
            # ggml-org/whisper.cpp#3941).
            context_params={"use_gpu": False, "flash_attn": False},
            print_progress=False,
            no_timestamps=True,
            single_segment=True,
            temperature_inc=0.0,  # no second try at a higher temperature: the others have none
            greedy={"best_of": 1},
        )

    def transcribe_clip(clip: np.ndarray, language: str) -> str:
        seconds = decoding_seconds(len(clip) / SAMPLING_RATE, context)
        segments = model.transcribe(clip, language=language, audio_ctx=round(50 * seconds))
        return " ".join(segment.text for segment in segments).strip()

    return transcribe_clip


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what C code writes to stderr: whisper.cpp prints 40 lines about a model.

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
) -> dict[str, Transcribe]:
    """Return every program that lesson 7 compares, by its name; Transformers first.

    Args:
        recipe: names the short window.
        run: with all conversions in `run.repository`.
        model: the fine-tuned one, in float32 on the CPU.
        processor: the checkpoint's.
    """
    short = recipe.decoding_context
    float16, int8 = (run.repository / f"ctranslate2-{kind}" for kind in ("float16", "int8"))
    ggml = run.repository / "ggml-model.bin"
    return {
        "Transformers float32, 30 s": with_transformers(model, processor),
        "Transformers float32, short": with_transformers(model, processor, short),
        "Transformers float32, as documented": with_pipeline(model, processor),
        # CTranslate2 has no float16 on a CPU: the weights are small there, the sums are not.
        "faster-whisper float16, as documented": with_faster_whisper(float16, "float32"),
        "faster-whisper int8, as documented": with_faster_whisper(int8),
        "CTranslate2 int8, short": with_ctranslate2(int8, processor, short),
        "whisper.cpp float16, as documented": with_documented_whisper_cpp(ggml),
        "whisper.cpp float16, short": with_whisper_cpp(ggml, short),
    }
