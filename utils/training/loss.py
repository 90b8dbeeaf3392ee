"""The loss of an update, and the end of a training whose loss is no number."""

from typing import Any

import torch
import torch.nn.functional as F

from utils.config import UserError
from utils.preprocessing.collator import IGNORED

NEVER = 2**62  # a step that no run reaches


class TrainingError(UserError, RuntimeError):
    """Training cannot continue; the message names the step and the way out."""


def loss_per_token(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy per label token of a whole update.

    Whisper's own loss, the mean of each batch, gives more weight to a token in a batch with few
    tokens; an update in two batches would have a different gradient from one of the same clips.

    Args:
        outputs: the model's, with logits `(batch, tokens, vocabulary)`.
        labels: `(batch, tokens)`; -100 does not count.
        num_items_in_batch: label tokens of the update, over accumulation and processes; the Trainer
            counts them. None: those of these labels.
        smoothing: the recipe's `label_smoothing_factor`.
    """
    logits = outputs["logits"].flatten(0, 1)
    total = F.cross_entropy(
        logits, labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORED).sum()
    return total / num_items_in_batch


class Losses:
    """Remembers, on the device, the first step whose loss is no finite number."""

    def __init__(self) -> None:
        self._first: torch.Tensor | None = None

    def add(self, loss: torch.Tensor, step: int) -> None:
        """Look at a loss; the host does not wait for it."""
        one = torch.full_like(loss, step, dtype=torch.long)
        found = torch.where(torch.isfinite(loss), NEVER, one)
        self._first = found if self._first is None else self._first.minimum(found)

    def check(self) -> None:
        """Wait for the device, and stop if a loss was no finite number.

        Raises:
            TrainingError: with the step.
        """
        if self._first is not None and self._first < NEVER:
            raise TrainingError(
                f"The loss is no finite number at step {self._first}; every checkpoint is from "
                "before it. Lower learning_rate, or look for broken clips."
            )
