"""Speech → text: clips in length-sorted batches; long recordings with their timestamps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from utils.audio_context import STOCK_SECONDS, audio_context, context_seconds
from utils.config import AudioContext
from utils.streaming import SAMPLING_RATE
from utils.text import has_word_spaces

# A guard, not a limit on speech: nobody speaks 12 tokens a second, and a clip that repeats itself
# without end costs its batch no more than this.
TOKENS_PER_SECOND, EXTRA_TOKENS = 12, 32


def log_mel(
    processor: WhisperProcessor, clips: Sequence[np.ndarray], seconds: float = STOCK_SECONDS
) -> torch.Tensor:
    """Return log-mel features of clips padded with silence to `seconds`.

    Args:
        processor: the checkpoint's (80 mel bands; 128 for large-v3 and turbo).
        clips: float32 samples at 16 kHz.
        seconds: the window; a longer clip is cut off.

    Returns:
        float32 `(len(clips), mels, 100 · seconds)`.
    """
    # Without max_length the feature extractor pads to 30 s, whatever the clips need.
    return processor.feature_extractor(
        list(clips),
        sampling_rate=SAMPLING_RATE,
        padding="max_length",
        max_length=round(seconds * SAMPLING_RATE),
        truncation=True,
        return_tensors="pt",
    ).input_features


@torch.inference_mode()
def transcribe(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    *,
    language: str | Sequence[str],
    context: AudioContext | None = None,
    batch_size: int = 16,
    task: str = "transcribe",
    progress: str = "",
) -> list[str]:
    """Return what the model hears in each clip, greedily and without timestamps.

    Args:
        model: on the device it shall run on.
        processor: the checkpoint's.
        clips: float32 samples at 16 kHz, each at most 30 s.
        language: Whisper's code for all clips, or one for each; English-only checkpoints ignore it.
        context: a short audio context; None is the stock 30 s window. A checkpoint that was not
            trained at a short context must be read at 30 s (see `audio_context`).
        batch_size: clips decoded together.
        task: "transcribe", or "translate" into English.
        progress: the text of a progress bar; "" shows none.

    Returns:
        The texts, in the order of the clips.
    """
    languages = [language] * len(clips) if isinstance(language, str) else list(language)
    # Clips of like length share a batch: a batch lasts as long as its longest clip.
    order = sorted(range(len(clips)), key=lambda index: -len(clips[index]))
    texts = [""] * len(clips)
    model.eval()
    bar = tqdm(total=len(clips), desc=progress, unit="clip", disable=not progress)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = len(clips[batch[0]]) / SAMPLING_RATE
        seconds = STOCK_SECONDS
        if context is not None:
            seconds = context_seconds(longest, context.tail_seconds / 2, context)
        features = log_mel(processor, [clips[index] for index in batch], seconds)
        asked = {}
        if model.generation_config.is_multilingual:  # else generate refuses both arguments
            asked = {"language": [languages[index] for index in batch], "task": task}
        with audio_context(model, features.shape[-1]):
            tokens = model.generate(
                features.to(model.device, model.dtype),
                # All of the window counts: Whisper's encoder has no padding mask. Without this
                # argument generate warns that it cannot tell.
                attention_mask=features.new_ones(len(batch), features.shape[-1]),
                max_length=min(
                    round(TOKENS_PER_SECOND * longest) + EXTRA_TOKENS,
                    model.config.max_target_positions,
                ),
                num_beams=1,
                do_sample=False,
                **asked,
            )
        for index, text in zip(
            batch, processor.batch_decode(tokens, skip_special_tokens=True), strict=True
        ):
            texts[index] = text.strip()
        bar.update(len(batch))
    bar.close()
    return texts


class Span(NamedTuple):
    """A piece of text and when it is said, in seconds from the start of the recording."""

    start: float
    end: float
    text: str


class LongTranscript(NamedTuple):
    """What was heard in a long recording."""

    text: str
    segments: list[Span]  # phrases, as the model's own timestamp tokens cut them
    words: list[Span]  # none from chunks, and from checkpoints that name no alignment heads


def _asked(model: WhisperForConditionalGeneration, language: str) -> dict[str, str]:
    multilingual = model.generation_config.is_multilingual  # else generate refuses both arguments
    return {"language": language, "task": "transcribe"} if multilingual else {}


def _words(segment: Mapping[str, Any], processor: WhisperProcessor, language: str) -> Iterator:
    """Yield the words of one of generate's segments, each from its first token to the next word."""
    tokenizer = processor.tokenizer
    specials = tokenizer.convert_tokens_to_ids("<|endoftext|>")  # text tokens stand below it
    tokens, times = segment["tokens"].tolist(), segment["token_timestamps"].tolist()
    pieces: list[tuple[float, list[int]]] = []
    for token, time in zip(tokens, times, strict=True):
        if token >= specials:
            continue
        # In byte-level BPE Ġ is the space in front of a word.
        opens = tokenizer.convert_ids_to_tokens(token).startswith("Ġ")
        if opens or not pieces or not has_word_spaces(language):
            pieces.append((time, []))
        pieces[-1][1].append(token)
    ends = [time for time, _ in pieces[1:]] + [float(segment["end"])]
    for (start, ids), end in zip(pieces, ends, strict=True):
        yield Span(start, max(end, start), tokenizer.decode(ids).strip())


