"""The sound of one clip: an unchanged file, or a part of a long recording as a WAV."""

import io
import os
import threading
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import soundfile

from utils.streaming.decoders import AudioError, open_decoder
from utils.streaming.files import Recording
from utils.streaming.headers import promises_length, read_head
from utils.streaming.sound import promised_seconds

HELD_SECONDS = 60  # before the newest decoded sample: parts may overlap

_local = threading.local()


class _Forward:
    """A recording that is decoded from the beginning: parts in order are decoded once.

    Not by seeking: in AAC, AMR, WMA and some MP3s a position is a guess.
    """

    def __init__(self, path: Path):
        self._stack = ExitStack()
        file = self._stack.enter_context(path.open("rb"))
        _, self._pieces = self._stack.enter_context(open_decoder(file))
        self._held: deque[np.ndarray] = deque()
        self._first = self._next = 0  # samples: of the first one kept, and after the last one
        self.rate = 0

    def close(self) -> None:
        self._stack.close()

    def begins(self) -> float:
        """Return the time, in seconds, from which parts can still be cut."""
        return self._first / self.rate if self.rate else 0.0

    def read(self, start: float, end: float) -> np.ndarray:
        """Return the samples from `start` to `end` (seconds), fewer where the recording ends."""
        while not self.rate or self._next < end * self.rate:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self.rate, samples = piece
            self._held.append(samples)
            self._next += len(samples)
            while self._next - self._first - len(self._held[0]) > HELD_SECONDS * self.rate:
                # Not what this part needs.
                if self._first + len(self._held[0]) > start * self.rate:
                    break
                self._first += len(self._held.popleft())
        first, last = (round(at * self.rate) - self._first for at in (start, min(end, 1e6)))
        held = np.concatenate(self._held) if self._held else np.zeros(0, np.float32)
        return held[max(first, 0) : max(last, 0)]


def _forward(path: Path, start: float, end: float) -> tuple[np.ndarray, int]:
    key = (os.getpid(), path, path.stat().st_mtime_ns)
    known, reader = getattr(_local, "reader", (None, None))
    if known != key or start < reader.begins():
        if reader and known[0] == os.getpid():
            reader.close()
        reader = _Forward(path)
        _local.reader = key, reader
    return reader.read(start, end), reader.rate


def _seekable(path: Path) -> soundfile.SoundFile | None:
    """Return a recording in which libsndfile finds a place; None if it refuses it.

    None, too, if it does not know or guesses the length: it reads nothing that is behind it.
    """
    with path.open("rb") as file:
        if not promises_length(read_head(file)):
            return None
    try:
        sound = soundfile.SoundFile(path)
    except soundfile.SoundFileError:
        return None
    return sound if sound.frames else None


def _part(path: Path, start: float, end: float | None) -> tuple[np.ndarray, int, str]:
    """Return samples, rate and subtype of a part; `end` None is the recording's end."""
    file = _seekable(path)
    if file is None:
        samples, rate = _forward(path, start, float("inf") if end is None else end)
        return samples, rate, "PCM_16"
    with file:
        first = min(round(start * file.samplerate), file.frames)
        last = file.frames if end is None else round(end * file.samplerate)
        file.seek(first)
        # Read as integers, samples of a float file are not scaled: all become 0.
        is_float = file.subtype in ("FLOAT", "DOUBLE")
        samples = file.read(max(0, last - first), dtype="float32" if is_float else "int16")
        return samples, file.samplerate, "FLOAT" if is_float else "PCM_16"


def read_audio(recording: Recording) -> tuple[bytes, float | None]:
    """Return an encoded file, cut to the recording's part, and its seconds.

    For a missing or unreadable file it returns what `decode_audio` will refuse: that costs only
    this clip, and the report counts it.
    """
    if not recording.path.is_file():
        return b"", None
    if recording.start is None and recording.end is None:
        data = recording.path.read_bytes()
        return data, promised_seconds(data)
    try:
        samples, rate, subtype = _part(recording.path, recording.start or 0.0, recording.end)
    except (
        soundfile.SoundFileError,
        av.FFmpegError,
        AudioError,
        OSError,
        ValueError,
        OverflowError,
    ):
        with recording.path.open("rb") as file:
            return file.read(64), None  # enough to identify the format
    part = io.BytesIO()
    soundfile.write(part, samples, rate, subtype, format="WAV")
    return part.getvalue(), len(samples) / rate
