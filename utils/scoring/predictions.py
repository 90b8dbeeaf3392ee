"""Prediction rows: the reference and each model's hypothesis, as JSON lines, and their rates.

A row is `{"id", "source", "language", "seconds", "snr_db", "split", "speaker", "reference",
"before", "after", "after_30s"}`; the speaker is "" where the data name none. The split is "test",
"unseen" (a source without a training split) or "untrained" (such a source in a language that was
not trained).
`before` is the base checkpoint at the stock 30 s window, `after` the fine-tuned one as the recipe
decodes it, and `after_30s` the fine-tuned one at 30 s, or None if that was not measured.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.artifacts import write_atomically
from utils.environment.whole import read_json_lines
from utils.scoring.error_rates import Unit, align, count_errors
from utils.scoring.intervals import (
    holm,
    paired_p_value,
    pool,
    rate_with_interval,
)
from utils.text import leading_unit, normalize

Row = Mapping[str, Any]

# The fixed shape of a summary: other tools read it.
SUMMARY_KEYS = (
    "clips",
    *("wer_before", "wer_before_low", "wer_before_high"),
    *("wer_after", "wer_after_low", "wer_after_high"),
    *("cer_before", "cer_after", "p_value"),
)
MODELS = ("before", "after", "after_30s")
WINDOWS = ("", "_30s")  # of `after` and `after_30s`, as the names of their tests end
# With fewer, clips are drawn, and the report says that it does not generalise to other speakers.
MIN_SPEAKERS = 10
# The test swaps so many times for each resample of an interval: four sources, corrected for their
# number, can then have p < 0.001.
SWAPS = 5
SIGNIFICANT = 0.05  # a p value below this counts as a difference


def save_predictions(path: Path, rows: Sequence[Row]) -> None:
    """Write prediction rows as JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_predictions(path: Path) -> list[dict[str, Any]]:
    """Read what `save_predictions` wrote."""
    return read_json_lines(path, "run notebooks/05_evaluation.ipynb again")


def count_row_errors(
    rows: Sequence[Row], model: str, unit: Unit, normalized: bool = True
) -> np.ndarray:
    """Return `count_errors` of prediction rows.

    Args:
        rows: see the module.
        model: which hypothesis: "before", "after" or "after_30s".
        unit: "word" or "char".
        normalized: compare normalised texts; else case, punctuation and spelling count as well.
    """
    pairs = [(row["reference"], row[model]) for row in rows]
    if normalized:
        pairs = [
            tuple(normalize(text, row["language"]) for text in pair)
            for row, pair in zip(rows, pairs, strict=True)
        ]
    return count_errors([pair[0] for pair in pairs], [pair[1] for pair in pairs], unit)


def count_kinds(rows: Sequence[Row], model: str) -> dict[str, int]:
    """Return hits, substitutions, deletions and insertions of words, normalised.

    They are characters in languages without word spaces, as `first_unit` says.
    """
    references, hypotheses = (
        [normalize(row[key], row["language"]) for row in rows] for key in ("reference", model)
    )
    output = align(references, hypotheses, first_unit(rows))
    kinds = ("hits", "substitutions", "deletions", "insertions")
    return {kind: getattr(output, kind) for kind in kinds}


def speakers(rows: Sequence[Row]) -> list[str]:
    """Return each row's speaker if intervals and tests are over speakers, else nothing.

    They are if every row names one and there are at least `MIN_SPEAKERS`. A name identifies a
    speaker only within its source.
    """
    if not all(row.get("speaker") for row in rows):
        return []
    named = [f"{row['source']}/{row['speaker']}" for row in rows]
    return named if len(set(named)) >= MIN_SPEAKERS else []


def drawn(rows: Sequence[Row], counts: np.ndarray) -> np.ndarray:
    """Return what intervals and tests draw: counts pooled by speaker, see `speakers`, or by clip.

    Args:
        rows: prediction rows.
        counts: of `count_row_errors` of these rows.
    """
    groups = speakers(rows)
    return pool(counts, groups) if groups else counts


def first_unit(rows: Sequence[Row]) -> Unit:
    """Return what to count first: characters if a language among the rows has no word spaces."""
    return leading_unit(row["language"] for row in rows)


