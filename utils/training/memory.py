"""What fits the card: the largest batch at once, and smaller ones where memory runs out after all.

A smaller batch with as much more accumulation is the same update: the recipe's product of both, the
effective batch, stays what it is. Transformers' auto_find_batch_size leaves accumulation alone and
so trains another recipe than the one that was written.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from datasets import Dataset
from transformers import Trainer

DEFAULT_CLIPS = 8  # what per_device_train_batch_size is where a recipe does not set it
ADAM_BYTES = 8  # a weight's two running means, in float32
ADAM_8BIT_BYTES = 2
GRADIENT_BYTES = 4
# A full card has other words, too, where it is not PyTorch's allocator that asks.
FULL = ("out of memory", "_ALLOC_FAILED", "unable to find an engine")  # the last is cuDNN's

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


def effective_batch(training: Mapping[str, Any]) -> int:
    """Return how many clips one update sees on one device."""
    clips = training.get("per_device_train_batch_size", DEFAULT_CLIPS)
    return clips * training.get("gradient_accumulation_steps", 1)


def with_batch(training: Mapping[str, Any], clips: int) -> dict[str, Any]:
    """Return `[training]` with so many clips at once, and accumulation for the same updates."""
    batch = {
        "per_device_train_batch_size": clips,
        "gradient_accumulation_steps": effective_batch(training) // clips,
    }
    return {**training, **batch}


def smaller_batches(training: Mapping[str, Any]) -> list[int]:
    """Return the batches below the current one that divide the effective one, largest first."""
    clips = training.get("per_device_train_batch_size", DEFAULT_CLIPS)
    effective = effective_batch(training)
    return [size for size in range(clips - 1, 0, -1) if effective % size == 0]


def release() -> None:
    """Give back the memory of what is no longer used; a trainer and its parts hold each other."""
    gc.collect()
    torch.cuda.empty_cache()


def ran_out(error: RuntimeError) -> bool:
    """Tell whether an error says that the card's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in FULL)


def halving(work: Callable[[int], Result], batch_size: int) -> Result:
    """Return `work(batch_size)`, with half the batch each time that memory runs out."""
    while True:
        try:
            return work(batch_size)
        except RuntimeError as error:
            if batch_size == 1 or not ran_out(error):
                raise
        # Not above: while an error is handled, its traceback holds the tensors that filled it.
        batch_size //= 2
        release()
        logger.warning("Out of memory: going on with batches of %d.", batch_size)


def fits(trainer: Trainer, data: Dataset, batches: Iterable[list[int]]) -> bool:
    """Tell whether the heaviest of some batches can be trained on with all that training holds.

    That is the optimizer, the gradients of a batch before where several make an update, and of
    several processes the copy of the gradients that they exchange.
    """
    seconds, tokens = data["seconds"][:], [len(labels) for labels in data["labels"][:]]
    batches = list(batches)
    # Padding counts: a batch is as heavy as its longest member times its size.
    heaviest = [
        max(batches, key=lambda rows, sizes=sizes: len(rows) * max(sizes[row] for row in rows))
        for sizes in (seconds, tokens)
    ]
    model, args = trainer.model.train(), trainer.args
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    held = ADAM_8BIT_BYTES if "8bit" in args.optim else ADAM_BYTES
    held += GRADIENT_BYTES * (args.world_size > 1)
    if args.activation_checkpointing:  # else `train` alone would switch it on
        how = dict(args.activation_checkpointing_kwargs or {})
        own = {key: how.pop(key) for key in ("every_n_layers", "offload") if key in how}
        model.activation_checkpointing_enable(how or None, **own)
    try:
        room = torch.empty(trained * held, dtype=torch.uint8, device=args.device)
        for rows in heaviest * 2:  # the second time with gradients in place
            batch = trainer.data_collator([data[row] for row in rows])
            batch = {name: values.to(args.device) for name, values in batch.items()}
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
    trainer: Trainer,
    data: Dataset,
    training: Mapping[str, Any],
    cut: Callable[[int], Iterable[list[int]]],
) -> int:
    """Return the largest number of clips at once that fits and divides the effective batch.

    Args:
        trainer: with the model in place.
        data: prepared rows like those that it trains on.
        training: the recipe's; its effective batch is the most that is tried.
        cut: clips at once → the batches of row numbers that training would take.

    Raises:
        torch.OutOfMemoryError: not even one clip fits.
    """
    effective = effective_batch(training)
    for clips in range(effective, 0, -1):
        if effective % clips == 0 and fits(trainer, data, cut(clips)):
            return clips
    raise torch.OutOfMemoryError(
        "Not even one clip fits the memory: take a smaller checkpoint, lora, base_8bit, "
        "activation_checkpointing, or a lower max_seconds in [preprocessing]."
    )
