"""How fast clips are prepared with all cores over one, and what share of one core decodes.

`python -m benchmarks.prepare` makes MP3 clips of five seconds from the embedded speech. Usually
processes are started after the first thousand clips (`utils/preprocessing/parallel.py`); here at
once, and the time that they take to start is left out: what is compared is a data set of hours.
Two cores of a virtual machine may be one of a processor: how much faster all cores decode and do
nothing else is measured, too, and is what preparing can reach.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import IN_MEMORY, ratio, save_result
from benchmarks.decode import cpu_seconds, encode, speech_clips
from utils.config import Preprocessing, load_recipe
from utils.environment.machine import usable_cores
from utils.preprocessing import parallel
from utils.preprocessing.prepare import prepare_split
from utils.preprocessing.quality import QualityReport
from utils.streaming.sources import decode_audio
from utils.whisper.load import load_model

EDGE = 200  # clips at both ends that are not timed
TARGET = "at least 1.85 times with 2 processes; at least 75 % of one process decodes"


class TimedReport(QualityReport):
    """A report that remembers when each clip was kept."""

    def __init__(self, rules: Preprocessing):
        super().__init__(rules)
        self.times: list[float] = []

    def keep(self, *given: Any) -> None:
        """Keep, and remember when."""
        super().keep(*given)
        self.times.append(time.perf_counter())


def count_samples(file: bytes) -> int:
    """Decode a file and keep nothing of it."""
    return len(decode_audio(file))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parallel.INLINE = 1
    tokenizer = load_model(load_recipe("recipes/embedded.toml"))[1].tokenizer
    clips = speech_clips(64, 5)
    louder = np.linspace(0.5, 1, options.clips)  # the same sound twice would be dropped as a copy
    files = [
        encode(clips[number % len(clips)] * gain, "MP3", "MPEG_LAYER_III")
        for number, gain in enumerate(louder)
    ]
    rules = Preprocessing(drop_tested_sentences=False)
    # The first clips pay for imports, and at the end nothing is under way any more.
    first, last = EDGE, options.clips - EDGE

    def rows() -> Iterator[dict]:
        for number in range(options.clips):
            text, one = f"clip number {number}", files[number]
            yield {
                **{"audio": one, "text": text, "language": "en", "seconds": None, "source": "mp3"},
                **{"id": str(number), "speaker": "", "recording": ""},
            }

    def prepare_once(processes: int) -> float:
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            report = TimedReport(rules)
            prepare_split(rows(), tokenizer, Path(folder), report, processes=processes)
        return report.times[last] - report.times[first]

    def decode_once(processes: int) -> float:
        times = [
            time.perf_counter() for _ in parallel.map_in_order(count_samples, files, processes)
        ]
        return times[last] - times[first]

    cores = usable_cores()
    times: dict[int, list[float]] = {1: [], cores: []}
    bare: dict[int, list[float]] = {1: [], cores: []}
    for _ in range(options.rounds):
        for processes in times:
            times[processes].append(prepare_once(processes))
            bare[processes].append(decode_once(processes))
    decoding = cpu_seconds(lambda: [decode_audio(one) for one in files[:200]]) / 200
    alone = float(np.median(times[1])) / (last - first)
    found = ratio(times[1], times[cores])
    row = {
        "processes": cores,
        "clips": options.clips,
        "clips_per_second": {
            str(n): round((last - first) / float(np.median(s)), 1) for n, s in times.items()
        },
        "decoding_share_of_one_process": round(decoding / alone, 3),
        "decoding_alone": ratio(bare[1], bare[cores]),
    }
    print(row, found)
    print("wrote", save_result("prepare", TARGET, found, [row], on_cpu=True))


if __name__ == "__main__":
    main()
