"""The page under use: how soon it is there, how soon it answers, a crowd, and its memory.

`python -m benchmarks.demo` serves the page of a finished run in a process of its own, as a person
would, and asks it as a browser does. The ratio is the target of 3 s over the seconds of an answer.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import httpx
import numpy as np
import psutil
import soundfile
from gradio_client import Client, handle_file

from benchmarks.common import ratio, save_result, seconds_of
from utils.artifacts import Run
from utils.config import load_recipe
from utils.preprocessing.examples import waveform
from utils.whisper.audio_context import SAMPLING_RATE

TARGET = (
    "usable within 15 s of the start, 5 s of speech answered by both models in under 3 s, 20 at "
    "once answered or told to wait, memory flat after 100 requests; 2 cores"
)
PORT = 7899
ANSWER_SECONDS = 3.0
WEIGHED_EVERY = 20  # requests: one weighing alone cannot tell growth from an allocator's swing


def resident_mib(process: subprocess.Popen) -> float:
    """Return the memory that a process has in use."""
    return psutil.Process(process.pid).memory_info().rss / 2**20


def five_seconds(run: Run) -> np.ndarray:
    """Return clips of the test split one after another, cut at 5 s."""
    rows = datasets.load_from_disk(str(run.prepared))["test"]
    clips = [waveform(rows[index]) for index in np.argsort(rows["seconds"][:])[-3:]]
    return np.concatenate(clips)[: 5 * SAMPLING_RATE]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/embedded.toml")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--rounds", type=int, default=5, help="answers that are timed")
    parser.add_argument("--crowd", type=int, default=20, help="requests at once")
    parser.add_argument(
        "--requests", type=int, default=100, help="answers during which memory is weighed"
    )
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    run = Run(Path(options.runs) / recipe.name)
    url = f"http://127.0.0.1:{PORT}/"
    command = [sys.executable, "-m", "utils.demo", options.recipe, "--runs", options.runs]
    started = time.perf_counter()
    server = subprocess.Popen([*command, "--port", str(PORT)])
    try:
        while True:
            try:
                if httpx.get(url).status_code == 200:
                    break
            except httpx.TransportError:
                if server.poll() is not None:
                    raise SystemExit("The page ended before it answered.") from None
                time.sleep(0.1)
        usable = time.perf_counter() - started
        print(f"usable after {usable:.1f} s")

        client = Client(url, verbose=False, analytics_enabled=False)
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            soundfile.write(file.name, five_seconds(run), SAMPLING_RATE)
            question = handle_file(file.name), recipe.languages[0], "transcribe"

            def ask() -> None:
                client.predict(*question, api_name="/transcribe")

            ask()  # the first one warms up
            answers = [seconds_of(ask) for _ in range(options.rounds)]
            print("answers:", ", ".join(f"{seconds:.2f} s" for seconds in answers))

            jobs = [client.submit(*question, api_name="/transcribe") for _ in range(options.crowd)]
            problems = [str(problem) for job in jobs if (problem := job.exception(timeout=600))]
            told = sum("full" in problem for problem in problems)
            answered = options.crowd - len(problems)
            print(f"{options.crowd} at once: {answered} answered, {told} told to wait")

            weighed = [resident_mib(server)]
            for number in range(1, options.requests + 1):
                ask()
                if number % WEIGHED_EVERY == 0:
                    weighed.append(resident_mib(server))
            print("memory:", ", ".join(f"{mib:.0f} MiB" for mib in weighed))
    finally:
        server.terminate()
        server.wait()
    rows = [
        {"measure": "usable", "seconds": round(usable, 1)},
        {"measure": "answer", "seconds": [round(seconds, 2) for seconds in answers]},
        {
            "measure": "crowd",
            "requests": options.crowd,
            "answered": answered,
            "told_to_wait": told,
            "lost": len(problems) - told,
        },
        {
            "measure": "memory",
            "requests": options.requests,
            "every": WEIGHED_EVERY,
            "mib": [round(mib) for mib in weighed],
        },
    ]
    ratios = ratio([ANSWER_SECONDS] * len(answers), answers)
    print("wrote", save_result("demo", TARGET, ratios, rows))


if __name__ == "__main__":
    main()
