"""The evaluation report: all that the prediction rows show, in numbers that JSON can hold."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import datasets
import numpy as np

from utils.config import Recipe, RecipeError
from utils.evaluation.differences import count_kinds_of_error
from utils.evaluation.mistakes import error_kinds, find_flags, frequent_errors
from utils.preprocessing.windows import cut
from utils.scoring.predictions import (
    MODELS,
    SIGNIFICANT,
    SUMMARY_KEYS,
    Row,
    bare_p,
    compare_counts,
    correct_for_many,
    count_kinds,
    count_row_errors,
    drawn,
    first_unit,
    headline_window,
    measure,
    measure_rates,
    percent,
)
from utils.text import normalize, normalizer_name

SECONDS_BANDS = (1, 2, 5, 10)  # borders between the bands of a breakdown
SNR_BANDS = (20, 30, 40)
SPLITS = ("test", "unseen", "untrained")
SHOWN_SPEAKERS = 12  # in a breakdown: those who said the most
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
    """Return `measure_rates` for each group of rows, by the group's name.

    Not tested: of twenty groups, one would be "significant" by chance.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    return {name: measure_rates(group, resamples) for name, group in groups.items()}


def breakdowns(rows: Sequence[Row], resamples: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Return where fine-tuning helped and where it hurt, by properties of the clips.

    `language`, `duration` and `snr` (see `probes.estimate_snr`), and `speaker` where rows name more
    than one: those of whom there is most, at most `SHOWN_SPEAKERS`.
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
    spoken = Counter(row.get("speaker") or "" for row in rows)
    if "" not in spoken and len(spoken) > 1:
        shown = dict(spoken.most_common(SHOWN_SPEAKERS))
        by_speaker = [row for name in shown for row in rows if row["speaker"] == name]
        result["speaker"] = break_down(by_speaker, lambda row: row["speaker"], resamples)
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


def build_report(rows: Sequence[Row], recipe: Recipe) -> dict[str, Any]:
    """Return all of the evaluation report that follows from the prediction rows alone.

    Raises:
        RecipeError: there is no test clip.
    """
    resamples = recipe.evaluation.resamples
    splits = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
    test = splits["test"]
    if not test:
        raise RecipeError(
            f"{recipe.path}: there is no test clip; give a trained source a test split."
        )
    parts = {split: measure(part, resamples) if part else None for split, part in splits.items()}
    correct_for_many([part for part in parts.values() if part])
    languages = {
        source: {"language": any_row["language"], "split": any_row["split"]}
        | measure([row for row in rows if row["source"] == source], resamples)
        for source, any_row in {row["source"]: row for row in rows}.items()
    }
    correct_for_many(list(languages.values()))
    orthographic = measure(test, resamples, normalized=False)
    models = [model for model in MODELS if f"wer_{model}" in parts["test"]]
    return {
        "summary": {key: parts["test"][key] for key in SUMMARY_KEYS},
        **parts,  # the summary and more: the intervals of CER, the model at 30 s
        "orthographic": {key: orthographic[key] for key in SUMMARY_KEYS},
        "first_rate": f"{first_unit(test)[0]}er",
        "languages": languages,
        "breakdowns": breakdowns(test, resamples),
        "normalizer": {row["language"]: normalizer_name(row["language"]) for row in rows},
        "differences": {
            split: count_kinds_of_error(splits[split])
            for split in ("test", "unseen")
            if splits[split]
        },
        "edits": {model: count_kinds(test, model) for model in models},
        "errors": {model: frequent_errors(test, model) for model in models},
        "error_kinds": {model: error_kinds(test, model) for model in models},
        "flags": {model: find_flags(test, model) for model in models},
        "resamples": resamples,
    }


def compare_runs(runs: Mapping[str, Sequence[Row]], resamples: int) -> list[dict[str, Any]]:
    """Return the rates of several runs, source by source, each tested against the first run.

    Args:
        runs: prediction rows by the run's name; clips that not all of them have are left out.
        resamples: of the intervals and of the permutation test.

    Returns:
        A row for each source and run: `source`, `run`, `is_first`, `worse` (significantly: p < 0.05
        after Holm's correction for all rows but the first run's), `first_rate`, and `measure`, with
        the test against the first run in place of that against `before`. None where no clip is
        shared.
    """
    shared = set.intersection(*({row["id"] for row in rows} for rows in runs.values()))
    chosen = {
        name: sorted((row for row in rows if row["id"] in shared), key=lambda row: row["id"])
        for name, rows in runs.items()
    }
    first, table = next(iter(chosen)), []
    for source in dict.fromkeys(row["source"] for row in chosen[first]):
        parts = {
            name: [row for row in rows if row["source"] == source] for name, rows in chosen.items()
        }
        unit = first_unit(parts[first])
        counts = {name: count_row_errors(rows, "after", unit) for name, rows in parts.items()}
        for name, rows in parts.items():
            pair = [drawn(parts[first], counts[one]) for one in (first, name)]
            table.append(
                {"source": source, "run": name, "is_first": name == first, "worse": False}
                | {"first_rate": f"{unit[0]}er", "more": int((pair[1] - pair[0])[:, 0].sum())}
                | measure_rates(rows, resamples)
                | compare_counts(*pair, resamples)
            )
    others = [row for row in table if not row["is_first"]]
    correct_for_many(others)
    for row in others:
        row["worse"] = row["p_holm"] < SIGNIFICANT and row["more"] > 0
    return table


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines for a terminal, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([*map(str.ljust, row, widths)] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in cells)


def comparison_text(table: Sequence[Mapping[str, Any]]) -> str:
    """Return `compare_runs` as a table for a terminal."""
    rows = [("source", "run", "clips", "WER", "CER", "p")]
    rows += [
        (
            *(row["source"], row["run"], str(row["clips"])),
            *(percent(row, f"{rate}_after") for rate in ("wer", "cer")),
            "first" if row["is_first"] else bare_p(row),
        )
        for row in table
    ]
    return (
        f"{_table(rows)}\neach model in the window that it was trained in\n"
        "p: the difference from the first run on the same clips, corrected (Holm)"
    )


def results_text(languages: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rates of each source before and after as a table for a terminal.

    First those at 30 s where they were measured, with their p; then those in the short window. CER
    leads if a language has no word spaces, else WER.

    Args:
        languages: `build_report`'s, `measure` by source.
    """
    window = headline_window(next(iter(languages.values())))
    is_spaced = all(row["first_rate"] == "wer" for row in languages.values())
    first, second = ("wer", "cer") if is_spaced else ("cer", "wer")
    rates = {"before": f"{first.upper()} before", "after": f"{first.upper()} after"}
    if window:
        rates = {"before": rates["before"], f"after{window}": f"{rates['after']}, at 30 s"}
        rates["after"] = "short window"
    rows = [("source", "clips", *rates.values(), second.upper(), "p")]
    rows += [
        (
            *(source, str(row["clips"]), *(percent(row, f"{first}_{model}") for model in rates)),
            f"{100 * row[f'{second}_before']:.1f} → {100 * row[f'{second}_after{window}']:.1f} %",
            bare_p(row, window),
        )
        for source, row in languages.items()
    ]
    return _table(rows)
