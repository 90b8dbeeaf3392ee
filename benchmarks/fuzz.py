"""Malformed inputs for every loader: each gets a result or one sentence, no traceback, no hang.

`python -m benchmarks.fuzz` makes the same inputs from the same seed. The ratio is the share of them
that ended in a result or in a sentence of the project's own.
"""

import argparse
import io
import json
import random
import re
import resource
import signal
import struct
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.streaming.test_annotations import ASS
from tests.streaming.test_annotations import FORMATS as ANNOTATED
from utils.artifacts import STAGES, Run, require
from utils.config import UserError, load_recipe
from utils.demo.kept import UnusableRecording, kept_rows, read_chunk, read_recording
from utils.evaluation.plotting import draw_speech
from utils.evaluation.readers import read_journal
from utils.export.privacy import scrub
from utils.preprocessing.quality import Unusable, check_text
from utils.scoring.predictions import load_predictions
from utils.streaming.common_voice import read_clips
from utils.streaming.parts import read_audio
from utils.streaming.recordings import read_recordings
from utils.streaming.sound import AudioError, decode_audio
from utils.text import normalize
from utils.training.progress import read_metrics
from utils.whisper.captions import FORMATS, Segment

TARGET = "at least 6,000 inputs, every one a result or a sentence, no hang, below 1 GiB; 2 cores"
HANG_SECONDS = 20
# What a loader may say; anything else would reach the shell as a traceback.
SENTENCES = (UserError, AudioError, UnusableRecording, Unusable, OSError)
NASTY = (
    *("nan", "inf", "-inf", "-1", "0", "1e30", "-1e-30", "2147483648", "9" * 5000, "1" * 400),
    *('""', '"x"', '"\\u0000"', '"4e-5"', '"${HOME}"', '"../../etc"', '"/"', '"~"', '"a\\nb"'),
    *("true", "[]", "{}", "[[]]", "1979-05-27", "[1, 'a']", "'''\n'''", "[" * 5000, "{a.b.c = 1}"),
)
TIMES = re.compile(r"\d+[.,]\d+|\d+")
RECIPES = sorted(Path("recipes").glob("*.toml"))


class Hang(BaseException):
    """An input took longer than anybody waits."""


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Return bytes that were cut, flipped, doubled, zeroed, shuffled or filled with noise."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 3, 10))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 2, 4, 16, 400)))
        data[at:end] = draw.choice(
            (
                b"",
                bytes(end - at),
                b"\xff" * (end - at),
                draw.randbytes(end - at),
                bytes(data[at:end]) * 2,
                draw.choice(("\u2028", "\ud800\udc00", "\ufeff", '"', "\t", "\n\n", "\\")).encode(
                    "utf-16-le", "surrogatepass"
                ),
                draw.choice(
                    (b"\x00", b'"', b",", b"\n", b"nan", b"1e999", b"-1", b"\xc3", b"/../")
                ),
            )
        )
    if draw.random() < 0.2:
        del data[draw.randrange(len(data) + 1) :]
    return bytes(data)


def any_text(draw: random.Random) -> str:
    """Return a text that nobody types."""
    pieces = (
        *(
            "$x^$",
            r"$\nothing$",
            "$",
            "{}",
            "%s",
            "<b>",
            "&amp;",
            "\u202e",
            "\u0000",
            "\u2028",
            "é",
        ),
        *(
            "-->",
            "|",
            "\ud83d\ude00",
            "ไทย",
            "中文",
            "\u0301",
            "<|endoftext|>",
            "<|it|>",
            "a" * 3000,
        ),
        *(
            "1,000.5",
            "٣",
            "½",
            "\n\n",
            "../",
            "#",
            "`",
            "\x1b[31m",
            "ß",
            "İ",
            "\ufffd",
            "WORD word",
        ),
    )
    return "".join(draw.choice(pieces) for _ in range(draw.randrange(8)))


