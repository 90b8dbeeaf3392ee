"""From an encoded clip to log-mel, as the stock recipe does it, beside ours: one core, one run.

Stock: `datasets.Audio` decodes and resamples, `WhisperFeatureExtractor` makes a 30 s log-mel of
each clip. Ours: `decode_audio`, and one log-mel for a batch at the context that its clips need.
Stock needs an FFmpeg that torchcodec finds.
"""

import argparse
import io
import time
from collections.abc import Callable

import librosa
import numpy as np
import soundfile
import torch
from datasets import Audio
from transformers import WhisperFeatureExtractor, WhisperProcessor

from benchmarks.common import ratio, save_result
from utils.config import Source
from utils.embedded.fetch import resolve
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.features import log_mel

TARGET = "at least as fast for every format, twice as fast for two of them; clips of 5 s, one core"
RATE = 48_000  # Hz: what browsers and Common Voice record at
FORMATS = {
    "WAV": ("WAV", "PCM_16"),
    "FLAC": ("FLAC", "PCM_16"),
    "MP3": ("MP3", "MPEG_LAYER_III"),
    "Opus": ("OGG", "OPUS"),
}


def speech_clips(count: int, seconds: int) -> list[np.ndarray]:
    """Return stretches of the embedded Czech speech, at 48 kHz."""
    rows = stream(Source("embedded", "cs", "big"), "train").take(4 * count)
    speech = np.concatenate([decode_audio(row["audio"]) for row in rows])
    length = seconds * SAMPLING_RATE
    return [
        librosa.resample(
            speech[first : first + length],
            orig_sr=SAMPLING_RATE,
            target_sr=RATE,
            res_type="soxr_hq",
        )
        for first in range(0, count * length, length)
    ]


def encode(samples: np.ndarray, file_format: str, subtype: str) -> bytes:
    """Return the samples as an encoded file."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=file_format, subtype=subtype)
    return file.getvalue()


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call: other programs on the machine do not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=16, help="in a batch")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)

    folder = resolve("embedded/whisper-base")
    processor = WhisperProcessor.from_pretrained(folder)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    audio = Audio(sampling_rate=SAMPLING_RATE)
    clips = speech_clips(options.clips, options.seconds)

    def stock(files: list[bytes]) -> None:
        for data in files:
            decoded = audio.decode_example({"bytes": data, "path": None})
            extractor(decoded["array"], sampling_rate=SAMPLING_RATE, return_tensors="pt")

    def ours(files: list[bytes]) -> None:
        log_mel(processor, [decode_audio(data) for data in files], options.seconds)

    rows = []
    for name, (file_format, subtype) in FORMATS.items():
        files = [encode(samples, file_format, subtype) for samples in clips]
        stock(files)
        ours(files)
        times: dict[str, list[float]] = {"stock": [], "ours": []}
        for _ in range(options.rounds):
            times["stock"].append(cpu_seconds(lambda files=files: stock(files)))
            times["ours"].append(cpu_seconds(lambda files=files: ours(files)))
        measured = ratio(times["stock"], times["ours"])
        print("{}: {median:.2f} times as fast ({low:.2f}–{high:.2f})".format(name, **measured))
        rows.append(
            {
                "format": name,
                "clips": options.clips,
                "seconds_per_clip": options.seconds,
                "clips_per_core_second": {
                    arm: round(options.clips / float(np.median(spent)), 1)
                    for arm, spent in times.items()
                },
                "ratio": measured,
            }
        )
    slowest = min(rows, key=lambda row: row["ratio"]["median"])
    print("wrote", save_result("decode", TARGET, slowest["ratio"], rows, on_cpu=True))


if __name__ == "__main__":
    main()
