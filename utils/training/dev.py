"""The dev split during training: which clips are transcribed, and how many errors they have."""

import numpy as np
from datasets import Dataset
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.config import AudioContext, Recipe
from utils.preprocessing.prepare import waveform
from utils.scoring.predictions import count_row_errors
from utils.training.memory import halving
from utils.whisper.decoding import transcribe


def dev_slice(dev: Dataset, minutes: float) -> Dataset:
    """Return clips of dev, evenly spread over it, with about so many minutes of speech in all.

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
) -> np.ndarray:
    """Return `count_errors` of the words that a model writes for prepared rows.

    `context=None` reads at the stock 30 s window: the only fair one for an untrained model.
    """
    hypotheses = halving(
        lambda batch_size: transcribe(
            model,
            processor,
            [waveform(row) for row in rows],
            language=rows["language"][:],
            context=context,
            batch_size=batch_size,
        ),
        recipe.evaluation.batch_size,
    )
    read = zip(rows["text"][:], rows["language"][:], hypotheses, strict=True)
    told = [{"reference": text, "language": code, "dev": heard} for text, code, heard in read]
    return count_row_errors(told, "dev", "word", recipe.evaluation.normalized)