def recipe_texts(draw: random.Random) -> Iterator[bytes]:
    """Yield recipes of which a value or some bytes are others."""
    texts = [path.read_text(encoding="utf-8") for path in RECIPES]
    while True:
        text = draw.choice(texts)
        lines = text.split("\n")
        keys = [number for number, line in enumerate(lines) if " = " in line]
        number, value = draw.choice(keys), draw.choice(NASTY)
        choice = draw.random()
        if choice < 0.5:
            lines[number] = f"{lines[number].split(' = ')[0]} = {value}"
        elif choice < 0.7:
            from transformers import Seq2SeqTrainingArguments

            fields = sorted(Seq2SeqTrainingArguments.__dataclass_fields__)
            at = next(n for n, line in enumerate(lines) if line.startswith("[training]"))
            lines.insert(at + 1, f"{draw.choice(fields)} = {value}")
        else:
            yield mutate(text.encode(), draw)
            continue
        yield "\n".join(lines).encode("utf-8", "replace")


def manifests(draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of manifests that something went wrong with."""
    table = [["file_name", "text", "start", "end", "split"]]
    table += [[f"{n}.wav", f"testo {n}", str(n / 10), "1.5", "train"] for n in range(4)]
    while True:
        suffix = draw.choice((".csv", ".tsv", ".jsonl"))
        if suffix == ".jsonl":
            text = "\n".join(json.dumps(dict(zip(table[0], row, strict=True))) for row in table[1:])
            text = text.replace('"1.5"', draw.choice(("1e308", "NaN", "[]", "null", "[" * 3000)))
            text = text.replace("testo 1", draw.choice(("\\ud800", "a" * 300_000, "\\u0000")))
        else:
            mark = "," if suffix == ".csv" else "\t"
            text = "\n".join(mark.join(row) for row in table)
            text = text.replace("testo 2", draw.choice(('"', "a" * 200_000, "b,c", "\0")))
            text = text.replace("1.5", draw.choice(("1e308", "nan", "-1", "1,5", "x")))
            text = text.replace(
                "3.wav", draw.choice(("n" * 300 + ".wav", "../x.wav", "", "\0.wav"))
            )
        data = text.encode("utf-8", "surrogatepass")
        yield f"metadata{suffix}", mutate(data, draw) if draw.random() < 0.6 else data


def annotations(draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of damaged annotations beside `talk.wav`, and of lists that name it."""
    lists = {
        "list.stm": "talk 1 anna 0.0 1.5 <o,f0,female> Prima.\ntalk 1 ugo 1.5 2.5 Seconda.\n",
        "list.transcription": "<s> Prima frase. </s> (talk)\n",
        "data.list": '{"key": "1", "wav": "talk.wav", "txt": "Prima frase."}\n',
        "test.txt": "talk.wav, Prima frase.\n",
    }
    whole = list((ANNOTATED | {"talk.ass": ASS} | lists).items())
    while True:
        name, text = draw.choice(whole)
        times = TIMES.findall(text)  # none in most lists
        for found in draw.sample(times, min(draw.randrange(2), len(times))):
            text = text.replace(found, draw.choice(("-1", "9" * 30, "nan", "1e308", "x", "")))
        data = text.encode()
        yield name.replace(".mp3", ""), mutate(data, draw) if draw.random() < 0.7 else data


def sounds(draw: random.Random) -> Iterator[bytes]:
    """Yield sound files with damaged bytes, above all in their heads."""
    tone, whole = 0.3 * np.sin(np.arange(8000) / 9), []
    for kind, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", None)):
        for rate in (8000, 44_100):
            file = io.BytesIO()
            soundfile.write(file, tone, rate, format=kind, subtype=subtype)
            whole.append(file.getvalue())
    file = io.BytesIO()
    soundfile.write(file, tone, 16_000, format="MP3")
    whole.append(file.getvalue())
    numbers = (0, 1, 2, 7, 255, 1024, 8000, 65_535, 655_350, 10**9, 2**31 - 1, 2**32 - 1)
    while True:
        data = draw.choice(whole)
        choice = draw.random()
        if choice < 0.3:  # a header that says any rate, channels and length
            rate, size = draw.choice(numbers), draw.choice(numbers)
            channels, bits = draw.choice(numbers) & 0xFFFF, draw.choice((0, 4, 8, 16, 24, 32, 64))
            head = struct.pack("<HHIIHH", draw.choice((1, 3, 85)), channels, rate, 0, 4, bits)
            body = b"WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", size)
            yield b"RIFF" + struct.pack("<I", size) + body + draw.randbytes(4000)
        elif choice < 0.7:
            yield mutate(data[:64], draw) + data[64:]
        else:
            yield mutate(data, draw)


