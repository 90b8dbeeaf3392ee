"""One training from a recipe to saved weights: build the trainer, resume, keep the weights."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from datasets import Dataset, DatasetDict, load_from_disk
from peft import PeftModel
from transformers import PrinterCallback, Seq2SeqTrainingArguments
from transformers.integrations import TensorBoardCallback

from utils.artifacts import Run, RunMismatch, require
from utils.config import Recipe, UserError
from utils.embedded.fetch import public_name
from utils.environment.lock import only_writer
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.stream import SpeechStream
from utils.training.adapters import choose_weights, merge, quantization, save_adapter
from utils.training.arguments import same_sums_on_cpu, take_off_autocast, training_arguments
from utils.training.checkpoints import copy_checkpoints, find_valid_checkpoint, save_model
from utils.training.dev import Patience, dev_metric, dev_slice
from utils.training.memory import (
    effective_batch,
    largest_batch,
    note_smaller,
    noted,
    ran_out,
    release,
    smaller_batches,
    with_batch,
)
from utils.training.progress import Curves, MetricsFile
from utils.training.sharding import Sharded, gather
from utils.training.stopping import SIGNAL, TrainingError, ends_on_sigterm
from utils.training.trainer import CLIPS, ShardedWhisperTrainer, WhisperTrainer
from utils.whisper.load import allow_no_text, load_model

Watch = Callable[[list[dict], int], None]
logger = logging.getLogger(__name__)


class Stopped(UserError):
    """SIGTERM came; a complete checkpoint is written, and the same command continues."""

    exit_code = 128 + SIGNAL  # what a shell reports for a process that the signal has ended


def train(recipe: Recipe, run: Run, watch: Watch | None = None) -> WhisperTrainer:
    """Fine-tune, resuming from the newest complete checkpoint, and save the weights.

    Raises:
        MissingArtifact: the data has not been prepared.
        TrainingError: the loss is not a number, or one of several processes ran out of memory.
        DiskFull: a checkpoint does not fit.
        Stopped: SIGTERM came.
        InUse: another process writes to the run folder.
    """
    with only_writer(run.folder):
        trainer, recipe = _train_what_fits(fit_batch(recipe, run), run, watch)
        keep_weights(trainer, recipe, run)
    return trainer


def _train_what_fits(
    recipe: Recipe, run: Run, watch: Watch | None
) -> tuple[WhisperTrainer, Recipe]:
    """Return the trainer after its last step, and the recipe with the batch that fitted."""
    while True:
        trainer = build_trainer(recipe, run, watch)
        try:
            resume(trainer)
            return trainer, recipe
        except RuntimeError as error:
            smaller = smaller_batches(recipe.training)
            if not ran_out(error) or not smaller:
                raise
            if trainer.args.world_size > 1:
                # The others wait for this one's gradients, so all must start together.
                note_smaller(run.folder, smaller[0])
                raise TrainingError(
                    f"Process {trainer.args.process_index} ran out of memory. Run the same again: "
                    f"training goes on from the last whole checkpoint with {smaller[0]} clips at "
                    "once and as much more accumulation, which is the same training."
                ) from error
        del trainer
        release()
        logger.warning("Out of memory: going on with %d clips at once.", smaller[0])
        recipe = replace(recipe, training=with_batch(recipe.training, smaller[0]))


def build_trainer(recipe: Recipe, run: Run, watch: Watch | None = None) -> WhisperTrainer:
    """Return a trainer over the prepared data of a run.

    Args:
        recipe: the experiment.
        run: holds `prepared/`; checkpoints and `metrics.jsonl` go into it.
        watch: called at every log with all logs so far and the number of the last step.
    """
    require(run, "preprocessing")
    arguments = training_arguments(recipe, run)
    # The Trainer sets it, too, but later than the matrices of LoRA are drawn.
    transformers.set_seed(arguments.seed)
    model, processor = load_model(recipe, quantization(recipe.method))
    splits = load_from_disk(str(run.prepared)).with_format(
        "numpy", columns=["audio"], output_all_columns=True
    )
    if recipe.augmentation.non_speech or "" in splits["train"]["text"][:]:
        allow_no_text(model)
    model = choose_weights(model, recipe.method)
    collator = SpeechCollator(
        processor,
        recipe.audio_context,
        arguments.seed,
        recipe.augmentation,
        recipe.windows,
        math.ceil(arguments.per_device_train_batch_size / 2),
    )
    # With one process there is nothing to divide.
    sharded = recipe.method.shard and arguments.world_size > 1
    trainer = (ShardedWhisperTrainer if sharded else WhisperTrainer)(
        recipe=recipe,
        checkpoints=run.checkpoints,
        model=model,
        args=arguments,
        train_dataset=train_rows(recipe, splits, collator, arguments),
        eval_dataset=dev_slice(splits["dev"], recipe.evaluation.dev_minutes),
        data_collator=collator,
        processing_class=processor,
        callbacks=[MetricsFile(run, watch)],
    )
    if trainer.pop_callback(TensorBoardCallback) or "report_to" not in recipe.training:
        trainer.add_callback(Curves(run))
    trainer.remove_callback(PrinterCallback)
    if recipe.method.patience:
        trainer.add_callback(Patience(recipe.method.patience, f"eval_{dev_metric(recipe)}"))
    return trainer


def train_rows(
    recipe: Recipe,
    splits: DatasetDict,
    collator: SpeechCollator,
    arguments: Seq2SeqTrainingArguments,
) -> Dataset | SpeechStream:
    """Return the training data: the stored rows, or batches streamed during training."""
    if recipe.preprocessing.stored:
        return splits["train"]
    return SpeechStream(
        recipe,
        collator.processor.tokenizer,
        {name: rows for name, rows in splits.items() if name != "train"},
        effective_batch(arguments),
        collator.with_samples,
        arguments.gradient_accumulation_steps,
        arguments.world_size,
        arguments.process_index,
    )


def fit_batch(recipe: Recipe, run: Run) -> Recipe:
    """Return the recipe with the largest batch that fits on the GPU, and the same updates.

    Raises:
        torch.OutOfMemoryError: not even one clip fits.
    """
    most = noted(run.folder)
    if most:
        recipe = replace(recipe, training=with_batch(recipe.training, most))
    if not torch.cuda.is_available():
        return recipe  # without a limit of its own, memory is not what bounds the batch
    if recipe.method.shard and PartialState().num_processes > 1:
        return recipe  # processes that share layers would have to run out of memory together
    release()  # what a notebook has let go lies on the card until it is collected
    trainer = build_trainer(recipe, run)
    rows = load_from_disk(str(run.prepared))["train"]  # of a stream these are a sample
    clips = largest_batch(trainer, rows, recipe, most)
    # What fits the fullest card; all of them divide the effective batch.
    every = trainer.accelerator.gather(torch.tensor([clips], device=trainer.args.device))
    clips = int(every.min())
    del trainer
    release()
    torch.cuda.reset_peak_memory_stats()  # what is told from here on is training's
    if not clips:
        raise torch.OutOfMemoryError(
            "Not even one clip fits the memory: take a smaller checkpoint, lora, base_8bit, "
            "activation_checkpointing, or a lower max_seconds in [preprocessing]."
        )
    return replace(recipe, training=with_batch(recipe.training, clips))


def resume(trainer: WhisperTrainer) -> None:
    """Train to the last step, resuming from the newest complete checkpoint if there is one.

    Raises:
        RunMismatch: the checkpoint was trained on different clips.
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
        if trainer.stream:
            trainer.stream.go_on_from(checkpoint)
    with ends_on_sigterm(trainer) as stop, same_sums_on_cpu(trainer.args.device):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.received:
        raise Stopped(
            f"{SIGNAL.name} came: step {trainer.state.global_step} is saved in "
            f"{trainer.checkpoints}; run the same again and training goes on from there."
        )
    trainer.losses.check()  # those of the last steps, if no checkpoint was written after them


@torch.no_grad()
def keep_weights(trainer: WhisperTrainer, recipe: Recipe, run: Run) -> None:
    """Save the kept weights, adapters merged, as an ordinary Whisper."""
    trainer.load_kept()
    model = trainer.accelerator.unwrap_model(trainer.model)
    take_off_autocast(model)  # the saved model will be read without it
    if isinstance(trainer, Sharded):
        trainer.model = model = gather(model)
    if isinstance(model, PeftModel):
        if trainer.args.should_save:
            save_adapter(model, run.adapter, public_name(recipe.model.checkpoint))
        trainer.accelerator.wait_for_everyone()
        # Into weights as the checkpoint has them: those beside the adapter may be of 8 bits.
        start, _ = load_model(recipe)
        start.generation_config = model.generation_config
        trainer.model = model = merge(start, run.adapter).to(trainer.args.device)
    # Settings of this training, as OpenAI has them: the Trainer turns the cache off.
    model.config.update({"apply_spec_augment": False, "use_cache": True})
    if trainer.args.should_save:
        save_model(model, trainer.processing_class, run.model)
