"""How much is luck, and what do batches at 30 s buy? The default recipe with several seeds.

A seed decides which clips meet in a batch, in which order and how they are augmented; weights,
data and recipe are the same. `--stock-shares` trains each seed with several shares of batches at
30 s ([audio_context] stock_share); 1 is the usual training, with every clip at 30 s. Before
training the clips are decoded at 30 s, after it at 30 s, as other programs do, and in the short
window. The errors of a clip are added over the seeds before clips are drawn: intervals are of the
mean over the seeds. `from_first_arm` is the WER at 30 s less that of the first share, with its
interval: it says what differences this many clips can show. If the last share is 1,
`short_from_last_arm` is the WER in the short window less that of the last share at 30 s: two ways
to train, each in its own window. Each training is stored as soon as it is measured: an interrupted
run goes on. The ratio is the first source's word errors before over those after, at 30 s, with the
first share.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import load_from_disk
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from benchmarks.common import error_ratio, prepare_once, save_result
from utils.artifacts import digest, write_atomically
from utils.config import Recipe, load_recipe
from utils.environment.machine import device
from utils.evaluation.curve_points import Point
from utils.evaluation.learning_curve import Splits, test_rows, train_point
from utils.preprocessing.examples import digest_of_clips
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import paired_p_value, rate_with_interval, resampled_rates
from utils.training.dev import count_dev_errors
from utils.training.memory import release
from utils.whisper.load import load_model

TARGET = "every seed takes a third off the trained speaker's WER at 30 s; the held-out one's falls"
WINDOWS = ("30s", "short")


def count_windows(
    recipe: Recipe,
    splits: Splits,
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    windows: tuple[str, ...] = WINDOWS,
) -> dict[str, Any]:
    """Return `count_errors` of the test clips, words, at each window."""
    context = {"30s": None, "short": replace(recipe.audio_context, enabled=True)}
    return {
        window: count_dev_errors(model, processor, splits.tested, recipe, context[window])[
            "wer"
        ].tolist()
        for window in windows
    }


class Job(NamedTuple):
    """One training."""

    recipe: Recipe
    seed: int
    steps: int
    splits: Splits


def train_and_count(job: Job, folder: Path) -> dict[str, Any]:
    """Train once, on all clips; return `count_windows`. The folder is gone afterwards."""
    point = Point(0, job.seed, tuple(range(len(job.splits.train))), job.steps)
    model, processor = train_point(job.recipe, point, job.splits, folder)
    counts = count_windows(job.recipe, job.splits, model, processor)
    del model
    release()
    shutil.rmtree(folder)
    return counts


def stored(path: Path, made_from: dict[str, str], count: Callable[[], Any]) -> dict[str, Any]:
    """Return what was counted before from the same recipe and clips, else count and store it."""
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if told.get("made_from") != made_from:
        told = {"made_from": made_from, **count()}
        write_atomically(path, json.dumps(told) + "\n")
    said = {window: error_rate(np.array(told[window])) for window in WINDOWS if window in told}
    print(path.stem, {window: f"{rate:.1%}" for window, rate in said.items()}, flush=True)
    return told


def rates(errors: list[np.ndarray], resamples: int) -> dict[str, Any]:
    """Return the mean rate over the seeds, its interval, and the rate of each seed."""
    found = rate_with_interval("wer", np.sum(errors, axis=0), resamples)
    return found | {"wers": [error_rate(one) for one in errors]}


def apart(first: np.ndarray, other: np.ndarray, resamples: int) -> dict[str, float]:
    """Return by how much the second rate is higher, on the same clips, with a 95 % interval."""
    drawn = [resampled_rates(one, resamples, seed=0) for one in (first, other)]
    low, high = np.percentile(drawn[1] - drawn[0], [2.5, 97.5])
    return {"apart": error_rate(other) - error_rate(first), "low": low, "high": high}


def summarize(
    found: Mapping[str, list[dict[str, Any]]],
    before: dict[str, Any],
    sources: np.ndarray,
    resamples: int,
    last_is_stock: bool,
) -> list[dict[str, Any]]:
    """Return a row for each arm and each source.

    Args:
        found: `count_windows` of each seed, by arm.
        before: the same of the untrained model, at 30 s alone.
        sources: of each clip.
        resamples: of intervals and tests.
        last_is_stock: the last arm was trained at 30 s alone: short windows are compared with it.
    """
    rows, arms = [], list(found.values())
    for arm, seeds in found.items():
        for source in dict.fromkeys(sources.tolist()):
            own = sources == source
            start = np.array(before["30s"])[own]
            errors = {window: [np.array(seed[window])[own] for seed in seeds] for window in WINDOWS}
            first, last = (
                np.sum([np.array(seed["30s"])[own] for seed in seeds], axis=0)
                for seeds in (arms[0], arms[-1])
            )
            pooled, short = (np.sum(errors[window], axis=0) for window in WINDOWS)
            rows.append(
                {"arm": arm, "source": source, "clips": int(own.sum())}
                | {"seeds": len(seeds), "wer_before": error_rate(start)}
                | {f"at_{window}": rates(errors[window], resamples) for window in WINDOWS}
                | {"p_value": paired_p_value(start * len(seeds), pooled, resamples)}
                | {"from_first_arm": apart(first, pooled, resamples)}
            )
            if last_is_stock:
                rows[-1]["short_from_last_arm"] = apart(last, short, resamples)
    return rows


def seeds_parser(text: str, runs: str) -> argparse.ArgumentParser:
    """Return the options that all comparisons of trainings have."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/embedded.toml"))
    parser.add_argument("--runs", type=Path, default=Path(runs), help="what is done so far")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of each training; 0: the recipe's")
    parser.add_argument("--clips", type=int, default=0, help="of each test source; 0: all")
    return parser