@torch.inference_mode()
def transcribe_sequentially(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    samples: np.ndarray,
    *,
    language: str,
) -> LongTranscript:
    """Transcribe a recording of any length window by window, each from where the last one ended.

    OpenAI's own way: the model's timestamps say how far a window was understood. Exact at the
    seams, one window after the other, and lost where a model has unlearned its timestamps.

    Args:
        model: a Whisper; read at the stock 30 s window.
        processor: the checkpoint's.
        samples: float32 at 16 kHz.
        language: Whisper's code.
    """
    features = log_mel(processor, [samples], max(len(samples) / SAMPLING_RATE, STOCK_SECONDS))
    heads = getattr(model.generation_config, "alignment_heads", None)
    attention = model.config._attn_implementation
    try:
        found = model.eval().generate(
            features.to(model.device, model.dtype),
            attention_mask=features.new_ones(1, features.shape[-1], dtype=torch.long),
            return_timestamps=True,
            return_segments=True,
            return_token_timestamps=bool(heads),  # by the cross-attention of these heads
            num_beams=1,
            do_sample=False,
            **_asked(model, language),
        )
    finally:
        # For word timestamps generate turns the model to slow attention, and leaves it there.
        model.set_attn_implementation(attention)
    spans, words = [], []
    for segment in found["segments"][0]:
        text = processor.tokenizer.decode(segment["tokens"], skip_special_tokens=True).strip()
        spans.append(Span(float(segment["start"]), float(segment["end"]), text))
        words += _words(segment, processor, language) if heads else []
    return LongTranscript(" ".join(span.text for span in spans), spans, words)


@torch.inference_mode()
def transcribe_in_chunks(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    samples: np.ndarray,
    *,
    language: str,
    batch_size: int = 4,
) -> LongTranscript:
    """Transcribe a recording of any length in windows that overlap, several at a time.

    The stock pipeline's way: faster on a GPU, and words may be lost or doubled at the seams, where
    it joins two windows by the longest text that they share.

    Args:
        model: a Whisper; read at the stock 30 s window.
        processor: the checkpoint's.
        samples: float32 at 16 kHz.
        language: Whisper's code.
        batch_size: windows decoded together.
    """
    pipeline = AutomaticSpeechRecognitionPipeline(
        model=model.eval(),
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device=model.device,
        chunk_length_s=STOCK_SECONDS,
        ignore_warning=True,
    )
    found = pipeline(
        {"raw": samples, "sampling_rate": SAMPLING_RATE},
        batch_size=batch_size,
        return_timestamps=True,
        generate_kwargs={"num_beams": 1, "do_sample": False, **_asked(model, language)},
    )
    # The last chunk has no end where the model wrote none.
    end_of_all = len(samples) / SAMPLING_RATE
    spans = [
        Span(start, end_of_all if end is None else end, chunk["text"].strip())
        for chunk in found["chunks"]
        for start, end in [chunk["timestamp"]]
    ]
    return LongTranscript(found["text"].strip(), spans, [])
