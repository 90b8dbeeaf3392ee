"""The dev split during training: which clips are transcribed, their errors, what these decide.

The last checkpoint is kept, unless dev shows that the best one was better. A dev split of a few
hundred words cannot separate neighbouring checkpoints: the lowest of several dev error rates is
mostly the luckiest. If no difference is shown, the end of the schedule, at its lowest learning
rate, is the better guess; the idea is that of the one-standard-error rule (Breiman et al. 1984).
The best of many evaluations had many chances to be lucky, so the level is divided by their number
(Bonferroni). With `patience`, which is early stopping, training ends after dev has stopped
improving, and the best one is kept. How often either rule is right: `python -m
benchmarks.selection`.
"""

import json
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback, WhisperForConditionalGeneration, WhisperProcessor

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
RESAMPLES = 10_000  # of the permutation test: p goes down to 1 / 5000, for up to 250 evaluations
FILE = "dev_errors.json"  # in every checkpoint: a resumed run decides as an uninterrupted one
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


class Selection:
    """Compares the last evaluation with the one with the fewest errors, clip by clip.

    Args:
        best: always keep the one with the fewest errors.
        loads: whether an earlier one is gone back to at all (`load_best_model_at_end`).
    """

    def __init__(self, best: bool = False, loads: bool = True) -> None:
        self.best, self.loads = best, loads
        self.fewest: np.ndarray | None = None  # errors of the evaluation with the fewest
        self.last: np.ndarray | None = None
        self.steps: list[int] = []  # of every evaluation
        self.fewest_step = 0

    def add(self, errors: np.ndarray, step: int) -> bool:
        """Add an evaluation; return whether it has the fewest errors so far.

        Args:
            errors: its `count_errors` on dev, the same clips in the same order every time.
            step: of its checkpoint.
        """
        self.last, self.steps = errors, [*self.steps, step]
        fewest = self.fewest is None or errors[:, 0].sum() <= self.fewest[:, 0].sum()
        if fewest:
            self.fewest, self.fewest_step = errors, step
        return bool(fewest)  # NumPy's own cannot be stored in the trainer's state

    def level(self) -> float:
        """Return the p value below which the best evaluation is not luck."""
        return CHANCE / max(len(self.steps) - 1, 1)

    def p_value(self) -> float:
        """Return the p value of the difference between the last evaluation and the best."""
        return paired_p_value(self.fewest, self.last, RESAMPLES)

    def prefers_best(self) -> bool:
        """Tell whether to go back to the best evaluation's checkpoint."""
        if not self.loads or self.last is None:
            return False
        return self.best or self.p_value() < self.level()

    def verdict(self) -> str:
        """Return the comparison in one line."""
        if self.last is None:
            return "no checkpoint was evaluated on dev"
        last, fewest = (int(errors[:, 0].sum()) for errors in (self.last, self.fewest))
        said = f"errors on dev: {last} at the last evaluation"
        if self.fewest_step == self.steps[-1]:
            return f"{said}, the fewest of all: the last is kept"
        said += f", {fewest} at the best one"
        if not self.loads:
            return f"{said}: without load_best_model_at_end the last is kept"
        if self.best:
            return f"{said}: with patience the best is kept"
        kept = "best" if self.prefers_best() else "last"
        return f"{said}, p = {self.p_value():.2g} against {self.level():.2g}: the {kept} is kept"

    def save(self, folder: Path) -> None:
        """Store in a checkpoint what later evaluations are compared with."""
        told = {"steps": self.steps, "fewest_step": self.fewest_step}
        if self.last is not None:
            told |= {"fewest": self.fewest.tolist(), "last": self.last.tolist()}
        (folder / FILE).write_text(json.dumps(told), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint; one with a file of an older form starts from nothing."""
        path = folder / FILE
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if isinstance(told, dict) and told["steps"]:
            self.steps, self.fewest_step = told["steps"], told["fewest_step"]
            self.fewest, self.last = np.array(told["fewest"]), np.array(told["last"])


class Patience(TrainerCallback):
    """Early stopping: ends training after some dev evaluations without a lower error rate.

    Transformers' EarlyStoppingCallback keeps its count in an attribute, which a resumed run starts
    from zero; here the log is used, which is part of every checkpoint.

    Args:
        evaluations: how many.
        rate: the key of the logs that decides, `eval_wer` or `eval_cer`.
    """

    def __init__(self, evaluations: int, rate: str):
        self.evaluations, self.rate = evaluations, rate

    def on_evaluate(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Stop if the best evaluation is too far back."""
        rates = [row[self.rate] for row in state.log_history if self.rate in row]
        if rates and len(rates) - 1 - rates.index(min(rates)) >= self.evaluations:
            control.should_training_stop = True

    on_train_begin = on_evaluate  # a stopped run that was started again


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