def archives(draw: random.Random) -> Iterator[bytes]:
    """Yield archives of Common Voice, cut off or with other tables."""
    while True:
        heads = ["client_id\tpath\tsentence", "clip\tduration[ms]"]
        rows = "".join(f"{n}\tc{n}.mp3\tTesto {n}.\n" for n in range(3))
        lengths = "".join(f"c{n}.mp3\t{draw.choice(('1000', 'x', '', 'nan'))}\n" for n in range(3))
        if draw.random() < 0.4:
            heads[0] = draw.choice(("path\tsentence", "a\tb\tc", "", "client_id\tpath", "sentence"))
        files = {
            "cv/it/train.tsv": f"{heads[0]}\n{rows}",
            "cv/it/dev.tsv": "",
            "cv/it/test.tsv": "",
        }
        files["cv/it/clip_durations.tsv"] = f"{heads[1]}\n{lengths}"
        if draw.random() < 0.3:
            spoken = draw.choice(
                ("split\taudio_file\ttranscription", "audio_file\tduration_ms", "x")
            )
            files = {"cv/ss-corpus-it.tsv": f"{spoken}\ntrain\tc0.mp3\tTesto\n"}
        encoding = draw.choice(("utf-8", "utf-8", "utf-16"))
        contents = {name: text.encode(encoding) for name, text in files.items()}
        contents |= {f"cv/it/clips/c{n}.mp3": draw.randbytes(3000) for n in range(3)}
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=draw.choice(("w:gz", "w", "w:xz"))) as tar:
            for name, data in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        data = file.getvalue()
        choice = draw.random()
        yield data[: draw.randrange(len(data))] if choice < 0.5 else mutate(data, draw)


def reports(draw: random.Random) -> Iterator[bytes]:
    """Yield JSON, or what a crash or an editor has left of it."""
    row = {
        "step": 1,
        "loss": 0.5,
        "text": "è",
        "file_name": "a.wav",
        "files": {"model/x": [1, "a"]},
    }
    texts = [
        json.dumps(row),
        json.dumps([row]),
        f"{json.dumps(row)}\n" * 3,
        "null",
        "[]",
        "1",
        '"x"',
    ]
    while True:
        choice = draw.random()
        if choice < 0.3:
            yield draw.choice((b"", b"\0" * 40, b"{}", b"[1]", b"null", b"[" * 9000, b"\xff\xfe{}"))
        elif choice < 0.5:
            broken = {**row, draw.choice(list(row)): draw.choice((None, [], {}, "x", -1, 1e308))}
            yield (json.dumps(broken) + "\n").encode() * draw.choice((1, 2))
        else:
            yield mutate(draw.choice(texts).encode(), draw)


