"""Prediction rows: what was said and what each model heard, kept as JSON lines and measured.

A row is `{"id", "source", "language", "seconds", "snr_db", "split", "reference", "before",
"after", "after_30s"}` and, where the data name one, `"speaker"`. The split is "test", "unseen" (a
source without a training split) or "untrained" (such a source in a language that was not trained).
`before` is the base checkpoint at the stock 30 s window, `after` the fine-tuned one as the recipe
decodes it, and `after_30s` the fine-tuned one at 30 s, or None where that was not asked for.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.artifacts import write_atomically
from utils.scoring.error_rates import Unit, align, count_errors, error_rate
from utils.scoring.intervals import confidence_interval, paired_p_value, pool
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
# A bootstrap over fewer is too narrow; then clips are drawn, and the report says so.
MIN_SPEAKERS = 20


def save_predictions(path: Path, rows: Sequence[Row]) -> None:
    """Write prediction rows as JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_predictions(path: Path) -> list[dict[str, Any]]:
    """Read what `save_predictions` wrote."""
    # Not splitlines(): it also breaks at U+2028 and U+0085, which a transcript may hold.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def count_row_errors(
    rows: Sequence[Row], model: str, unit: Unit, normalized: bool = True
) -> np.ndarray:
    """Return `count_errors` of prediction rows.

    Args:
        rows: see the module.
        model: which hypothesis: "before", "after" or "after_30s".
        unit: "word" or "char".
        normalized: compare what is heard; else case, punctuation and spelling count as well.
    """
    pairs = [(row["reference"], row[model]) for row in rows]
    if normalized:
        pairs = [
            tuple(normalize(text, row["language"]) for text in pair)
            for row, pair in zip(rows, pairs, strict=True)
        ]
    return count_errors([pair[0] for pair in pairs], [pair[1] for pair in pairs], unit)


def count_kinds(rows: Sequence[Row], model: str) -> dict[str, int]:
    """Return how many words are right, replaced, left out and added, normalised.

    They are characters in languages without word spaces, as `first_unit` says.
    """
    said, heard = (
        [normalize(row[key], row["language"]) for row in rows] for key in ("reference", model)
    )
    output = align(said, heard, first_unit(rows))
    kinds = ("hits", "substitutions", "deletions", "insertions")
    return {kind: getattr(output, kind) for kind in kinds}


def speakers(rows: Sequence[Row]) -> list[str]:
    """Return each row's speaker where an interval can be drawn over speakers, else nothing."""
    named = [str(row.get("speaker") or "") for row in rows]
    return named if all(named) and len(set(named)) >= MIN_SPEAKERS else []


def first_unit(rows: Sequence[Row]) -> Unit:
    """Return what to count first: characters if a language among the rows has no word spaces."""
    return leading_unit(row["language"] for row in rows)


def measure(rows: Sequence[Row], resamples: int, normalized: bool = True) -> dict[str, Any]:
    """Return WER and CER of every model with 95 % intervals, and the test of before against after.

    Args:
        rows: of any languages; their edits and lengths are pooled.
        resamples: of the bootstrap and of the permutation test.
        normalized: see `count_row_errors`.

    Returns:
        `clips`, `wer_MODEL`, `wer_MODEL_low`, `wer_MODEL_high` and the same for `cer`, as
        fractions, and `p_value` (of word edits, or of character edits: see `first_unit`). The model
        after_30s is in it where every row has it. Intervals are drawn over speakers where
        `speakers` knows enough of them, else over clips.
    """
    result: dict[str, Any] = {"clips": len(rows)}
    models = MODELS if all(row["after_30s"] is not None for row in rows) else MODELS[:2]
    groups = speakers(rows)
    for unit in ("word", "char"):
        counts = {model: count_row_errors(rows, model, unit, normalized) for model in models}
        for model in models:
            drawn = pool(counts[model], groups) if groups else counts[model]
            low, high = confidence_interval(drawn, resamples)
            rate = f"{unit[0]}er_{model}"
            result |= {rate: error_rate(counts[model]), f"{rate}_low": low, f"{rate}_high": high}
        if unit == first_unit(rows):
            p_value = paired_p_value(counts["before"], counts["after"], resamples)
    return result | {"p_value": p_value}


def summarize(rows: Sequence[Row], resamples: int, normalized: bool = True) -> dict[str, Any]:
    """Return `measure` in the fixed shape of a summary (`SUMMARY_KEYS`, in that order)."""
    measured = measure(rows, resamples, normalized)
    return {key: measured[key] for key in SUMMARY_KEYS}


def percent(measured: Mapping[str, Any], rate: str) -> str:
    """Return a rate of `measure` with its interval for people: `7.6 % (4.9–10.8)`."""
    low, high = (100 * measured[f"{rate}_{bound}"] for bound in ("low", "high"))
    return f"{100 * measured[rate]:.1f} % ({low:.1f}–{high:.1f})"
