"""What every benchmark does: alternate the contestants, and write the result in one shape."""

import ast
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets, load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import Run, open_run, require, save_report, write_atomically, write_json
from utils.config import AudioContext, Recipe
from utils.environment.machine import device, machine
from utils.environment.packages import versions
from utils.export.privacy import scrub
from utils.preprocessing.examples import waveform
from utils.preprocessing.prepare import prepare
from utils.scoring.predictions import count_row_errors
from utils.whisper.decoding import transcribe
from utils.whisper.load import load_model

RESULTS = Path(__file__).parent / "results"
# A GPU's results lie beside those of two CPU cores, and do not replace them.
PLACE = RESULTS / "gpu" if torch.cuda.is_available() else RESULTS


# Where processors are compared: a disk that stops for a while would be measured with them.
IN_MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # None: the usual place


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long one call takes, the GPU's queue included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def alternate(arms: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time contestants in turn, A B A B …, so that a machine that slows down slows all of them.

    Args:
        arms: name → one unit of work; each is called once before the rounds that count.
        rounds: how often each is timed.

    Returns:
        Seconds by name, one for each round.
    """
    for name, work in arms.items():
        print(f"once before: {name} {seconds_of(work):.2f} s", flush=True)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name, work in arms.items():
            times[name].append(seconds_of(work))
        line = ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in times.items())
        print(f"round {number + 1}/{rounds}: {line}", flush=True)
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Return how many times faster the second is: median, lowest and highest over the rounds."""
    ratios = np.asarray(slow) / np.asarray(fast)
    found = {"median": np.median(ratios), "low": ratios.min(), "high": ratios.max()}
    return {key: round(float(value), 3) for key, value in found.items()}


def error_ratio(before: np.ndarray, after: np.ndarray, resamples: int = 2000) -> dict[str, float]:
    """Return how many times the errors of two readings of the same clips are; clips are drawn.

    Args:
        before: of `count_errors`.
        after: likewise, clip by clip.
        resamples: of the bootstrap that gives low and high, a 95 % interval.
    """
    draws = np.random.default_rng(0).integers(0, len(before), (resamples, len(before)))
    sums = [counts[:, 0][draws].sum(axis=1) for counts in (before, after)]
    low, median, high = np.percentile(sums[0] / np.maximum(sums[1], 1), [2.5, 50, 97.5])
    return {"median": median, "low": low, "high": high}


def count_hypotheses(rows: Dataset, hypotheses: Sequence[str]) -> np.ndarray:
    """Return `count_errors` of hypotheses of prepared rows, words, normalised."""
    texts = zip(rows["text"][:], rows["language"][:], hypotheses, strict=True)
    told = [{"reference": said, "language": code, "hypothesis": text} for said, code, text in texts]
    return count_row_errors(told, "hypothesis", "word")


def count_test_errors(
    recipe: Recipe,
    prepared: Path,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    context: AudioContext | None,
    names: Sequence[str] = ("test",),
) -> np.ndarray:
    """Transcribe prepared splits, that of test alone by default; return `count_hypotheses`."""
    splits = load_from_disk(str(prepared))
    rows = concatenate_datasets([splits[name] for name in names])
    hypotheses = transcribe(
        model,
        processor,
        [waveform(row) for row in rows],
        language=rows["language"][:],
        context=context,
        batch_size=recipe.evaluation.batch_size,
    )
    return count_hypotheses(rows, hypotheses)


def prepare_once(recipe: Recipe, runs: Path) -> Run:
    """Return a recipe's run, prepared now unless it is: what was interrupted goes on in it."""
    run = open_run(recipe, runs)
    if not run.report("preprocessing").exists():
        prepare(recipe, load_model(recipe)[1].tokenizer, run.prepared)
        save_report(run, "preprocessing", {})
    return run


def open_prepared_run(recipe: Recipe, runs: Path, prepared: Path) -> Run:
    """Return a new run that trains on splits which several runs share."""
    run = open_run(recipe, runs)
    run.prepared.symlink_to(prepared)
    save_report(run, "preprocessing", {})
    return run


def open_trained(
    recipe: Recipe, runs: str
) -> tuple[Run, WhisperForConditionalGeneration, WhisperProcessor]:
    """Return a finished run with its fine-tuned model, in float32 on the GPU if there is one."""
    run = open_run(recipe, runs)
    require(run, "training")
    model = WhisperForConditionalGeneration.from_pretrained(run.model, dtype="float32")
    model.to(device())
    return run, model, WhisperProcessor.from_pretrained(run.model)


def save_result(
    name: str,
    target: str,
    ratios: Mapping[str, float],
    rows: list[dict],
    on_cpu: bool = False,
    **more: Any,
) -> Path:
    """Write NAME.json below `benchmarks/results` in the shape that all benchmarks share.

    Args:
        name: of the benchmark's module.
        target: what it should reach, in a sentence.
        ratios: median, low and high of the contestants' ratio.
        rows: one for each thing measured.
        on_cpu: whether a GPU of the machine had no part in it.
        more: what one benchmark has and the others have not.
    """
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    result = {
        "name": name,
        "date": datetime.date.today().isoformat(),
        "command": scrub(" ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])),
        "commit": commit,
        "machine": machine() | ({"gpu": None} if on_cpu else {}),
        "versions": versions(),
        "target": target,
        "ratio": {key: round(float(value), 3) for key, value in ratios.items()},
        "rows": rows,
        **more,
    }
    path = (RESULTS if on_cpu else PLACE) / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, result)
    write_atomically(RESULTS / "README.md", overview())
    return path


def overview() -> str:
    """Return all results as one Markdown page."""
    lines = [
        "# What was measured\n",
        "Written by the benchmarks themselves. The ratio is the contestants' median, with its "
        "lowest and highest value or a 95 % interval; each script's first lines say of what.\n",
        "| Benchmark | Asked for | Ratio | When, where | Command |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for path in sorted(RESULTS.rglob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        name, where = result["name"], result["machine"]
        script = ast.parse((RESULTS.parent / f"{name}.py").read_text(encoding="utf-8"))
        asks = ast.get_docstring(script).partition("\n")[0]
        place = where["gpu"] or f"{where['cores']} CPU cores"
        lines.append(
            f"| [{name}](../{name}.py): {asks} | {result['target']} | "
            "{median:.2f} ({low:.2f} to {high:.2f}) | ".format(**result["ratio"])
            + f"{result['date']}, {place} | `{result['command']}` |"
        )
    return "\n".join(lines) + "\n"
