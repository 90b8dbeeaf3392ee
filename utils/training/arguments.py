"""What Seq2SeqTrainingArguments gets: the recipe's `[training]`, and what the machine decides."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, WhisperConfig

from utils.artifacts import Run
from utils.config import Recipe
from utils.embedded.fetch import resolve
from utils.environment.colab import quick_disk
from utils.environment.machine import device, loader_workers, training_precision
from utils.environment.training_table import DEFAULTS, preset
from utils.training.adapters import require_8bit
from utils.training.dev import dev_metric
from utils.training.memory import effective_batch
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS


def training_arguments(recipe: Recipe, run: Run) -> Seq2SeqTrainingArguments:
    """Return the recipe's `[training]` with what follows from the run folder and the hardware."""
    width = WhisperConfig.from_pretrained(
        resolve(recipe.model.checkpoint), revision=recipe.model.revision
    ).d_model
    arguments = {
        **preset(width, recipe.method.weights),
        **DEFAULTS,
        "metric_for_best_model": dev_metric(recipe),
        # A stream continues at the place in the checkpoint, without decoding what came before.
        "ignore_data_skip": not recipe.preprocessing.stored,
        # The default hides a NaN loss: it logs 0.0 while every weight is NaN already.
        "logging_nan_inf_filter": False,
        # Without this, processes on a machine without a GPU do not find each other: each would
        # train alone, into the same folder (accelerate 1.15).
        "use_cpu": device().type == "cpu",
        "ddp_find_unused_parameters": False,  # every trained weight takes part in every step
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_num_workers": loader_workers(_largest_batch_bytes(recipe)),
        "disable_tqdm": True,  # progress_line says more in one line
        **recipe.training,
    }
    # Workers that start again for each epoch would import torch each time.
    arguments.setdefault("dataloader_persistent_workers", arguments["dataloader_num_workers"] > 0)
    if "8bit" in arguments.get("optim", ""):
        require_8bit(f'optim = "{arguments["optim"]}"')
    made = Seq2SeqTrainingArguments(
        output_dir=str(quick_disk(run.checkpoints)),
        remove_unused_columns=False,  # the collator needs the audio column
        label_names=["labels"],
        **training_precision(),
        **arguments,
    )
    # Several GPUs are for torchrun: in one process Transformers would spread each batch over them
    # by DataParallel, in float32 and with a batch that many times the recipe's (5.23).
    made._n_gpu = min(made.n_gpu, 1)
    return made


def _largest_batch_bytes(recipe: Recipe) -> int:
    """Return the bytes of the samples of one update at 30 s: no batch is larger."""
    each = 4 if recipe.augmentation.changes_sound else 2
    return round(effective_batch(recipe.training) * STOCK_SECONDS * SAMPLING_RATE * each)


@contextlib.contextmanager
def same_sums_on_cpu(device: torch.device) -> Iterator[None]:
    """Make a run on a CPU end with the same weights each time, also with several threads.

    Otherwise some gradients are added in the order in which threads finish, and a last bit that
    differs at step 4 is a different word in the transcripts at step 40. On a GPU it would cost
    speed, and mixed precision rounds anyway.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def take_off_autocast(model: torch.nn.Module) -> dict[str, Any]:
    """Return what accelerate has put around a model's forward, and leave the model without it.

    Its own way to take it off takes Whisper's decorators along (accelerate 1.15).
    """
    names = {"forward", "_original_forward"} & vars(model).keys()
    return {name: vars(model).pop(name) for name in names}


@contextlib.contextmanager
def without_autocast(model: torch.nn.Module) -> Iterator[None]:
    """Let a model that is being trained decode as `packed` chooses: on a CPU in 32 bits."""
    wrapped = take_off_autocast(model)
    try:
        yield
    finally:
        vars(model).update(wrapped)