def measure_rates(rows: Sequence[Row], resamples: int, normalized: bool = True) -> dict[str, Any]:
    """Return WER and CER of every model with 95 % intervals.

    Args:
        rows: of any languages; their edits and lengths are pooled.
        resamples: of the bootstrap.
        normalized: see `count_row_errors`.

    Returns:
        `clips`, `over` ("31 speakers" or "140 clips": what intervals and tests draw), `first_rate`
        ("wer" or "cer": see `first_unit`), and `wer_MODEL`, `wer_MODEL_low`, `wer_MODEL_high` and
        the same for `cer`, as fractions. The model after_30s is included if every row has it.
    """
    groups = speakers(rows)
    over = f"{len(set(groups))} speakers" if groups else f"{len(rows)} clips"
    result = {"clips": len(rows), "over": over, "first_rate": f"{first_unit(rows)[0]}er"}
    models = MODELS if all(row["after_30s"] is not None for row in rows) else MODELS[:2]
    for unit in ("word", "char"):
        for model in models:
            counts = drawn(rows, count_row_errors(rows, model, unit, normalized))
            result |= rate_with_interval(f"{unit[0]}er_{model}", counts, resamples)
    return result


def measure(rows: Sequence[Row], resamples: int, normalized: bool = True) -> dict[str, Any]:
    """Return `measure_rates`, and `compare_counts` of before and each after in its unit.

    The names of the test against after_30s end in `_30s`.
    """
    result = measure_rates(rows, resamples, normalized)
    before, *others = (
        drawn(rows, count_row_errors(rows, model, first_unit(rows), normalized))
        for model in MODELS
        if f"wer_{model}" in result
    )
    for window, after in zip(WINDOWS, others, strict=False):
        tested = compare_counts(before, after, resamples)
        result |= {f"{name}{window}": value for name, value in tested.items()}
    return result


def compare_counts(before: np.ndarray, after: np.ndarray, resamples: int) -> dict[str, float]:
    """Return `p_value` of `paired_p_value` and `p_floor`, the lowest possible one; 0 if exact."""
    swaps = SWAPS * resamples
    return {
        "p_value": paired_p_value(before, after, swaps),
        "p_floor": 0.0 if 2 ** len(before) <= swaps else 2 / (swaps + 1),
    }


def headline_window(measured: Mapping[str, Any]) -> str:
    """Return the one of `WINDOWS` that leads: other programs' 30 s if it was measured."""
    return "_30s" if "p_value_30s" in measured else ""


def correct_for_many(table: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm` to every row of a table of `measure`: its p value corrected for their number.

    So for each window, as far as the rows have it.
    """
    for window in WINDOWS:
        tested = [row for row in table if f"p_value{window}" in row]
        corrected = holm([row[f"p_value{window}"] for row in tested])
        for row, value in zip(tested, corrected, strict=True):
            row[f"p_holm{window}"] = value


def say_p(measured: Mapping[str, Any], window: str = "") -> str:
    """Format a p value for a sentence: `p = 0.15`, `p < 0.001`."""
    said = bare_p(measured, window)
    return f"p {said}" if said[0] in "<≤" else f"p = {said}"


def bare_p(measured: Mapping[str, Any], window: str = "") -> str:
    """Format a p value for a column called p, corrected where it is one of several: `0.15`.

    `≤ 0.002` if no random swap was as extreme: with more swaps it might be lower.

    Args:
        measured: of `measure`.
        window: one of `WINDOWS`.
    """
    uncorrected = measured[f"p_value{window}"]
    p = measured.get(f"p_holm{window}", uncorrected)
    if p < 0.001:
        return "< 0.001"
    at_floor = uncorrected <= measured[f"p_floor{window}"] * (1 + 1e-9)
    return f"{'≤ ' if at_floor else ''}{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(measured: Mapping[str, Any], rate: str) -> str:
    """Format a rate of `measure` with its interval for people: `7.6 % (4.9–10.8)`."""
    low, high = (100 * measured[f"{rate}_{bound}"] for bound in ("low", "high"))
    return f"{100 * measured[rate]:.1f} % ({low:.1f}–{high:.1f})"
