"""How much speech does it take? A recipe trained with more and more of its own, one test set.

Each point trains on a random subset of the prepared training clips; the larger subsets of a seed
contain its smaller ones. All models decode the same test clips at 30 s, as other programs do. A
point is stored as soon as it is measured, and training resumes from its checkpoints: after an
interruption the same call goes on.
"""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets, load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import digest, open_run, save_report, write_atomically
from utils.config import Recipe, UserError
from utils.environment.machine import device
from utils.evaluation.curve_points import Bounds, Point, plan
from utils.preprocessing.examples import digest_of_clips
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import rate_with_interval
from utils.scoring.predictions import drawn
from utils.training.dev import count_dev_errors
from utils.training.memory import release
from utils.training.progress import progress_line
from utils.training.run import train
from utils.whisper.load import load_model

RATES = ("wer", "cer")


class Splits(NamedTuple):
    """What trainings that are compared have in common."""

    train: Dataset
    dev: Dataset
    tested: Dataset  # of `test_rows`


def test_rows(splits: DatasetDict, recipe: Recipe, clips: int) -> Dataset:
    """Return the clips that every point decodes: of each source in a trained language, spread."""
    chosen = []
    for split in ("test", "unseen"):
        rows = splits[split] if split in splits else splits["test"].select([])
        sources = np.array(rows["source"][:])
        for source in dict.fromkeys(sources.tolist()):
            places = np.flatnonzero(sources == source)
            if rows[int(places[0])]["language"] in recipe.languages:
                count = min(clips or len(places), len(places))
                spread = np.linspace(0, len(places) - 1, count).astype(int)
                chosen.append(rows.select(places[spread]))
    return concatenate_datasets(chosen)


def seeded(recipe: Recipe, point: Point) -> Recipe:
    """Return the recipe with a point's steps and seed; dev is decoded in the middle and at the end.

    All points warm up for a tenth of their steps.
    """
    changed = {"max_steps": point.steps, "warmup_steps": 0.1, "seed": point.seed}
    changed |= {"eval_steps": 0.5, "save_steps": 0.5}
    return replace(recipe, training={**recipe.training, **changed})


