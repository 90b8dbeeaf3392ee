"""Edits between reference and hypothesis, counted, and the rates WER and CER."""

from collections.abc import Sequence
from typing import Literal

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
