"""How fast a folder is read in each layout, next to a plain CSV; and the memory of a long one.

`python -m benchmarks.layouts` makes 2,000 clips of 5 s in every layout, and a recording of three
hours with 2,000 cues. Reading is finding the clips, getting each one's bytes and their duration.
LibriSpeech is compared with a CSV of FLAC files: what is measured is the layout, not the format.
A clip with an .srt of its own is decoded and cut, not copied: its row is not in the ratio.
"""

import argparse
import json
import tempfile
import wave
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as parquet
import soundfile

from benchmarks.common import alternate, ratio, save_result
from utils.streaming.parts import read_audio
from utils.streaming.recordings import read_recordings

TARGET = (
    "every layout at 0.9 of the plain CSV's speed or more (ratio: of the slowest); 3 hours with "
    "2,000 cues: less than 500 MiB above start"
)
CLIPS, SECONDS, LONG_SECONDS = 2000, 5, 3 * 3600
PLAIN = {"LibriSpeech": "csv of FLAC"}  # what a layout is compared with, where not with "csv"
RATE = 16_000


def text(number: int) -> str:
    """Return a sentence of its own."""
    return f"Frase numero {number}, davvero."


def lines(make: Callable[[int], str], header: str = "") -> str:
    """Return a line for each clip."""
    return header + "".join(f"{make(number)}\n" for number in range(CLIPS))


def write_wav(path: Path, seconds: float) -> None:
    """Write noise, a minute at a time."""
    random = np.random.default_rng(0)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        for start in np.arange(0, seconds, 60):
            count = round(min(60, seconds - start) * RATE)
            file.writeframes(random.integers(-3000, 3000, count, np.int16).tobytes())


def layouts() -> Mapping[str, tuple[str, Mapping[str, str]]]:
    """Return for each layout the pattern of its sounds and its other files."""
    name = "1272-{n}-0001"
    known = {"audio_filepath": "c{n}.wav", "duration": SECONDS}
    return {
        "csv": (
            "c{n}.wav",
            {"metadata.csv": lines(lambda n: f'c{n}.wav,"{text(n)}"', "file_name,text\n")},
        ),
        "csv of FLAC": (
            "c{n}.flac",
            {"metadata.csv": lines(lambda n: f'c{n}.flac,"{text(n)}"', "file_name,text\n")},
        ),
        "tsv": (
            "c{n}.wav",
            {"metadata.tsv": lines(lambda n: f"c{n}.wav\t{text(n)}", "path\tsentence\n")},
        ),
        "jsonl": (
            "c{n}.wav",
            {
                "metadata.jsonl": lines(
                    lambda n: json.dumps({"file_name": f"c{n}.wav", "text": text(n)})
                )
            },
        ),
        "LJSpeech": (
            "wavs/c{n}.wav",
            {"metadata.csv": lines(lambda n: f"c{n}|{text(n)}|{text(n)}")},
        ),
        "NeMo": (
            "c{n}.wav",
            {
                "manifest.json": lines(
                    lambda n: json.dumps({**known, "audio_filepath": f"c{n}.wav", "text": text(n)})
                )
            },
        ),
        "LibriSpeech": (
            f"train-clean/{name}.flac",
            {"train-clean/1272.trans.txt": lines(lambda n: f"1272-{n}-0001 {text(n).upper()}")},
        ),
        "Kaldi": (
            "wav/c{n}.wav",
            {
                "train/text": lines(lambda n: f"c{n} {text(n)}"),
                "train/wav.scp": lines(lambda n: f"c{n} wav/c{n}.wav"),
            },
        ),
        "Label Studio": (
            "c{n}.wav",
            {
                "export.json": json.dumps(
                    [{"audio": f"c{n}.wav", "transcription": text(n)} for n in range(CLIPS)]
                )
            },
        ),
        "a .txt each": ("c{n}.wav", {f"c{n}.txt": text(n) for n in range(CLIPS)}),
        "an .srt each": (
            "c{n}.wav",
            {f"c{n}.srt": f"1\n00:00:00,000 --> 00:00:05,000\n{text(n)}\n" for n in range(CLIPS)},
        ),
    }


def fill(folder: Path, sounds: str, files: Mapping[str, str]) -> Path:
    """Write a folder: its sounds are one file under many names."""
    one = folder.parent / f"one{Path(sounds).suffix}"
    if not one.exists():
        soundfile.write(one, np.random.default_rng(0).normal(0, 0.1, SECONDS * RATE), RATE)
    for number in range(CLIPS):
        path = folder / sounds.format(n=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(one)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def read(folder: Path) -> int:
    """Read a folder as a stream does, and return how many of its clips have sound and text."""
    with redirect_stdout(StringIO()):  # what it says about splits
        found = read_recordings(str(folder), "it")
    return sum(bool(read_audio(one)[0] and one.text) for one in found)


def long_memory(folder: Path) -> float:
    """Return how many MiB reading three hours with 2,000 cues takes above the start."""
    write_wav(folder / "talk.wav", LONG_SECONDS)
    each = LONG_SECONDS / CLIPS

    def clock(seconds: float) -> str:
        return f"{int(seconds // 3600):02}:{int(seconds // 60 % 60):02}:{seconds % 60:06.3f}"

    cues = (f"{clock(n * each)} --> {clock((n + 0.8) * each)}\n{text(n)}\n\n" for n in range(CLIPS))
    (folder / "talk.vtt").write_text("WEBVTT\n\n" + "".join(cues), encoding="utf-8")
    process, most = psutil.Process(), 0.0
    start = process.memory_info().rss
    with redirect_stdout(StringIO()):
        for one in read_recordings(str(folder), "it"):
            assert read_audio(one)[0]
            most = max(most, process.memory_info().rss - start)
    return most / 2**20


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name.replace(" ", "_") for name in [*layouts(), "parquet"]}
        for name, (sounds, files) in layouts().items():
            fill(folders[name], sounds, files)
        rows = pa.table(
            {
                "file_name": [f"c{n}.wav" for n in range(CLIPS)],
                "text": list(map(text, range(CLIPS))),
            }
        )
        parquet.write_table(rows, fill(folders["parquet"], "c{n}.wav", {}) / "metadata.parquet")
        for name, folder in folders.items():
            assert read(folder) == CLIPS, f"{name}: clips are missing"
        times = alternate(
            {name: lambda at=at: read(at) for name, at in folders.items()}, options.rounds
        )
        long = Path(place) / "long"
        long.mkdir()
        memory = long_memory(long)
    speeds = {
        name: ratio(times[PLAIN.get(name, "csv")], seconds)
        for name, seconds in times.items()
        if not name.startswith("csv")
    }
    copied = [one for name, one in speeds.items() if name != "an .srt each"]
    slowest = min(copied, key=lambda one: one["median"])
    found: list[dict[str, Any]] = [{"layout": name, **one} for name, one in speeds.items()]
    found += [{"layout": "3 hours, 2,000 cues", "mib_above_start": round(memory, 1)}]
    print(*found, sep="\n")
    print("wrote", save_result("layouts", TARGET, slowest, found, on_cpu=True))


if __name__ == "__main__":
    main()