def train_point(
    recipe: Recipe, point: Point, splits: Splits, folder: Path
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Return the model that a point trains, on its device, and the processor.

    Args:
        recipe: the experiment.
        point: which subset; the model as it was if it has no steps.
        splits: the prepared ones.
        folder: for its run, from which an interrupted training resumes.
    """
    if not point.steps:
        model, processor = load_model(recipe)
        return model.to(device()), processor
    run = open_run(recipe, folder)
    if not run.report("preprocessing").exists():
        shutil.rmtree(run.prepared, ignore_errors=True)
        own = DatasetDict(train=splits.train.select(point.rows), dev=splits.dev)
        own.save_to_disk(str(run.prepared))
        save_report(run, "preprocessing", {})
    trainer = train(seeded(recipe, point), run, lambda *logs: say(f"  {progress_line(*logs)}"))
    return trainer.model, trainer.processing_class


def measure_point(recipe: Recipe, point: Point, splits: Splits, folder: Path) -> dict[str, Any]:
    """Train one point, decode the test clips at 30 s; return counts and seconds."""
    started = time.perf_counter()
    model, processor = train_point(recipe, point, splits, folder)
    trained = time.perf_counter()
    counts = count_dev_errors(model, processor, splits.tested, recipe, context=None)
    del model
    release()
    return {
        "train_seconds": round(trained - started, 1) if point.steps else 0,
        "decode_seconds": round(time.perf_counter() - trained, 1),
        **{rate: counts[rate].tolist() for rate in RATES},
    }


def learning_curve(
    recipe: Recipe, prepared: Path, folder: Path, bounds: Bounds
) -> list[dict[str, Any]]:
    """Train and measure every point that is not in the folder yet; return the curve.

    Args:
        recipe: the experiment.
        prepared: its splits, as lesson 3 stores them.
        folder: where each point is stored.
        bounds: of the cost.

    Returns:
        A row for each size and test source: `minutes`, `clips` and `steps` of training, `seeds`,
        `source`, `test_clips`, and `wer`, `wer_low`, `wer_high`, `wers` (of each seed), the same
        for `cer`. Intervals are of the mean over the seeds; speakers are drawn where there are
        enough of them, else clips.

    Raises:
        UserError: the training clips are streamed.
    """
    if not recipe.preprocessing.stored:
        raise UserError(f"{recipe.path}: a learning curve needs [preprocessing] stored = true.")
    whole = load_from_disk(str(prepared))
    splits = Splits(whole["train"], whole["dev"], test_rows(whole, recipe, bounds.clips))
    points = plan(splits.train, recipe, bounds)
    asked = {"recipe": digest(recipe.path), "tested": digest_of_clips(splits.tested)}
    found: list[dict[str, Any]] = []
    for number, point in enumerate(points, 1):
        path = folder / f"{point.name}.json"
        clips = digest_of_clips(splits.train.select(point.rows)) if point.rows else ""
        made_from = asked | {"trained": clips}
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if stored.get("made_from") != made_from:
            say(
                f"point {number} of {len(points)}: {point.minutes:g} minutes, {len(point.rows)} "
                f"clips, {point.steps} steps, seed {point.seed}{time_left(found, points, number)}"
            )
            measured = measure_point(recipe, point, splits, folder / point.name)
            stored = {"made_from": made_from, **measured}
            write_atomically(path, json.dumps(stored) + "\n")
        shutil.rmtree(folder / point.name, ignore_errors=True)
        found.append(stored)
        rates = (f"{rate.upper()} {error_rate(np.array(stored[rate])):.1%}" for rate in RATES)
        say(f"{point.minutes:g} minutes, seed {point.seed}: {', '.join(rates)} of all test clips")
    return summarize_points(points, found, splits.tested, recipe.evaluation.resamples)


def say(line: str) -> None:
    """Print at once, also into a file."""
    print(line, flush=True)


def time_left(found: Sequence[dict[str, Any]], points: Sequence[Point], number: int) -> str:
    """Return ", about N minutes left", as far as the points before tell; "" before the first."""
    steps = sum(point.steps for point in points[: number - 1])
    if not steps:
        return ""
    each = sum(one["train_seconds"] for one in found) / steps
    decoding = sum(one["decode_seconds"] for one in found) / len(found)
    left = points[number - 1 :]
    seconds = sum(each * point.steps + decoding for point in left)
    return f", about {math.ceil(seconds / 60)} minutes left"


def summarize_points(
    points: Sequence[Point], found: Sequence[dict[str, Any]], tested: Dataset, resamples: int
) -> list[dict[str, Any]]:
    """Return the rows of `learning_curve` from the counts of each point."""
    told = [
        {"source": source, "speaker": speaker}
        for source, speaker in zip(tested["source"][:], tested["speaker"][:], strict=True)
    ]
    rows = []
    for minutes in dict.fromkeys(point.minutes for point in points):
        same = [place for place, point in enumerate(points) if point.minutes == minutes]
        for source in dict.fromkeys(one["source"] for one in told):
            places = [place for place, one in enumerate(told) if one["source"] == source]
            row: dict[str, Any] = {"minutes": minutes, "clips": len(points[same[0]].rows)}
            row |= {"steps": points[same[0]].steps, "seeds": len(same)}
            row |= {"source": source, "test_clips": len(places)}
            for rate in RATES:
                counts = [np.array(found[one][rate])[places] for one in same]
                pooled = drawn([told[place] for place in places], np.sum(counts, axis=0))
                row |= rate_with_interval(rate, pooled, resamples)
                row[f"{rate}s"] = [error_rate(one) for one in counts]
            rows.append(row)
    return rows
