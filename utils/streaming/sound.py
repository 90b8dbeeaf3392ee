"""Audio of any format, decoded piece by piece for Whisper: mono, 16 kHz, in [-1, 1].

libsndfile decodes what it can, FFmpeg's decoders the rest: phone and video formats. Own recordings,
rows of the Hub, the page and the recorder all use this module.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import BinaryIO

import av
import librosa
import numpy as np
import soundfile
import soxr

from utils.streaming.decoders import AudioError, Piece, open_decoder
from utils.streaming.headers import kind_of, missing_share, read_head, what_instead
from utils.whisper.audio_context import SAMPLING_RATE

MAX_SECONDS = 3600.0  # an hour of samples at 16 kHz takes 230 MB of memory
CUT_OFF = 0.05  # share of the audio stated in its header that a file may lack

Source = bytes | str | Path  # an encoded file, or its path


class _SeeksQuietly:
    """A file in which a place before its start, which damaged headers name, is no exception.

    It would come from a callback of the decoder, which prints it and goes on.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; return -1, and stay, where there is none."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -1


class _Bytes(_SeeksQuietly, io.BytesIO): ...


class _File(_SeeksQuietly, io.BufferedReader): ...


def _unreadable(name: str, head: bytes, why: Exception) -> AudioError:
    """Return the error for a file that no decoder accepts."""
    if instead := what_instead(head):
        return AudioError(f"{name}: {instead}")
    reason = getattr(why, "strerror", None) or why
    old = Path(name).name
    new = Path(old).with_suffix(".flac" if old.endswith(".wav") else ".wav")
    return AudioError(
        f"{name}: {kind_of(head)} that cannot be decoded ({reason}); if another program plays it, "
        f"convert it: `ffmpeg -i {quote(old)} -ac 1 -ar 16000 {quote(str(new))}`"
    )


@contextmanager
def _explained(source: Source, name: str) -> Iterator[BinaryIO]:
    """Open a source, and turn any fault into a message with the file and its format."""
    name = name or ("the clip" if isinstance(source, bytes) else Path(source).name)
    with _Bytes(source) if isinstance(source, bytes) else _File(io.FileIO(source)) as file:
        try:
            yield file
        except AudioError as error:
            raise AudioError(f"{name}: {error}", error.reason) from None
        # A damaged MP3 header may state more samples than there is memory.
        except (soundfile.SoundFileError, av.FFmpegError, ValueError, EOFError, MemoryError) as why:
            raise _unreadable(name, read_head(file), why) from None


def _pieces(file: BinaryIO, max_seconds: float) -> Iterator[Piece]:
    """Yield (rate, mono samples), at most `max_seconds` of them, and compare with the header."""
    if missing_share(file) > CUT_OFF:
        raise AudioError("it is cut off: its header promises more than there is", "cut-off audio")
    too_long = AudioError(f"longer than {max_seconds:g} s", f"longer than {max_seconds:g} s")
    got = 0.0
    with open_decoder(file) as (promised, pieces):
        # The header first, so that a long file costs nothing; it may be wrong, so the samples too.
        if promised and promised > max_seconds:
            raise too_long
        for rate, piece in pieces:
            got += len(piece) / rate
            if got > max_seconds:
                raise too_long
            yield rate, piece
    if not got:
        raise AudioError("a header and no samples")
    if promised and got < (1 - CUT_OFF) * promised - 0.1:
        raise AudioError(
            f"it is cut off: its header promises {promised:.1f} s, and {got:.1f} s are there",
            "cut-off audio",
        )


def read_pieces(
    source: Source, max_seconds: float = MAX_SECONDS, name: str = ""
) -> Iterator[np.ndarray]:
    """Yield a recording at 16 kHz, mono, some seconds at a time: an hour is never in memory twice.

    Args:
        source: an encoded file, or its path.
        max_seconds: longer files are refused.
        name: for messages, where `source` is bytes.

    Raises:
        AudioError: see `decode_audio`; it may come after good pieces.
    """
    resampler, of_rate = None, 0
    with _explained(source, name) as file:
        for rate, piece in _pieces(file, max_seconds):
            if rate != of_rate:
                if resampler:
                    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                new = soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
                resampler, of_rate = (new if rate != SAMPLING_RATE else None), rate
            yield resampler.resample_chunk(piece) if resampler else piece
    if resampler:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def decode_audio(source: Source, max_seconds: float = MAX_SECONDS, name: str = "") -> np.ndarray:
    """Decode an audio file to Whisper's input format.

    Args:
        source: an encoded file, or its path: anything that libsndfile or FFmpeg decodes.
        max_seconds: longer files are refused before they are in memory.
        name: for messages, where `source` is bytes.

    Returns:
        float32 samples in [-1, 1], mono, at 16 kHz, shape `(samples,)`.

    Raises:
        AudioError: it is not audio, too long, truncated, or has samples that are not finite.
    """
    with _explained(source, name) as file:
        pieces = list(_pieces(file, max_seconds))
    rates = {rate for rate, _ in pieces}
    if len(rates) > 1:  # a stream with a changing rate: rare, and resampled piece by piece
        return np.concatenate(list(read_pieces(source, max_seconds, name)))
    mono, rate = np.concatenate([piece for _, piece in pieces]), rates.pop()
    if rate != SAMPLING_RATE:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=SAMPLING_RATE, res_type="soxr_hq")
    return mono.astype(np.float32, copy=False)


def promised_seconds(source: Source) -> float | None:
    """Return a file's duration by its header; None if it has none, or none to be trusted."""
    with (
        suppress(AudioError, OSError),
        _explained(source, "") as file,
        open_decoder(file) as (known, _),
    ):
        return known
    return None