def compare_arms(name: str, target: str, arms: Mapping[str, Recipe], asked: Any) -> None:
    """Train each arm with each seed, measure, print and save.

    Args:
        name: of the benchmark's module.
        target: what it should reach, in a sentence.
        arms: variants of one recipe by name; the others are compared with the first.
        asked: what `seeds_parser` parsed.
    """
    recipe = next(iter(arms.values()))
    run = prepare_once(recipe, asked.runs)
    base, processor = load_model(recipe)
    whole = load_from_disk(str(run.prepared))
    splits = Splits(whole["train"], whole["dev"], test_rows(whole, recipe, asked.clips))
    steps = asked.steps or recipe.training["max_steps"]
    made_from = {"recipe": digest(recipe.path), "tested": digest_of_clips(splits.tested)}

    base.to(device())
    before = stored(
        run.folder / "before.json",
        made_from,
        lambda: count_windows(recipe, splits, base, processor, WINDOWS[:1]),
    )
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for seed in range(asked.seeds):
        for arm, changed in arms.items():
            place = run.folder / f"{arm.replace(' ', '-')}-seed{seed}-{steps}steps"
            count = partial(train_and_count, Job(changed, seed, steps, splits), place)
            told = stored(place.with_name(f"{place.name}.json"), made_from, count)
            found[arm].append(told)
    sources = np.array(splits.tested["source"][:])
    *_, last = arms.values()
    last_is_stock = not last.audio_context.enabled
    rows = summarize(found, before, sources, recipe.evaluation.resamples, last_is_stock)
    for row in rows:
        print(row)
    own = sources == sources[0]
    after = np.sum([np.array(seed["30s"])[own] for seed in next(iter(found.values()))], axis=0)
    ratios = error_ratio(np.array(before["30s"])[own] * asked.seeds, after)
    print("wrote", save_result(name, target, ratios, rows))


def main() -> None:
    """Compare shares of batches at 30 s."""
    parser = seeds_parser(__doc__, "runs/seeds")
    parser.add_argument("--stock-shares", type=float, nargs="+", help="default: the recipe's")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    own = recipe.audio_context
    arms = {
        f"stock_share {share:g}": replace(
            recipe, audio_context=replace(own, stock_share=share, enabled=own.enabled and share < 1)
        )
        for share in options.stock_shares or [own.stock_share]
    }
    compare_arms("seeds", TARGET, arms, options)


if __name__ == "__main__":
    main()
