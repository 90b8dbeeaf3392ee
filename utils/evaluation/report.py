"""The evaluation report: what follows from the prediction rows, in numbers that JSON can hold."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import datasets
import numpy as np

from utils.config import Recipe, RecipeError
from utils.evaluation.mistakes import error_kinds, find_flags, frequent_errors
from utils.preprocessing.windows import cut
from utils.scoring.intervals import paired_p_value
from utils.scoring.predictions import (
    SUMMARY_KEYS,
    Row,
    count_kinds,
    count_row_errors,
    first_unit,
    measure,
    percent,
    speakers,
    summarize,
)
from utils.text import normalize, normalizer_name

SECONDS_BANDS = (1, 2, 5, 10)  # borders between the bands of a breakdown
SNR_BANDS = (20, 30, 40)
KINDS = ("texts", "clips")  # that two splits can share


def band(value: float, borders: Sequence[float], unit: str) -> str:
    """Return the name of the band that a value falls into: `2 to 5 s`."""
    number = int(np.searchsorted(borders, value, side="right"))
    if number == 0:
        return f"under {borders[0]} {unit}"
    if number == len(borders):
        return f"from {borders[-1]} {unit}"
    return f"{borders[number - 1]} to {borders[number]} {unit}"


def break_down(
    rows: Sequence[Row], group_of: Callable[[Row], str], resamples: int
) -> dict[str, dict[str, Any]]:
    """Return `measure` for each group of rows, by the group's name."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    return {name: measure(group, resamples) for name, group in groups.items()}


def breakdowns(rows: Sequence[Row], resamples: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return where fine-tuning helped and where it hurt, by what is known of the clips.

    `language`, `duration` and `snr` (see `probes.estimate_snr`), and `speaker` where rows name one.
    """
    by_length = sorted(rows, key=lambda row: row["seconds"])
    by_noise = sorted(rows, key=lambda row: row["snr_db"])
    result = {
        "language": break_down(rows, lambda row: row["language"], resamples),
        "duration": break_down(
            by_length, lambda row: band(row["seconds"], SECONDS_BANDS, "s"), resamples
        ),
        "snr": break_down(by_noise, lambda row: band(row["snr_db"], SNR_BANDS, "dB"), resamples),
    }
    if all(row.get("speaker") for row in rows):
        result["speaker"] = break_down(rows, lambda row: row["speaker"], resamples)
    return result


def find_overlaps(prepared: Mapping[str, datasets.Dataset]) -> dict[str, dict[str, int]]:
    """Count what two splits share: the same sentence, normalised, or the very same samples.

    Between train or dev and anything that is tested, each one is a fault of the data.

    Returns:
        By "SPLIT/SPLIT": `texts` and `clips`.
    """
    seen = {}
    for split, rows in prepared.items():
        texts, clips = set(), set()
        for row in rows.with_format("numpy", columns=["audio"], output_all_columns=True):
            for text, samples in cut(row):
                texts.add(normalize(text, row["language"]))
                clips.add(hashlib.sha256(samples.tobytes()).digest())
        seen[split] = texts, clips
    return {
        f"{one}/{other}": {
            kind: len(a & b) for kind, a, b in zip(KINDS, seen[one], seen[other], strict=True)
        }
        for one, other in combinations(seen, 2)
        if {one, other} & {"train", "dev"}
    }


def at_30s(rows: Sequence[Row], resamples: int) -> dict[str, Any] | None:
    """Return the rates of the fine-tuned model at 30 s, and at the short context on the same clips.

    Returns:
        `clips`, `wer`, `wer_low`, `wer_high`, `wer_short`, `wer_short_low`, `wer_short_high` and
        the same for `cer`; None where no clip was read at 30 s.
    """
    both = [row for row in rows if row["after_30s"] is not None]
    if not both:
        return None
    rates = {"clips": len(both)}
    for key, value in measure(both, resamples).items():
        if "after" in key:
            name = key.replace("_after_30s", "") if "30s" in key else key.replace("after", "short")
            rates[name] = value
    return rates


def build_report(rows: Sequence[Row], recipe: Recipe) -> dict[str, Any]:
    """Return all of the evaluation report that follows from the prediction rows alone.

    Raises:
        RecipeError: there is no test clip.
    """
    resamples = recipe.evaluation.resamples
    parts = {
        split: [row for row in rows if row["split"] == split]
        for split in ("test", "unseen", "untrained")
    }
    test = parts["test"]
    if not test:
        raise RecipeError(
            f"{recipe.path}: there is no test clip; give a trained source a test split."
        )
    measured = measure(test, resamples)
    sources = {row["source"]: row for row in rows}
    models = ("before", "after")
    return {
        "summary": {key: measured[key] for key in SUMMARY_KEYS},
        "test": measured,  # the summary and more: the intervals of CER, the model at 30 s
        "orthographic": summarize(test, resamples, normalized=False),
        "unseen": measure(parts["unseen"], resamples) if parts["unseen"] else None,
        "untrained": measure(parts["untrained"], resamples) if parts["untrained"] else None,
        "after_30s": at_30s(test, resamples),
        "first_rate": f"{first_unit(test)[0]}er",
        "interval_over": "speakers" if speakers(test) else "clips",
        "languages": {
            source: {"language": any_row["language"], "split": any_row["split"]}
            | measure([row for row in rows if row["source"] == source], resamples)
            for source, any_row in sources.items()
        },
        "breakdowns": breakdowns(test, resamples),
        "normalizer": {row["language"]: normalizer_name(row["language"]) for row in rows},
        "edits": {model: count_kinds(test, model) for model in models},
        "errors": {model: frequent_errors(test, model) for model in models},
        "error_kinds": {model: error_kinds(test, model) for model in models},
        "flags": {model: find_flags(test, model) for model in models},
        "resamples": resamples,
    }


def comparison_table(runs: Mapping[str, Sequence[Row]], resamples: int) -> str:
    """Return several runs side by side as text: rates after, and the test against the first run.

    Args:
        runs: prediction rows by the run's name; clips that not all have read are left out.
        resamples: of the intervals and of the permutation test.
    """
    shared = set.intersection(*({row["id"] for row in rows} for rows in runs.values()))
    if not shared:
        return "These runs have read no clip in common."
    chosen = {
        name: sorted((row for row in rows if row["id"] in shared), key=lambda row: row["id"])
        for name, rows in runs.items()
    }
    first = next(iter(chosen))
    width = max(map(len, chosen)) + 2
    lines = [f"{'source':14}{'run':{width}}{'clips':>6}  {'WER':22}{'CER':22}{'p':>7}"]
    for source in dict.fromkeys(row["source"] for row in chosen[first]):
        one_source = {
            name: [row for row in rows if row["source"] == source] for name, rows in chosen.items()
        }
        unit = first_unit(one_source[first])
        standard = count_row_errors(one_source[first], "after", unit)
        for name, rows in one_source.items():
            rates = measure(rows, resamples)
            p = paired_p_value(standard, count_row_errors(rows, "after", unit), resamples)
            tested = "first" if name == first else f"{p:.4f}"
            lines.append(
                f"{source:14}{name:{width}}{len(rows):6d}  {percent(rates, 'wer_after'):22}"
                f"{percent(rates, 'cer_after'):22}{tested:>7}"
            )
    return "\n".join([*lines, "p: the difference from the first run, on the same clips"])
