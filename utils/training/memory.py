"""What fits the card: the largest batch, and smaller ones if memory still runs out.

A smaller batch with more gradient accumulation is the same update with the same clips: the product
of both, the effective batch, stays that of the recipe. Transformers' auto_find_batch_size does not
adapt accumulation and so trains a different recipe.
"""

import gc
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from utils.artifacts import write_atomically
from utils.config import Recipe
from utils.preprocessing.batches import EqualSpeechBatches
from utils.preprocessing.windows import POSITIONS
from utils.whisper.audio_context import FRAMES_PER_SECOND, STOCK_SECONDS, context_seconds

DEFAULT_CLIPS = 8  # what per_device_train_batch_size is where a recipe does not set it
ADAM_BYTES = 8  # a weight's two running means, in float32
ADAM_8BIT_BYTES = 2
GRADIENT_BYTES = 4
RESERVE = 0.1  # of the card's memory: what other shapes leave between them cannot be used
EPOCHS_TRIED = 5  # whose batches are looked through for the largest; each epoch cuts others
FITS = "clips_at_once.json"  # in the run folder: what is left when a process ran out of memory
# A full card has other messages, too, if the memory is not requested by PyTorch's allocator.
FULL = ("out of memory", "_ALLOC_FAILED", "unable to find an engine")  # the last is cuDNN's

Result = TypeVar("Result")
logger = logging.getLogger(__name__)

# Every batch has a different shape: without expandable segments, freed ones are too small for the
# next batch and fill the card. The allocator reads this once, before the first tensor.
if torch.cuda.is_available() and not os.environ.get("PYTORCH_CUDA_ALLOC_CONF"):
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


class Shape(NamedTuple):
    """How large a batch is."""

    clips: int
    frames: int  # of the log-mel
    tokens: int  # of the longest label


def effective_batch(training: Mapping[str, Any] | TrainingArguments) -> int:
    """Return the number of clips of one update on one device."""
    if isinstance(training, TrainingArguments):
        return training.train_batch_size * training.gradient_accumulation_steps
    clips = training.get("per_device_train_batch_size", DEFAULT_CLIPS)
    return clips * training.get("gradient_accumulation_steps", 1)


def with_batch(training: Mapping[str, Any], clips: int) -> dict[str, Any]:
    """Return `[training]` with this batch size, and accumulation for the same updates."""
    batch = {
        "per_device_train_batch_size": clips,
        "gradient_accumulation_steps": effective_batch(training) // clips,
    }
    return {**training, **batch}


def smaller_batches(training: Mapping[str, Any], below: int | None = None) -> list[int]:
    """Return the batches that divide the effective one, largest first.

    Args:
        training: the recipe's.
        below: only smaller ones than that; None is the current one.
    """
    below = below or training.get("per_device_train_batch_size", DEFAULT_CLIPS)
    effective = effective_batch(training)
    return [size for size in range(below - 1, 0, -1) if effective % size == 0]


def note_smaller(folder: Path, clips: int) -> None:
    """Store in a run folder the largest batch size that the next start may use."""
    write_atomically(folder / FITS, json.dumps(clips))


def noted(folder: Path) -> int | None:
    """Return what `note_smaller` has stored, or None."""
    path = folder / FITS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def release() -> None:
    """Free unused memory; a trainer and its parts refer to each other, so Python frees it late."""
    gc.collect()
    torch.cuda.empty_cache()


