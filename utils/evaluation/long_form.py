"""Long recordings: joined from test clips, transcribed, and compared with the known borders."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.scoring.error_rates import align, count_errors, error_rate
from utils.text import leading_unit, normalize, units_of, word_gap
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS
from utils.whisper.captions import Segment
from utils.whisper.long_recordings import transcribe_long

PAUSE_SECONDS = 0.6  # between two clips: about what a speaker leaves between sentences
# A segment may be this far from the clip with its words, and the last one may end this far after
# the recording: Whisper's grid is 0.02 s, but its segments take in some of the silence around.
TOLERATED_SECONDS = 1.0


class JoinedClips(NamedTuple):
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
) -> JoinedClips:
    """Join clips with pauses; one that would make the recording too long is skipped."""
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
    return JoinedClips(samples, said, borders, language)


def _pieces(texts: Sequence[str], language: str) -> tuple[list[str], list[int]]:
    """Return the words of several texts, normalised, and which text each is of.

    They are characters in a language without word spaces.
    """
    parts = [units_of(normalize(text, language), language) for text in texts]
    owners = [number for number, part in enumerate(parts) for _ in part]
    return [piece for part in parts for piece in part], owners


def word_drift(segments: Sequence[Segment], joined: JoinedClips) -> list[float]:
    """Return for each correct word how many seconds its segment is from its clip.

    0 where they overlap. Words are characters in a language without word spaces.
    """
    said, clips = _pieces(joined.texts, joined.language)
    written, places = _pieces([one.text for one in segments], joined.language)
    if not said or not written:
        return []
    gap, unit = word_gap(joined.language), leading_unit([joined.language])
    drift = []
    for chunk in align([gap.join(said)], [gap.join(written)], unit).alignments[0]:
        if chunk.type == "equal":
            for step in range(chunk.ref_end_idx - chunk.ref_start_idx):
                start, end = joined.borders[clips[chunk.ref_start_idx + step]]
                one = segments[places[chunk.hyp_start_idx + step]]
                drift.append(max(one.start - end, start - one.end, 0.0))
    return drift


def check_timestamps(segments: Sequence[Segment], joined: JoinedClips) -> dict[str, Any]:
    """Compare timestamps with the borders of the clips.

    Returns:
        `segments`, `monotonic` (no segment starts before the previous one),
        `past_end_seconds` (how far the last one ends after the audio), `segment_drift_seconds`
        (median distance from where a segment starts to where the nearest clip starts),
        `word_drift_seconds` (95 % of the right words stay below, see `word_drift`) and `kept`: all
        is well. The drifts are None where there is nothing to measure.
    """
    starts = np.array([one.start for one in segments])
    clip_starts = np.array([start for start, _ in joined.borders])
    drift = np.abs(starts[:, None] - clip_starts[None]).min(axis=1) if len(starts) else None
    words = word_drift(segments, joined)
    result = {
        "segments": len(starts),
        "monotonic": bool((np.diff(starts) >= 0).all()),
        "past_end_seconds": max([0.0, *(one.end - joined.seconds for one in segments)]),
        "segment_drift_seconds": None if drift is None else float(np.median(drift)),
        "word_drift_seconds": float(np.percentile(words, 95)) if words else None,
    }
    late = [result[f"{kind}_seconds"] for kind in ("past_end", "segment_drift", "word_drift")]
    result["kept"] = (
        bool(segments)
        and result["monotonic"]
        # A model that has unlearned its timestamps returns one segment a window.
        and len(starts) > joined.seconds / STOCK_SECONDS
        and all(value is None or value <= TOLERATED_SECONDS for value in late)
    )
    return result


def measure_long_form(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, joined: JoinedClips
) -> dict[str, Any]:
    """Transcribe a long recording as the page of lesson 6 does.

    Returns:
        `wer`, `cer`, `text`, and what `check_timestamps` returns.
    """
    language, gap = joined.language, word_gap(joined.language)
    windows = transcribe_long(model, processor, joined.samples, language=language)
    segments = [segment for _, found in windows for segment in found]
    text = gap.join(segment.text for segment in segments)
    said, hypothesis = normalize(gap.join(joined.texts), language), normalize(text, language)
    return {
        "wer": error_rate(count_errors([said], [hypothesis], "word")),
        "cer": error_rate(count_errors([said], [hypothesis], "char")),
        "text": text,
        **check_timestamps(segments, joined),
    }
