"""Recordings that people make: checked when they come in, kept with their text if they agree."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from utils.artifacts import digest, write_atomically
from utils.config import UserError
from utils.environment.whole import DiskFull, fits, read_json_lines
from utils.streaming.sound import MAX_SECONDS, AudioError, read_pieces
from utils.whisper.audio_context import SAMPLING_RATE, SILENCE, STOCK_SECONDS

METADATA = "metadata.jsonl"  # what `datasets` looks for in a folder of audio


class UnusableRecording(UserError, ValueError):
    """A recording that cannot be used; the message is what a person is told."""


def _pieces(path: str, max_seconds: float) -> Iterator[np.ndarray]:
    """Yield a file at 16 kHz, mono, piece by piece, and never more than is allowed.

    Raises:
        UnusableRecording: it is too long, or no sound.
    """
    try:
        yield from read_pieces(path, max_seconds)
    except AudioError as problem:
        if problem.reason.startswith("longer than"):
            limit = f"{max_seconds:.0f} s"
            if max_seconds > 60:
                limit = f"{max_seconds / 60:.0f} minutes"
            raise UnusableRecording(
                f"This recording is longer than {limit}: cut it, and try again."
            ) from None
        raise UnusableRecording(f"This file holds no readable audio: {problem}.") from None
    except OSError:
        raise UnusableRecording(
            "This file holds no readable audio: it is gone; add it again."
        ) from None


def read_recording(path: str | None, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """Return the samples of a recording that somebody made or uploaded.

    Args:
        path: whatever libsndfile or FFmpeg decodes; None where there is none.
        max_seconds: what is longer is refused.

    Returns:
        float32, mono, at 16 kHz.

    Raises:
        UnusableRecording: with one sentence for the person who made it.
    """
    if path is None:
        raise UnusableRecording("There is no recording yet: speak, or add a file.")
    # Decoded twice: half a megabyte holds hours, and nothing is held before it is known how many.
    count, peak = 0, 0.0
    for piece in _pieces(path, max_seconds):
        count += len(piece)
        peak = max(peak, np.abs(piece).max(initial=0.0))
    if peak < SILENCE:
        raise UnusableRecording("This recording is silent: check the microphone, and try again.")
    samples, at = np.empty(count, np.float32), 0
    for piece in _pieces(path, max_seconds):
        samples[at : at + len(piece)] = piece
        at += len(piece)
    return samples


def read_chunk(path: str) -> np.ndarray:
    """Return a second or so of an open microphone, at 16 kHz; silence is as good as speech.

    Raises:
        UnusableRecording: it is no sound, or longer than a window.
    """
    return np.concatenate([*_pieces(path, STOCK_SECONDS)])


def kept_rows(folder: Path) -> list[dict[str, str]]:
    """Return `file_name` and `text` of what `keep_recording` has put into a folder so far."""
    metadata = folder / METADATA
    rows = read_json_lines(metadata, "correct it by hand") if metadata.exists() else []
    return [row for row in rows if {"file_name", "text"} <= row.keys()]


def keep_recording(path: str, text: str, folder: Path) -> Path:
    """Store a recording and what was said in it as a row of a data set of one's own.

    The folder has the audiofolder layout: the WAV files and `metadata.jsonl`, whose lines hold
    `file_name` and `text`; lesson 2 streams such a folder as own recordings.
    The same recording stored again replaces its text.

    Args:
        path: of the recording, at most 30 s: what Whisper can be trained on.
        text: what was said.
        folder: made if need be, readable by this user alone.

    Returns:
        The WAV file.

    Raises:
        UnusableRecording: with one sentence for the person who made it.
    """
    text = " ".join((text or "").split())
    if not text:
        raise UnusableRecording("Write what was said first.")
    samples = read_recording(path, STOCK_SECONDS)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    wav = folder / f"{digest(Path(path))[:16]}.wav"
    rows = [row for row in kept_rows(folder) if row["file_name"] != wav.name]
    rows.append({"file_name": wav.name, "text": text})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        with fits(wav, 2 * len(samples) + len(lines)):
            soundfile.write(wav, samples, SAMPLING_RATE)  # first: no line names a missing file
            write_atomically(folder / METADATA, lines)
    except DiskFull:
        if not any(row["file_name"] == wav.name for row in kept_rows(folder)):
            wav.unlink(missing_ok=True)
        raise UnusableRecording(
            "This machine's disk is full: nothing was stored. Tell whoever runs this page."
        ) from None
    return wav