def ran_out(error: RuntimeError) -> bool:
    """Tell whether an error says that the card's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in FULL)


def halving(work: Callable[[int], Result], batch_size: int) -> Result:
    """Return `work(batch_size)`; halve the batch each time that memory runs out."""
    while True:
        try:
            return work(batch_size)
        except RuntimeError as error:
            if batch_size == 1 or not ran_out(error):
                raise
        # Not in the `except` block: there the traceback still holds the tensors that filled it.
        batch_size //= 2
        release()
        logger.warning("Out of memory: going on with batches of %d.", batch_size)


def token_counts(rows: Mapping[str, Sequence], recipe: Recipe) -> np.ndarray:
    """Return the largest number of decoder positions that each prepared row can take."""
    counts = np.array([len(labels) for labels in rows["labels"][:]])
    if recipe.windows.timestamps:
        counts += [2 * len(cuts) for cuts in rows["cut_tokens"][:]]
    if recipe.windows.previous_text:
        counts += [len(previous) + 1 for previous in rows["previous"][:]]
    return counts.clip(max=POSITIONS)


def largest_shapes(
    seconds: np.ndarray, tokens: np.ndarray, batches: EqualSpeechBatches, recipe: Recipe
) -> list[Shape]:
    """Return the shapes of the batches with most audio and with most tokens.

    At their worst: with the longest silent tail, at the slowest speed, and in a 30-second window
    where the recipe asks for a share of those.
    """
    slowest = seconds / (1 - recipe.augmentation.speed)
    audio = recipe.audio_context
    if audio.stock_share:
        slowest = np.full(len(seconds), STOCK_SECONDS)
    most: dict[str, tuple[float, list[int]]] = {}
    for epoch in range(EPOCHS_TRIED):
        batches.set_epoch(epoch)
        for rows in filter(None, batches.rows()):
            # Padding counts: a batch is as large as its longest member times its size.
            for kind, each in (("audio", slowest), ("tokens", tokens)):
                size = len(rows) * each[rows].max()
                most[kind] = max(most.get(kind, (0.0, [])), (size, rows))
    shapes = []
    for _, rows in most.values():
        window = context_seconds(slowest[rows].max(), audio.tail_seconds, audio)
        shapes.append(Shape(len(rows), round(window * FRAMES_PER_SECOND), tokens[rows].max()))
    return shapes


def fits(trainer: Trainer, shapes: Iterable[Shape]) -> bool:
    """Tell whether batches of some shapes fit beside everything else that training holds.

    That is the optimizer, the gradients of an earlier batch with accumulation, the copy of the
    gradients that several processes exchange, and a tenth of the card in reserve.
    """
    model, args = trainer.model.train(), trainer.args
    config = trainer.accelerator.unwrap_model(model).config
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    held = ADAM_8BIT_BYTES if "8bit" in args.optim else ADAM_BYTES
    held = trained * (held + GRADIENT_BYTES * (args.world_size > 1))
    if args.device.type == "cuda":
        held += round(RESERVE * torch.cuda.mem_get_info()[1])
    if args.activation_checkpointing:  # else `train` alone would switch it on
        how = dict(args.activation_checkpointing_kwargs or {})
        own = {key: how.pop(key) for key in ("every_n_layers", "offload") if key in how}
        model.activation_checkpointing_enable(how or None, **own)
    try:
        room = torch.empty(held, dtype=torch.uint8, device=args.device)
        for clips, frames, tokens in [*shapes] * 2:  # the second time with gradients in place
            ids = torch.ones(clips, tokens, dtype=torch.long, device=args.device)
            features = torch.zeros(clips, config.num_mel_bins, frames, device=args.device)
            batch = {"input_features": features, "decoder_input_ids": ids, "labels": ids}
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(model, batch)
            loss.backward()
        del room
        return True
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
        release()


def largest_batch(
    trainer: Trainer, rows: Mapping[str, Sequence], recipe: Recipe, most: int | None = None
) -> int:
    """Return the largest number of clips at once that fits and divides the effective batch; or 0.

    Args:
        trainer: with the model in place.
        rows: prepared ones like those that it trains on.
        recipe: its effective batch is the largest that is tried.
        most: a further upper limit.
    """
    seconds, tokens = np.array(rows["seconds"][:]), token_counts(rows, recipe)
    effective, processes = effective_batch(recipe.training), trainer.args.world_size
    for clips in smaller_batches(recipe.training, below=min(most or effective, effective) + 1):
        # Every process tries the largest batch of all of them.
        accumulation = effective // clips * processes
        batches = EqualSpeechBatches(
            seconds, effective * processes, trainer.args.seed, accumulation
        )
        if fits(trainer, largest_shapes(seconds, tokens, batches, recipe)):
            return clips
    return 0
