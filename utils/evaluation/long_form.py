"""Long recordings: made of test clips with known borders, transcribed, and held against them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.scoring.error_rates import align, count_errors, error_rate
from utils.text import normalize
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.long_recordings import (
    LongTranscript,
    transcribe_in_chunks,
    transcribe_sequentially,
)

PAUSE_SECONDS = 0.6  # between two clips: about what a speaker leaves between sentences
# A timestamp may stand this far outside of the clip whose word it times, and the last one this far
# after the end: Whisper's grid is 0.02 s, but its segments take in some of the silence around.
TOLERATED_SECONDS = 1.0


class Recording(NamedTuple):
    """Clips of one language put one after another."""

    samples: np.ndarray  # float32 at 16 kHz
    texts: list[str]  # of each clip
    borders: list[tuple[float, float]]  # start and end of each clip, seconds
    language: str

    @property
    def seconds(self) -> float:
        """The length of all, pauses included."""
        return len(self.samples) / SAMPLING_RATE


def join_clips(
    clips: Sequence[np.ndarray], texts: Sequence[str], language: str, max_seconds: float
) -> Recording:
    """Join clips with pauses; one that would make the recording too long is passed over."""
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLING_RATE), np.float32)
    parts, said, borders, length = [], [], [], 0
    for clip, text in zip(clips, texts, strict=True):
        if (length + len(clip) + len(pause)) > max_seconds * SAMPLING_RATE:
            continue
        borders.append((length / SAMPLING_RATE, (length + len(clip)) / SAMPLING_RATE))
        parts += [clip, pause]
        said.append(text)
        length += len(clip) + len(pause)
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return Recording(samples, said, borders, language)


def _outside(time: float, border: tuple[float, float]) -> float:
    """Return how far a time lies outside of a clip, in seconds."""
    return max(border[0] - time, time - border[1], 0.0)


def word_drift(heard: LongTranscript, recording: Recording) -> list[float]:
    """Return for each word that was heard rightly how far its start lies outside of its clip."""
    said, owner = [], []
    for number, text in enumerate(recording.texts):
        words = normalize(text, recording.language).split()
        said += words
        owner += [number] * len(words)
    # A word may be several after normalising, or none: c'è is two.
    pieces = [
        (piece, word.start)
        for word in heard.words
        for piece in normalize(word.text, recording.language).split()
    ]
    if not said or not pieces:
        return []
    matched = align([" ".join(said)], [" ".join(piece for piece, _ in pieces)], "word")
    return [
        _outside(pieces[chunk.hyp_start_idx + step][1], recording.borders[owner[index]])
        for chunk in matched.alignments[0]
        if chunk.type == "equal"
        for step, index in enumerate(range(chunk.ref_start_idx, chunk.ref_end_idx))
    ]


def check_timestamps(heard: LongTranscript, recording: Recording) -> dict[str, Any]:
    """Hold timestamps against the borders of the clips.

    Returns:
        `segments`, `monotonic` (no segment starts before the one in front of it),
        `past_end_seconds` (how far the last one ends after the audio), `segment_drift_seconds`
        (median distance from where a segment starts to where the nearest clip starts),
        `word_drift_seconds` (95 % of the rightly heard words stay below, see `word_drift`; None
        without word timestamps) and `kept`: all is well.
    """
    starts = np.array([span.start for span in heard.segments])
    clip_starts = np.array([start for start, _ in recording.borders])
    drift = np.abs(starts[:, None] - clip_starts[None]).min(axis=1) if len(starts) else None
    words = word_drift(heard, recording)
    result = {
        "segments": len(starts),
        "monotonic": bool((np.diff(starts) >= 0).all()),
        "past_end_seconds": max([0.0, *(span.end - recording.seconds for span in heard.segments)]),
        "segment_drift_seconds": None if drift is None else float(np.median(drift)),
        "word_drift_seconds": float(np.percentile(words, 95)) if words else None,
    }
    late = [result[f"{kind}_seconds"] for kind in ("past_end", "segment_drift", "word_drift")]
    result["kept"] = (
        bool(heard.segments)
        and result["monotonic"]
        # One segment a window is what a model writes that has unlearned its timestamps.
        and len(starts) > recording.seconds / 30
        and all(value is None or value <= TOLERATED_SECONDS for value in late)
    )
    return result


def measure_long_form(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, recording: Recording
) -> dict[str, dict[str, Any]]:
    """Transcribe a recording both ways; return WER, CER, text and `check_timestamps` of each."""
    said = normalize(" ".join(recording.texts), recording.language)
    result = {}
    for name, read in (
        ("sequential", transcribe_sequentially),
        ("chunked", transcribe_in_chunks),
    ):
        heard = read(model, processor, recording.samples, language=recording.language)
        text = normalize(heard.text, recording.language)
        result[name] = {
            "wer": error_rate(count_errors([said], [text], "word")),
            "cer": error_rate(count_errors([said], [text], "char")),
            "text": heard.text,
            **check_timestamps(heard, recording),
        }
    return result
