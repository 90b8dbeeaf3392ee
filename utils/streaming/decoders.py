"""Two decoders: libsndfile, and FFmpeg's (through PyAV) for what it refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av
import numpy as np
import soundfile

from utils.config import UserError
from utils.streaming.headers import has_constant_rate, promises_length, read_head

DAY = 86_400.0  # a header with more is wrong: a FLAC from a pipe has 2^63 samples
RATES = (1_000, 1_000_000)  # Hz; nothing outside is a sampling rate of audio
# The formats that FFmpeg may open. Not all that it can: a playlist would make it open other files
# of this machine, or of the network.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,asf,asf_o,avi,flv,mpeg,mpegts,mp3,"
    "ogg,wav,w64,flac,caf,aiff,au,ac3,eac3,dts,ape,tta,wv,mpc,mpc8,nistsphere,voc,xwma,gsm,rm,dsf"
)
# Formats that store their duration. For raw AAC and AMR it is guessed from the bit rate.
LENGTH_IS_WRITTEN = {"mov", "matroska", "asf", "flac", "wav", "caf", "tta", "wv", "ape", "au"}


Piece = tuple[int, np.ndarray]  # sampling rate, mono samples


class AudioError(UserError, ValueError):
    """Bytes that are not audio, or audio that cannot be used; the message says why.

    Attributes:
        reason: the same in two words, to count many clips.
    """

    def __init__(self, message: str, reason: str = "undecodable audio"):
        super().__init__(message)
        self.reason = reason


def _mono(samples: np.ndarray) -> np.ndarray:
    """Return the mean of the channels of (samples, channels), or the first if they cancel out."""
    if not np.isfinite(samples).all():
        # A float WAV may contain NaN; one such clip turns every weight into NaN.
        raise AudioError("it holds samples that are not finite")
    mean = samples.mean(axis=1)
    # If a cable is wired the wrong way round, one channel is the inverse of the other.
    if samples.shape[1] == 2 and np.square(mean).mean() < 1e-3 * np.square(samples).mean():
        return np.ascontiguousarray(samples[:, 0])
    return mean


def _check_rate(rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"its sampling rate of {rate} Hz is none of sound")


def _by_libsndfile(file: soundfile.SoundFile) -> Iterator[Piece]:
    # soundfile seeks after every read, and after a seek an MP3 decoder leaves out almost half a
    # second.
    file.seekable = lambda: False
    _check_rate(file.samplerate)
    frames = max(1, min(10 * file.samplerate, (1 << 22) // file.channels))
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        yield file.samplerate, _mono(block)


def _frame_samples(frame: av.AudioFrame) -> np.ndarray:
    """Return a decoded frame as float32 in [-1, 1], shape (samples, channels)."""
    data = frame.to_ndarray()
    channels = frame.layout.nb_channels
    data = data.T if frame.format.is_planar else data.reshape(-1, channels)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return (data / float(-np.iinfo(data.dtype).min)).astype(np.float32)
    return data.astype(np.float32)


def _by_ffmpeg(box: av.container.InputContainer) -> Iterator[Piece]:
    stream = box.streams.best("audio")
    if stream.codec_context is None:  # a header may name a codec that nobody knows
        raise AudioError("its sound is of a kind that FFmpeg has no decoder for")
    stream.codec_context.options = {"max_samples": str(1 << 22)}  # of one frame
    packets = bad = 0
    is_last_bad = False
    for packet in box.demux(stream):
        packets += 1
        try:
            frames = packet.decode()
            if packet.size:  # the last one is empty, and flushes the decoder
                is_last_bad = packet.is_corrupt
        except av.error.InvalidDataError:
            bad, is_last_bad = bad + 1, True
            continue
        for frame in frames:
            _check_rate(frame.sample_rate)
            yield frame.sample_rate, _mono(_frame_samples(frame))
    # A packet of plain samples has no end to miss: a file without a length in its header is whole.
    if is_last_bad and not stream.codec_context.name.startswith("pcm_"):
        raise AudioError("it is cut off: its last packet is not whole", "cut-off audio")
    if bad > 0.05 * packets:
        raise AudioError(f"it is damaged: {bad} of {packets} packets cannot be decoded")


def _written_seconds(box: av.container.InputContainer) -> float | None:
    """Return the duration stored in a container of FFmpeg's, None if it is a guess."""
    stream = box.streams.best("audio")
    if not LENGTH_IS_WRITTEN & set(box.format.name.split(",")):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # A video container's duration may be that of the picture.
    return box.duration / 1e6 if box.duration and len(box.streams) == 1 else None


@contextmanager
def open_decoder(file: BinaryIO) -> Iterator[tuple[float | None, Iterator[Piece]]]:
    """Open a file of audio and yield its duration by the header (or None), and its pieces.

    Raises:
        AudioError, soundfile.SoundFileError, av.FFmpegError: it cannot be decoded.
    """
    known = promises_length(read_head(file))
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.SoundFileError:
        sound = None
    # A duration of 0 means that the header was never filled in: FFmpeg decodes to the end.
    if sound is not None and sound.frames and (known or has_constant_rate(file, sound.frames)):
        with sound:
            seconds = sound.frames / sound.samplerate
            yield seconds if known and seconds < DAY else None, _by_libsndfile(sound)
        return
    file.seek(0)
    options = {"format_whitelist": FORMATS}
    with av.open(file, options=options, metadata_errors="ignore") as box:
        if not box.streams.best("audio"):
            raise AudioError("no stream of it is audio")
        yield _written_seconds(box), _by_ffmpeg(box)