def loaders(folder: Path, draw: random.Random) -> dict[str, tuple[int, Iterator, Callable]]:
    """Return by name: the share of inputs in 100, the inputs, and what loads one."""

    def written(name: str, load: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def run(data: bytes) -> None:
            path = folder / name
            path.write_bytes(data)
            load(path)

        return run

    def manifest(given: tuple[str, bytes], sound: str = "0.wav") -> None:
        place = folder / "recordings"
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        soundfile.write(place / sound, np.zeros(8000), 8000)
        (place / given[0]).write_bytes(given[1])
        for recording in read_recordings(str(place), "it"):
            read_audio(recording)

    def report(data: bytes) -> None:
        run, stage = Run(folder / "run"), draw.choice(STAGES)
        run.folder.mkdir(exist_ok=True)
        run.report(stage).write_bytes(data)
        require(run, stage)

    def lines(path: Path) -> None:
        for load in (read_metrics, load_predictions, lambda one: read_journal(one, {})):
            try:
                load(path)
            except SENTENCES:
                continue
        kept = folder / "kept"
        kept.mkdir(exist_ok=True)
        (kept / "metadata.jsonl").write_bytes(path.read_bytes())
        kept_rows(kept)

    def texts(text: str) -> None:
        for language in ("it", "th", "zh", "ar", "en", "tr"):
            normalize(text, language)
        check_text(text, "it", RULES)

    def titles(text: str) -> None:
        figure = draw_speech(np.zeros(1600, np.float32), np.zeros((80, 10), np.float32), text)
        figure.savefig(io.BytesIO(), format="svg")

    def written_captions(text: str) -> None:
        parts = [Segment(0.0, draw.choice((1.0, 1e6)), text)]
        for write in FORMATS.values():
            write(parts)
        scrub(text)

    RULES = load_recipe(RECIPES[0]).preprocessing
    any_texts = iter(lambda: any_text(draw), None)
    sound = sounds(draw)
    first = io.BytesIO()
    soundfile.write(first, np.zeros(8000), 8000, format="WAV")
    decode_audio(first.getvalue())  # librosa imports numba at its first call, which takes seconds
    return {
        "recipes": (14, recipe_texts(draw), written("fuzz.toml", load_recipe)),
        "manifests": (14, manifests(draw), manifest),
        "annotations": (8, annotations(draw), partial(manifest, sound="talk.wav")),
        "archives": (8, archives(draw), written("cv.tar", lambda p: [*read_clips(p, "train")])),
        "sound": (20, sound, decode_audio),
        "uploads": (10, sound, written("upload.wav", lambda p: read_recording(str(p)))),
        "chunks": (4, sound, written("chunk.wav", lambda p: read_chunk(str(p)))),
        "reports": (7, reports(draw), report),
        "json lines": (6, reports(draw), written("lines.jsonl", lines)),
        "texts": (6, any_texts, texts),
        "captions": (2, any_texts, written_captions),
        "titles": (1, any_texts, titles),
    }


def fuzz(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Try inputs on every loader; return a row for each with what came of them."""
    draw, rows = random.Random(seed), []

    def ring(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name, (share, inputs, load) in loaders(Path(folder), draw).items():
            came, faults, slowest = Counter(), {}, 0.0
            for _ in range(max(1, count * share // 100)):
                given, started = next(inputs), time.monotonic()
                signal.alarm(HANG_SECONDS)
                try:
                    load(given)
                    came["result"] += 1
                except SENTENCES as problem:
                    came["sentence"] += 1
                    if len(str(problem)) > 3000 or not str(problem).strip():
                        faults.setdefault("no sentence", repr(problem)[:200])
                        came["raw"] += 1
                except (Hang, Exception) as problem:
                    came["hang" if isinstance(problem, Hang) else "raw"] += 1
                    where = traceback.extract_tb(problem.__traceback__)
                    ours = [one for one in where if "/utils/" in one.filename] or where
                    at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
                    key = f"{type(problem).__name__} at {at}"
                    faults.setdefault(key, f"{problem!s:.120} | {given!r:.160}")
                finally:
                    signal.alarm(0)
                slowest = max(slowest, time.monotonic() - started)
            counts = {key: came[key] for key in ("result", "sentence", "raw", "hang")}
            rows.append({"loader": name, "inputs": sum(came.values()), **counts})
            rows[-1] |= {"slowest_seconds": round(slowest, 1), "faults": faults}
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Try, print and save."""
    from benchmarks.common import save_result

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=6400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = fuzz(options.inputs, options.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    total = sum(row["inputs"] for row in rows)
    good = sum(row["result"] + row["sentence"] for row in rows) / total
    print(f"{total} inputs, {good:.2%} well, {peak:.2f} GiB at most")
    share = {"median": good, "low": good, "high": good}
    print("wrote", save_result("fuzz", TARGET, share, rows, on_cpu=True, peak_gib=round(peak, 2)))


if __name__ == "__main__":
    main()
