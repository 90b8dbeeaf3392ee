"""WER and CER, their intervals, a paired test, error tables and the evaluation report.

A prediction row is `{"id", "source", "language", "seconds", "split", "reference", "before",
"after", "after_30s"}`: split is "test" or "unseen"; `before` is the base checkpoint at the stock
30 s window, `after` the fine-tuned one as the recipe decodes it, and `after_30s` the fine-tuned one
at 30 s, or None where the recipe always uses 30 s.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import datasets
import evaluate
import jiwer
import numpy as np
from scipy import stats

from utils.artifacts import write_atomically
from utils.config import Recipe
from utils.text import has_word_spaces, normalize, normalizer_name

Unit = Literal["word", "char"]
Row = Mapping[str, Any]

# The fixed shape of a summary: other tools read it.
SUMMARY_KEYS = (
    "clips",
    *("wer_before", "wer_before_low", "wer_before_high"),
    *("wer_after", "wer_after_low", "wer_after_high"),
    *("cer_before", "cer_after", "p_value"),
)
# Resamples are drawn this many at a time: 2000 of 10 000 clips at once would take gigabytes.
RESAMPLES_AT_ONCE = 100


def _align(references: Sequence[str], hypotheses: Sequence[str], unit: Unit) -> jiwer.WordOutput:
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    return process(list(references), list(hypotheses))


def count_errors(references: Sequence[str], hypotheses: Sequence[str], unit: Unit) -> np.ndarray:
    """Count the edits that turn each reference into its hypothesis.

    Args:
        references: what was said; may be empty, then every word of the hypothesis is an insertion.
        hypotheses: what was recognised, in the same order.
        unit: "word", or "char" (spaces between words count, as in jiwer).

    Returns:
        int64 `(clips, 2)`: substitutions + deletions + insertions, and the reference's length.
    """
    if not references:
        return np.zeros((0, 2), dtype=np.int64)
    output = _align(references, hypotheses, unit)
    edits = [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in output.alignments
    ]
    return np.array([edits, [len(reference) for reference in output.references]], np.int64).T


def error_rate(counts: np.ndarray) -> float:
    """Return all edits over all reference words (or characters) of `count_errors`, as a fraction.

    It may exceed 1. Where nothing was to be recognised it is the number of edits, as in jiwer.
    """
    edits, length = counts.sum(axis=0)
    return float(edits / max(length, 1))


class WER(evaluate.Metric):
    """Word error rate for `compute(predictions=…, references=…)`, without a script from the Hub.

    `evaluate.load("wer")` downloads code and runs it, and fails offline. Texts are compared as they
    are given: normalise them first if that is what you want to measure.
    """

    unit: Unit = "word"

    def __init__(self):
        super().__init__(keep_in_memory=True)  # else each call writes a file that runs can clash on

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=f"Edits per {self.unit} of the references, a fraction.",
            citation="",
            inputs_description="predictions and references: lists of strings of one length.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {f"{self.unit[0]}er": error_rate(count_errors(references, predictions, self.unit))}


class CER(WER):
    """Character error rate; see `WER`."""

    unit: Unit = "char"


def _rates(edits: np.ndarray, lengths: np.ndarray, axis: int = -1) -> np.ndarray:
    return edits.sum(axis=axis) / np.maximum(lengths.sum(axis=axis), 1)


def confidence_interval(counts: np.ndarray, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of an error rate.

    Clips are drawn with replacement, not words: errors of one clip come together. It is the
    percentile interval: simulated with 54 clips of a skewed error distribution it held the true
    rate in 94 % of 400 trials (BCa: 91 %), and BCa gave NaN in 6 % of the trials with 8 clips.
    Below some 20 clips (88 %) and where a few endless hypotheses make up most of the errors, the
    interval is too narrow with either method.

    Args:
        counts: of `count_errors`, at least one clip.
        resamples: 2000 leave about 0.1 points of noise in the bounds of a usual test set.
        seed: the same seed gives the same interval.

    Returns:
        `(low, high)`. Both are the rate itself for a single clip and where there are no errors: the
        bootstrap cannot see what did not happen.
    """
    if len(counts) < 2:
        return error_rate(counts), error_rate(counts)
    interval = stats.bootstrap(
        (counts[:, 0], counts[:, 1]),
        _rates,
        n_resamples=resamples,
        batch=RESAMPLES_AT_ONCE,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _difference(before: np.ndarray, after: np.ndarray, axis: int = -1) -> np.ndarray:
    return (before - after).sum(axis=axis)


def paired_p_value(before: np.ndarray, after: np.ndarray, resamples: int, seed: int = 0) -> float:
    """Return how often chance alone would give a difference in edits at least as large.

    A two-sided permutation test: if both models were equally good, it would not matter which of a
    clip's two hypotheses came from which. With few clips all 2ⁿ exchanges are tried; otherwise the
    smallest possible value is 2 / (resamples + 1).

    Args:
        before: of `count_errors` for one model.
        after: for the other, on the same clips in the same order.
        resamples: random exchanges.
        seed: the same seed gives the same value.
    """
    if len(before) < 2:  # SciPy refuses one observation; its two exchanges are equally extreme
        return 1.0
    result = stats.permutation_test(
        (before[:, 0], after[:, 0]),
        _difference,
        permutation_type="samples",
        n_resamples=resamples,
        batch=RESAMPLES_AT_ONCE,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


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


def first_unit(rows: Sequence[Row]) -> Unit:
    """Return what to count first: characters if a language among the rows has no word spaces."""
    return "word" if all(has_word_spaces(row["language"]) for row in rows) else "char"


def measure(rows: Sequence[Row], resamples: int, normalized: bool = True) -> dict[str, Any]:
    """Return WER and CER of every model with 95 % intervals, and the test of before against after.

    Args:
        rows: of any languages; their edits and lengths are pooled.
        resamples: of the bootstrap and of the permutation test.
        normalized: see `count_row_errors`.

    Returns:
        `clips`, `wer_MODEL`, `wer_MODEL_low`, `wer_MODEL_high` and the same for `cer`, as
        fractions, and `p_value` (of word edits, or of character edits: see `first_unit`). The model
        after_30s is in it where every row has it.
    """
    result: dict[str, Any] = {"clips": len(rows)}
    models = ["before", "after"]
    if all(row["after_30s"] is not None for row in rows):
        models.append("after_30s")
    for unit in ("word", "char"):
        counts = {model: count_row_errors(rows, model, unit, normalized) for model in models}
        for model in models:
            low, high = confidence_interval(counts[model], resamples)
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


def find_edits(row: Row, model: str, normalized: bool = True) -> Iterator[tuple[str, str]]:
    """Yield each edit of a row as (said, heard): "" heard is a deletion, "" said an insertion.

    The pieces are words, or characters in languages without word spaces.
    """
    said, heard = row["reference"], row[model]
    if normalized:
        said, heard = normalize(said, row["language"]), normalize(heard, row["language"])
    output = _align([said], [heard], first_unit([row]))
    for chunk in output.alignments[0]:
        if chunk.type != "equal":
            yield from zip_longest(
                output.references[0][chunk.ref_start_idx : chunk.ref_end_idx],
                output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx],
                fillvalue="",
            )


def frequent_errors(rows: Sequence[Row], model: str, top: int = 10) -> dict[str, list[list]]:
    """Return the most frequent substitutions, deletions and insertions, normalised.

    Returns:
        `substitutions`: [said, heard, times]; `deletions` and `insertions`: [word, times].
    """
    edits = Counter(edit for row in rows for edit in find_edits(row, model))
    kinds: dict[str, list[list]] = {"substitutions": [], "deletions": [], "insertions": []}
    for (said, heard), times in edits.most_common():
        if said and heard:
            kinds["substitutions"].append([said, heard, times])
        else:
            kinds["deletions" if said else "insertions"].append([said or heard, times])
    return {kind: found[:top] for kind, found in kinds.items()}


def error_kinds(rows: Sequence[Row], model: str) -> dict[str, Any]:
    """Split the orthographic errors into wrong words and mere differences of form.

    An edit is of form only (case, punctuation, spelling of the apostrophe) if said and heard are
    equal once normalised.

    Returns:
        `words` and `form` (numbers of edits) and `form_share`, a fraction.
    """
    form = words = 0
    for row in rows:
        for said, heard in find_edits(row, model, normalized=False):
            same = normalize(said, row["language"]) == normalize(heard, row["language"])
            form, words = form + same, words + (not same)
    return {"words": words, "form": form, "form_share": form / max(form + words, 1)}


def is_runaway(row: Row, model: str) -> bool:
    """Tell whether a hypothesis repeats or invents without end: > 3 × the reference's words + 5."""
    split = str.split if has_word_spaces(row["language"]) else list
    return len(split(row[model])) > 3 * len(split(row["reference"])) + 5


def build_report(rows: Sequence[Row], recipe: Recipe) -> dict[str, Any]:
    """Return the evaluation report, all but the times, from the prediction rows alone.

    Raises:
        ValueError: there is no test clip.
    """
    resamples = recipe.evaluation.resamples
    test = [row for row in rows if row["split"] == "test"]
    unseen = [row for row in rows if row["split"] == "unseen"]
    if not test:
        raise ValueError(
            f"{recipe.path}: there is no test clip; give a trained source a test split."
        )
    measured = measure(test, resamples)
    sources = {row["source"]: row for row in rows}
    return {
        "summary": {key: measured[key] for key in SUMMARY_KEYS},
        "orthographic": summarize(test, resamples, normalized=False),
        "unseen": summarize(unseen, resamples) if unseen else None,
        "after_30s": {
            key.replace("_after_30s", ""): value
            for key, value in measured.items()
            if "after_30s" in key
        }
        or None,
        "first_rate": f"{first_unit(test)[0]}er",
        "languages": {
            source: {"language": any_row["language"], "split": any_row["split"]}
            | measure([row for row in rows if row["source"] == source], resamples)
            for source, any_row in sources.items()
        },
        "normalizer": {row["language"]: normalizer_name(row["language"]) for row in rows},
        "errors": {model: frequent_errors(test, model) for model in ("before", "after")},
        "error_kinds": {model: error_kinds(test, model) for model in ("before", "after")},
        "runaways": {
            model: sum(is_runaway(row, model) for row in test) for model in ("before", "after")
        },
        "resamples": resamples,
    }


def save_predictions(path: Path, rows: Sequence[Row]) -> None:
    """Write prediction rows as JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def load_predictions(path: Path) -> list[dict[str, Any]]:
    """Read what `save_predictions` wrote."""
    # Not splitlines(): it also breaks at U+2028 and U+0085, which a transcript may hold.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# Half-transparent, so that they are readable on white and on black; struck out and underlined, so
# that nobody has to tell red from green.
DEL_STYLE = "background:rgba(220,60,60,.3);text-decoration:line-through"
INS_STYLE = "background:rgba(40,160,90,.3);text-decoration:underline"


def word_diff_html(reference: str, hypothesis: str, unit: Unit = "word") -> str:
    """Return a diff as HTML: `<del>` was said and not heard, `<ins>` was heard and not said.

    Every text is escaped: a transcript is input from outside.
    """
    output = _align([reference], [hypothesis], unit)
    gap = " " if unit == "word" else ""
    parts = []
    for chunk in output.alignments[0]:
        said = gap.join(output.references[0][chunk.ref_start_idx : chunk.ref_end_idx])
        heard = gap.join(output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx])
        if chunk.type == "equal":
            parts.append(escape(said))
            continue
        if said:
            parts.append(f'<del style="{DEL_STYLE}">{escape(said)}</del>')
        if heard:
            parts.append(f'<ins style="{INS_STYLE}">{escape(heard)}</ins>')
    return f'<span dir="auto">{gap.join(parts)}</span>'


def find_worst(rows: Sequence[Row], count: int) -> list[Row]:
    """Return the rows with the most edits after fine-tuning, normalised, the worst first."""
    edits = count_row_errors(rows, "after", first_unit(rows))[:, 0]
    return [rows[index] for index in np.argsort(-edits, kind="stable")[:count]]


def clips_html(rows: Sequence[Row], waveforms: Mapping[str, np.ndarray]) -> str:
    """Return a table of clips: a player, and the normalised diff before and after.

    Args:
        rows: prediction rows.
        waveforms: by id, float32 samples at 16 kHz; they are embedded (about 43 kB a second).
    """
    from IPython.display import Audio  # only notebooks have it

    lines = []
    for row in rows:
        samples = np.clip(waveforms[row["id"]], -1, 1)
        player = Audio(samples, rate=16_000, normalize=False)._repr_html_()
        cells = [f"{escape(row['source'])}<br>{row['seconds']:.1f} s", player]
        for model in ("before", "after"):
            said, heard = (normalize(row[key], row["language"]) for key in ("reference", model))
            unit = first_unit([row])
            edits, length = count_errors([said], [heard], unit)[0]
            cells.append(f"{word_diff_html(said, heard, unit)}<br>{edits} of {length} {unit}s")
        lines.append("".join(f'<td style="text-align:left">{cell}</td>' for cell in cells))
    heads = "".join(f"<th>{head}</th>" for head in ("clip", "listen", "before", "after"))
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
