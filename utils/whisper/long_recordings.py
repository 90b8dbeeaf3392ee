"""Recordings longer than Whisper's window: decoded window after window, with timestamps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import (
    AutomaticSpeechRecognitionPipeline,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from utils.text import has_word_spaces
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS
from utils.whisper.captions import Segment
from utils.whisper.decoding import asked, most_tokens
from utils.whisper.features import SILENCE, TIMESTAMP_STEP, log_mel
from utils.whisper.greedy import decode_greedily
from utils.whisper.labels import prefix_ids
from utils.whisper.weight_layout import packed

SHORTEST_REST = 0.1  # seconds at the end of a recording that hold no word


class LongTranscript(NamedTuple):
    """What was heard in a long recording."""

    text: str
    segments: list[Segment]  # phrases, as the model's own timestamp tokens cut them
    words: list[Segment]  # none from chunks, and from checkpoints that name no alignment heads


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
        yield Segment(start, max(end, start), tokenizer.decode(ids).strip())


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
    # Word times need the decoder's attention; generate would keep the encoder's too, of all windows
    # until the end: 0.4 GiB for each with base (transformers 5.23).
    hook = model.get_encoder().register_forward_hook(
        lambda _, __, heard: BaseModelOutput(last_hidden_state=heard.last_hidden_state)
    )
    try:
        found = model.eval().generate(
            features.to(model.device, model.dtype),
            attention_mask=features.new_ones(1, features.shape[-1], dtype=torch.long),
            return_timestamps=True,
            return_segments=True,
            return_token_timestamps=bool(heads),  # by the cross-attention of these heads
            num_beams=1,
            do_sample=False,
            **asked(model, language),
        )
    finally:
        hook.remove()
        # For word timestamps generate turns the model to slow attention, and leaves it there.
        model.set_attn_implementation(attention)
    spans, words = [], []
    for segment in found["segments"][0]:
        text = processor.tokenizer.decode(segment["tokens"], skip_special_tokens=True).strip()
        spans.append(Segment(float(segment["start"]), float(segment["end"]), text))
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
        generate_kwargs={"num_beams": 1, "do_sample": False, **asked(model, language)},
    )
    # The last chunk has no end where the model wrote none.
    end_of_all = len(samples) / SAMPLING_RATE
    spans = [
        Segment(start, end_of_all if end is None else end, chunk["text"].strip())
        for chunk in found["chunks"]
        for start, end in [chunk["timestamp"]]
    ]
    return LongTranscript(found["text"].strip(), spans, [])


def _read_timestamps(tokens: Sequence[int], first: int, window: float) -> list[list]:
    """Return `[start, end, text tokens]` for each stretch between two timestamps.

    Args:
        tokens: text and timestamps that the model wrote for a window.
        first: the id of <|0.00|>; those of text are below it.
        window: seconds; where the last stretch, which the model did not close, ends.
    """
    stretches, start, text = [], 0.0, []
    for token in tokens:
        if token < first:
            text.append(token)
            continue
        seconds = (token - first) * TIMESTAMP_STEP
        if text:
            stretches.append([start, seconds, text])
        start, text = seconds, []
    if text:
        stretches.append([start, window, text])
    return stretches


def transcribe_long(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    samples: np.ndarray,
    *,
    language: str,
    task: str = "transcribe",
) -> Iterator[tuple[float, list[Segment]]]:
    """Transcribe a recording of any length with timestamps, 30 s window by 30 s window.

    The next window starts where the last finished sentence of this one ends: a sentence that the
    window's end cut is heard again, whole. Windows without sound are passed over. What was heard
    before is not given to the model, so that an error does not feed the next window.

    Args:
        model: on the device it shall run on.
        processor: the checkpoint's.
        samples: float32 at 16 kHz.
        language: Whisper's code; English-only checkpoints ignore it.
        task: "transcribe", or "translate" into English.

    Yields:
        After each window, the seconds heard so far and what the window added. Segments follow one
        another and end within the recording.
    """
    tokenizer, total, start = processor.tokenizer, len(samples) / SAMPLING_RATE, 0.0
    timestamp, end_of_text = tokenizer.convert_tokens_to_ids(["<|0.00|>", "<|endoftext|>"])
    *prompt, _ = prefix_ids(tokenizer, language, task)  # the last one forbids timestamps
    rules = WhisperTimeStampLogitsProcessor(model.generation_config, begin_index=len(prompt))
    model.eval()
    while total - start > SHORTEST_REST:
        first = round(start * SAMPLING_RATE)
        clip = samples[first : first + round(STOCK_SECONDS * SAMPLING_RATE)]
        window = len(clip) / SAMPLING_RATE
        stretches = []
        if np.abs(clip).max() >= SILENCE:
            # Not generate: behind the last timestamp it hears the rest of the window once more,
            # cut off from what follows it, and counts its times from there.
            features = log_mel(processor, [clip], device=model.device)
            features = features.to(model.device, model.dtype)
            with packed(model):
                (tokens,) = decode_greedily(model, features, [prompt], [most_tokens(clip)], rules)
            kept = [token for token in tokens if token < end_of_text or token >= timestamp]
            stretches = _read_timestamps(kept, timestamp, window)
        heard = window
        if first + len(clip) < len(samples) and stretches:
            # What touches the window's end may be half a sentence. And where the model stopped
            # early, as one that was trained on single sentences may, the rest is heard again.
            if len(stretches) > 1 and stretches[-1][1] > window - 0.5:
                stretches.pop()
            heard = max(min(stretches[-1][1], window), 1.0)
        segments = [
            Segment(start + begin, start + min(end, window), text)
            for begin, end, ids in stretches
            # The model knows no end of the recording: beyond it, it has only made words up.
            if begin < window and (text := tokenizer.decode(ids, skip_special_tokens=True).strip())
        ]
        start += heard
        yield (start if total - start > SHORTEST_REST else total), segments
