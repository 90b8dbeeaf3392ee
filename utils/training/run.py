"""One training from a recipe to saved weights: fit the batch, resume, keep the weights."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import load_from_disk
from peft import PeftModel
from transformers import PrinterCallback
from transformers.integrations import TensorBoardCallback

from utils.artifacts import Run, RunMismatch, require
from utils.config import Recipe
from utils.environment.machine import precision
from utils.preprocessing.batches import EqualSpeechBatches
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.stream import SpeechStream
from utils.training.adapters import choose_weights, merge, quantization
from utils.training.arguments import training_arguments
from utils.training.averaging import average, blend
from utils.training.checkpoints import (
    copy_checkpoints,
    find_valid_checkpoint,
    save_model,
    whole_checkpoints,
)
from utils.training.dev import dev_slice
from utils.training.memory import largest_batch, ran_out, release, smaller_batches, with_batch
from utils.training.progress import MetricsFile, read_metrics
from utils.training.sharding import Sharded, gather
from utils.training.stopping import SIGNAL, Patience, ends_on_sigterm
from utils.training.trainer import CLIPS, ShardedWhisperTrainer, WhisperTrainer
from utils.whisper.load import load_model

logger = logging.getLogger(__name__)


class Stopped(RuntimeError):
    """The machine asked to stop; a whole checkpoint is written, and the same command goes on."""


def build_trainer(
    recipe: Recipe, run: Run, watch: Callable[[list[dict], int], None] | None = None
) -> WhisperTrainer:
    """Return a trainer over the prepared data of a run.

    Args:
        recipe: the experiment.
        run: holds `prepared/`; checkpoints and `metrics.jsonl` go into it.
        watch: called at every log with all logs so far and the last step to come.
    """
    require(run, "preprocessing")
    arguments = training_arguments(recipe, run)
    model, processor = load_model(recipe, quantization(recipe.method))
    model = choose_weights(model, recipe.method)
    splits = load_from_disk(str(run.prepared)).with_format(
        "numpy", columns=["audio"], output_all_columns=True
    )
    collator = SpeechCollator(
        processor, recipe.audio_context, arguments.seed, recipe.augmentation, recipe.windows
    )
    train_dataset = splits["train"]
    if not recipe.preprocessing.stored:
        train_dataset = SpeechStream(
            recipe,
            processor.tokenizer,
            {name: rows for name, rows in splits.items() if name != "train"},
            arguments.train_batch_size,
            collator,
            arguments.world_size,
            arguments.process_index,
        )
    # One process has nobody to divide with.
    sharded = recipe.method.shard and arguments.world_size > 1
    trainer = (ShardedWhisperTrainer if sharded else WhisperTrainer)(
        recipe=recipe,
        checkpoints=run.checkpoints,
        model=model,
        args=arguments,
        train_dataset=train_dataset,
        eval_dataset=dev_slice(splits["dev"], recipe.evaluation.dev_minutes),
        data_collator=collator,
        processing_class=processor,
        callbacks=[MetricsFile(run, watch)],
    )
    if "report_to" not in recipe.training:
        board = TensorBoardCallback()
        board.logging_dir = str(run.tensorboard)  # the name of its own would tell the machine's
        trainer.add_callback(board)
    trainer.remove_callback(PrinterCallback)
    if recipe.method.patience:
        trainer.add_callback(Patience(recipe.method.patience))
    return trainer


def train(
    recipe: Recipe, run: Run, watch: Callable[[list[dict], int], None] | None = None
) -> WhisperTrainer:
    """Fine-tune, going on from the newest whole checkpoint, and save what the recipe keeps of it.

    Raises:
        MissingArtifact: the data has not been prepared.
        TrainingError: the loss is no number.
        DiskFull: a checkpoint does not fit.
        Stopped: SIGTERM came.
    """
    recipe = fit_batch(recipe, run)
    while True:
        trainer = build_trainer(recipe, run, watch)
        try:
            resume(trainer)
            break
        except RuntimeError as error:
            smaller = smaller_batches(recipe.training)
            # Of several processes the others wait for this one's gradients: they start together.
            if not ran_out(error) or not smaller or trainer.args.world_size > 1:
                raise
        del trainer
        release()
        logger.warning("Out of memory: going on with %d clips at once.", smaller[0])
        recipe = replace(recipe, training=with_batch(recipe.training, smaller[0]))
    keep_weights(trainer, recipe, run)
    return trainer


def fit_batch(recipe: Recipe, run: Run) -> Recipe:
    """Return the recipe with the largest batch at once that the GPU holds, and the same updates."""
    if not torch.cuda.is_available():
        return recipe  # without a limit of its own, memory is not what bounds the batch
    if recipe.method.shard and PartialState().num_processes > 1:
        return recipe  # processes that share layers would have to run out of memory together
    release()  # what a notebook has let go lies on the card until it is collected
    trainer = build_trainer(recipe, run)
    rows = load_from_disk(str(run.prepared))["train"]  # of a stream these are a sample
    rows = rows.with_format("numpy", columns=["audio"], output_all_columns=True)
    seconds, seed = rows["seconds"][:], trainer.args.seed
    clips = largest_batch(
        trainer, rows, recipe.training, lambda clips: EqualSpeechBatches(seconds, clips, seed)
    )
    # What fits the fullest card; all of them divide the effective batch.
    every = trainer.accelerator.gather(torch.tensor([clips], device=trainer.args.device))
    clips = int(every.min())
    del trainer
    release()
    torch.cuda.reset_peak_memory_stats()  # what is told from here on is training's
    return replace(recipe, training=with_batch(recipe.training, clips))


def resume(trainer: WhisperTrainer) -> None:
    """Train to the last step, going on from the newest whole checkpoint if there is one.

    Raises:
        RunMismatch: the checkpoint was trained on other clips than are there now.
        Stopped: SIGTERM came.
    """
    folder = Path(trainer.args.output_dir)
    checkpoint = find_valid_checkpoint(folder)
    if checkpoint is None and folder != trainer.checkpoints:  # a new runtime's disk is empty
        copy_checkpoints(trainer.checkpoints, folder)
        checkpoint = find_valid_checkpoint(folder)
    if checkpoint:
        told = checkpoint / CLIPS  # not in a checkpoint from before there was one
        if told.exists() and told.read_text(encoding="utf-8") != trainer.clips:
            run = trainer.checkpoints.parent
            raise RunMismatch(
                f"{checkpoint} was trained on other clips than those that {run} holds now: were "
                "recordings added, changed or removed? Give the recipe a new name, or delete "
                f"{run} to start over."
            )
        trainer.selection.load(checkpoint)
        if isinstance(trainer.train_dataset, SpeechStream):
            trainer.train_dataset.go_on_from(checkpoint)
    with ends_on_sigterm(trainer) as stop, same_sums_on_cpu(trainer.args.device):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.received:
        raise Stopped(
            f"{SIGNAL.name} came: step {trainer.state.global_step} is saved in "
            f"{trainer.checkpoints}; run the same again and training goes on from there."
        )


@contextlib.contextmanager
def same_sums_on_cpu(device: torch.device) -> Iterator[None]:
    """Let a run on a CPU end with the same weights each time, also with several threads.

    Otherwise some gradients are added up in the order in which the threads come, and a last bit
    that differs at step 4 is another word in the transcripts at step 40. On a GPU it would cost
    speed, and mixed precision rounds anyway.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@torch.no_grad()
