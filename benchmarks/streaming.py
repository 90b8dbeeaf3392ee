"""What a stream of 50,000 clips costs: seconds to the first one, memory, disk, and rows a second.

The Hub is the tests' on localhost: 50 shards of 1,000 clips, 5 s of MP3 each, the same 100 clips
under 500 names. The client is a process of its own with an empty cache. Clips are not decoded.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as parquet
import soundfile
from datasets import Audio, load_dataset

from benchmarks.common import alternate, ratio, save_result
from tests.hub_server import Hub
from utils.config import Source
from utils.streaming.sources import stream

TARGET = (
    "first row in under 2 s; 50,000 rows: resident memory grows by less than 200 MiB after the "
    "first 1,000, less than 1 GiB on disk; ratio: seconds of plain load_dataset over ours, for the "
    "same rows"
)
NAME, TEXT = "bench/speech", "sentence"
SOURCE = Source(NAME, "it", text_column=TEXT, dev="", test="")
SHARD_ROWS = 1000


def shard() -> bytes:
    """Return a parquet file of 1,000 rows in groups of 100, as the Hub recommends for audio."""
    noise = np.random.default_rng(0)
    clips = []
    for _ in range(100):
        file = io.BytesIO()
        soundfile.write(file, noise.normal(0, 0.1, 80_000), 16_000, format="MP3")
        clips.append(file.getvalue())
    rows = {
        "audio": [{"bytes": clips[n % 100], "path": f"{n}.mp3"} for n in range(SHARD_ROWS)],
        TEXT: [f"frase numero {n}" for n in range(SHARD_ROWS)],
    }
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(rows), sink, row_group_size=100)
    return sink.getvalue().to_pybytes()


def plain(rows: int) -> None:
    """Read as the library alone does: no schema, no commit, no patience."""
    stock = load_dataset(NAME, split="train", streaming=True)
    deque(islice(stock.cast_column("audio", Audio(decode=False)), rows), maxlen=0)


def client(rows: int, rounds: int) -> dict[str, Any]:
    """Stream from the Hub that the environment names, and return what it cost."""
    datasets.IterableDataset.from_generator(lambda: iter(()))  # imports torch: not what is timed
    started = time.perf_counter()
    next(iter(stream(SOURCE, "train")))
    told: dict[str, Any] = {"first_row_seconds": round(time.perf_counter() - started, 2)}
    memory = []
    for number, _ in enumerate(stream(SOURCE, "train"), 1):
        if number % SHARD_ROWS == 0:
            memory.append(psutil.Process().memory_info().rss / 2**20)
            print(f"{number} rows, {memory[-1]:.0f} MiB", file=sys.stderr, flush=True)
        if number == rows:
            break
    told |= {
        "rows": number,
        "resident_mib_at_1000": round(memory[0]),
        "resident_mib_highest": round(max(memory)),
        "growth_mib": round(max(memory) - memory[0], 1),
    }
    share = min(rows, 1000)
    arms = {
        "plain": lambda: plain(share),
        "ours": lambda: deque(islice(stream(SOURCE, "train"), share), maxlen=0),
    }
    return told | {"compared_rows": share, "seconds": alternate(arms, rounds)}


def folder_mib(folder: Path) -> float:
    """Return what a folder's files occupy, in MiB."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", action="store_true", help="what the benchmark itself starts")
    options = parser.parse_args()
    if options.client:
        sys.stdout, out = sys.stderr, sys.stdout  # what is printed on the way is no result
        print(json.dumps(client(options.rows, options.rounds)), file=out)
        return

    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(Path(folder) / "hub")
        try:
            first = Path(folder) / "shard.parquet"
            first.write_bytes(shard())
            count = options.rows // SHARD_ROWS
            names = [f"data/train-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
            hub.publish("datasets", NAME, dict.fromkeys(names, first))
            # The Hub knows the digests of its files; this server computes them when first asked.
            httpx.get(f"{hub.address}/api/datasets/{NAME}/tree/main?recursive=true", timeout=600)
            home = Path(folder) / "home"
            arguments = ["--client", f"--rows={options.rows}", f"--rounds={options.rounds}"]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.streaming", *arguments],
                env=hub.environment(home),
                stdout=subprocess.PIPE,
                check=True,
            )
            row = json.loads(done.stdout)
            row["disk_mib"] = round(folder_mib(home), 1)
            row["shard_mib"] = round(first.stat().st_size / 2**20, 1)
            row["served_mib"] = round(sum(entry["bytes"] for entry in hub.requests()) / 2**20)
        finally:
            hub.close()
    seconds = row.pop("seconds")
    row |= {f"{name}_seconds": [round(s, 2) for s in values] for name, values in seconds.items()}
    print(json.dumps(row, indent=2))
    print(
        "wrote", save_result("streaming", TARGET, ratio(seconds["plain"], seconds["ours"]), [row])
    )


if __name__ == "__main__":
    main()
