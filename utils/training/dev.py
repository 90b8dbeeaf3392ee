"""The dev split during training: which clips are transcribed, and how many errors they have."""

import numpy as np
from datasets import Dataset
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.config import AudioContext, Recipe
from utils.preprocessing.examples import waveform
from utils.scoring.error_rates import error_rate
from utils.scoring.intervals import paired_p_value
from utils.scoring.predictions import count_row_errors
from utils.text import leading_unit
from utils.training.memory import halving
from utils.whisper.decoding import clips_at_once, transcribe
from utils.whisper.hypotheses import Hypotheses

METRICS = {"word": "wer", "char": "cer"}
CHANCE = 0.05  # a p value from here on counts as no difference
RESAMPLES = 2000
FEW_CLIPS = 50  # with fewer, dev shows only large differences


def dev_metric(recipe: Recipe) -> str:
    """Return what decides on dev: "wer", or "cer" where a trained language has no word spaces."""
    return METRICS[leading_unit(recipe.languages)]


def dev_slice(dev: Dataset, minutes: float) -> Dataset:
    """Return dev clips, evenly spread, with about this many minutes of speech in total.

    The same ones every time: `Selection` compares evaluations clip by clip.
    """
    share = minutes * 60 / sum(dev["seconds"][:])
    count = min(max(round(share * len(dev)), 1), len(dev))
    return dev.select(np.linspace(0, len(dev) - 1, count).astype(int))


def count_dev_errors(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    rows: Dataset,
    recipe: Recipe,
    context: AudioContext | None,
    unmodified: bool = False,
) -> dict[str, np.ndarray]:
    """Return `count_errors` of a model's transcripts of prepared rows, by "wer" and "cer".

    The metric that decides comes first. `context=None` decodes at the stock 30 s window: the only
    fair one for an untrained model. `unmodified` says that the model is such a one: it is decoded
    at that window, once for all recipes (`Hypotheses`).
    """
    clips, languages = [waveform(row) for row in rows], rows["language"][:]
    kept = Hypotheses(model, processor) if unmodified else None

    def read(batch_size: int) -> list[str]:
        if kept:
            return kept.transcribe(clips, language=languages, batch_size=batch_size)[0]
        how = {"language": languages, "context": context, "batch_size": batch_size}
        return transcribe(model, processor, clips, **how)

    hypotheses = halving(read, clips_at_once(model, recipe.evaluation.batch_size))
    pairs = zip(rows["text"][:], rows["language"][:], hypotheses, strict=True)
    told = [{"reference": text, "language": code, "dev": found} for text, code, found in pairs]
    first = leading_unit(recipe.languages)
    normalized = recipe.evaluation.normalized
    return {
        METRICS[unit]: count_row_errors(told, "dev", unit, normalized)
        for unit in sorted(METRICS, key=lambda unit: unit != first)
    }


def verdict(before: np.ndarray, after: np.ndarray, metric: str) -> str:
    """Return in a few sentences what training changed, and what to try where it did not help.

    Args:
        before: `count_errors` of the base model.
        after: of the trained one, on the same clips at the same window.
        metric: "wer" or "cer", for the text.
    """
    p = paired_p_value(before, after, RESAMPLES)
    rates = f"dev {metric.upper()} {error_rate(before):.1%} before, {error_rate(after):.1%} after"
    said = f"{rates}, on the same {len(before)} clips at 30 s (p = {p:.2g})"
    fewer = after[:, 0].sum() < before[:, 0].sum()
    if p < CHANCE and fewer:
        return f"{said}: better."
    few = f" {FEW_CLIPS} dev clips tell more." if len(before) < FEW_CLIPS else ""
    if p < CHANCE:
        return f"{said}: worse. Try a third of the learning rate, fewer steps, or more speech."
    lean = "fewer errors, which may be luck" if fewer else "no improvement is shown"
    return f"{said}: {lean}. Try more steps or more speech.{few}"
