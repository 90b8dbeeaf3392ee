"""Recordings longer than Whisper's window: decoded window by window, with timestamps."""

from collections.abc import Iterator, Sequence

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from utils.whisper.audio_context import SAMPLING_RATE, SILENCE, STOCK_SECONDS
from utils.whisper.captions import Segment
from utils.whisper.decoding import most_tokens
from utils.whisper.features import TIMESTAMP_STEP, log_mel
from utils.whisper.greedy import decode_greedily
from utils.whisper.labels import prefix_ids
from utils.whisper.weight_layout import packed

SHORTEST_REST = 0.1  # seconds at the end of a recording that contain no word


def _read_timestamps(tokens: Sequence[int], first: int, window: float) -> list[list]:
    """Return `[start, end, text tokens]` for each segment between two timestamps.

    Args:
        tokens: text and timestamps that the model decoded for a window.
        first: the id of <|0.00|>; those of text are below it.
        window: seconds; the end of the last segment if the model did not close it.
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

    The next window starts where the last complete sentence of this one ends: a sentence cut off by
    the end of the window is decoded again, whole. Windows without sound are skipped. The text
    before is not passed to the model, so that an error does not spread to the next window.

    Args:
        model: on the device to run on.
        processor: the checkpoint's.
        samples: float32 at 16 kHz.
        language: Whisper's code; English-only checkpoints ignore it.
        task: "transcribe", or "translate" into English.

    Yields:
        After each window, the seconds decoded so far and what the window added. Segments do not
        overlap and end within the recording.
    """
    tokenizer, total, start = processor.tokenizer, len(samples) / SAMPLING_RATE, 0.0
    *prompt, _ = prefix_ids(tokenizer, language, task)  # the last one forbids timestamps
    model.eval()
    while total - start > SHORTEST_REST:
        first = round(start * SAMPLING_RATE)
        clip = samples[first : first + round(STOCK_SECONDS * SAMPLING_RATE)]
        window = len(clip) / SAMPLING_RATE
        stretches = _decode_window(model, processor, clip, prompt)
        advance = window
        if first + len(clip) < len(samples) and stretches:
            # What touches the window's end may be half a sentence. And if the model stopped
            # early, as one trained on single sentences may, the rest is decoded again.
            if len(stretches) > 1 and stretches[-1][1] > window - 0.5:
                stretches.pop()
            advance = max(min(stretches[-1][1], window), 1.0)
        segments = [
            Segment(start + begin, start + min(end, window), text)
            for begin, end, ids in stretches
            # The model does not know where the recording ends: text beyond that is made up.
            if begin < window and (text := tokenizer.decode(ids, skip_special_tokens=True).strip())
        ]
        start += advance
        yield (start if total - start > SHORTEST_REST else total), segments


def _decode_window(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clip: np.ndarray,
    prompt: Sequence[int],
) -> list[list]:
    """Return `_read_timestamps` of a window of at most 30 s; nothing if it has no sound.

    Not by `generate`: after the last timestamp it decodes the rest of the window again, cut off
    from what follows it, and counts its times from there.
    """
    if np.abs(clip).max() < SILENCE:
        return []
    names = ["<|0.00|>", "<|endoftext|>"]
    timestamp, end_of_text = processor.tokenizer.convert_tokens_to_ids(names)
    rules = WhisperTimeStampLogitsProcessor(model.generation_config, begin_index=len(prompt))
    features = log_mel(processor, [clip], device=model.device).to(model.device, model.dtype)
    with packed(model):
        (tokens,) = decode_greedily(model, features, [prompt], [most_tokens(clip)], rules)
    kept = [token for token in tokens if token < end_of_text or token >= timestamp]
    return _read_timestamps(kept, timestamp, len(clip) / SAMPLING_RATE)
