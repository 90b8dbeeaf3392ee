"""Edits between reference and hypothesis, counted, and the rates WER and CER."""

from collections.abc import Sequence
from typing import Literal

import datasets
import evaluate
import jiwer
import numpy as np

Unit = Literal["word", "char"]


def align(references: Sequence[str], hypotheses: Sequence[str], unit: Unit) -> jiwer.WordOutput:
    """Return jiwer's alignment of each pair; `hits`, `substitutions` … are sums over all pairs."""
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    return process(list(references), list(hypotheses))


def count_errors(references: Sequence[str], hypotheses: Sequence[str], unit: Unit) -> np.ndarray:
    """Count the edits that turn each reference into its hypothesis.

    Args:
        references: may be empty; then every word of the hypothesis is an insertion.
        hypotheses: in the same order.
        unit: "word", or "char" (spaces between words count, as in jiwer).

    Returns:
        int64 `(clips, 2)`: substitutions + deletions + insertions, and the reference's length.
    """
    if not references:
        return np.zeros((0, 2), dtype=np.int64)
    output = align(references, hypotheses, unit)
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

    It may exceed 1. If the references are empty, it is the number of edits, as in jiwer.
    """
    edits, length = counts.sum(axis=0)
    return float(edits / max(length, 1))


class WER(evaluate.Metric):
    """Word error rate for `compute(predictions=…, references=…)`, without a script from the Hub.

    `evaluate.load("wer")` downloads code and runs it, and fails offline. Texts are compared as they
    are: normalise them first if that is what you want to measure.
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