def keep_weights(trainer: WhisperTrainer, recipe: Recipe, run: Run) -> None:
    """Turn what training ended with into the model that the recipe keeps, and save that.

    In this order: the mean of the last checkpoints, the adapter merged, the blend with the start.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    # The saved model will be read without autocast, which accelerate has put around this one's
    # forward; its own way to take it off takes Whisper's decorators along (accelerate 1.15).
    for name in ("forward", "_original_forward"):
        vars(model).pop(name, None)
    if isinstance(trainer, Sharded):
        trainer.model = model = gather(model)
    if recipe.method.average_last:
        last = whole_checkpoints(Path(trainer.args.output_dir))[-recipe.method.average_last :]
        average(model, last)
    if isinstance(model, PeftModel):
        if trainer.args.should_save:
            model.save_pretrained(run.adapter)
        trainer.accelerator.wait_for_everyone()
        # Into weights as the checkpoint has them: those beside the adapter may be of 8 bits.
        start, _ = load_model(recipe)
        trainer.model = model = merge(start, run.adapter).to(trainer.args.device)
    if recipe.model.tuned_share < 1:
        start, _ = load_model(recipe)
        blend(model, start.state_dict(), recipe.model.tuned_share)
    if trainer.args.should_save:
        save_model(model, trainer.processing_class, run.model)


def kept_step(trainer: WhisperTrainer) -> int:
    """Return at which step the checkpoint was written that dev chose; the last without any."""
    best = trainer.state.best_model_checkpoint  # not every evaluation has a checkpoint
    return int(best.rpartition("-")[2]) if best else trainer.state.global_step


def training_report(trainer: WhisperTrainer, run: Run, seconds: float) -> dict[str, Any]:
    """Return what `training.json` tells of a training: steps, losses, dev WER, seconds, batches."""
    logs, state, used = read_metrics(run.metrics), trainer.state, trainer.args
    losses = [row["loss"] for row in logs if "loss" in row]
    return {
        "steps": state.global_step,
        "best_step": kept_step(trainer),
        "loss_first": losses[0] if losses else None,  # none within fewer steps than logging_steps
        "loss_last": losses[-1] if losses else None,
        "dev_wer_by_step": {row["step"]: row["eval_wer"] for row in logs if "eval_wer" in row},
        "seconds": seconds,
        "precision": precision().name,
        "weights": trainer.recipe.method.weights,
        "clips_at_once": used.per_device_train_batch_size,
        "accumulation": used.gradient_accumulation_steps,
    }
