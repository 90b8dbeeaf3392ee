"""Seq2SeqTrainer with a short audio context, dev WER from real decoding, whole checkpoints."""

import contextlib
import functools
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer
from transformers.trainer_utils import SaveStrategy

from utils.config import Recipe
from utils.preprocessing.batches import EqualSpeechBatches, Passes
from utils.preprocessing.collator import IGNORED
from utils.preprocessing.examples import digest_of_clips
from utils.preprocessing.stream import SpeechStream
from utils.preprocessing.stream_loader import StreamLoader
from utils.scoring.error_rates import error_rate
from utils.training.arguments import without_autocast
from utils.training.checkpoints import copy_checkpoints, drop_old, new_checkpoint, stored_bytes
from utils.training.dev import Selection, count_dev_errors, dev_metric
from utils.training.memory import effective_batch
from utils.training.progress import Pace
from utils.training.sharding import Sharded
from utils.training.stopping import Losses, host_looks, outlive_sigterm
from utils.whisper.audio_context import audio_context

logger = logging.getLogger(__name__)

CLIPS = "clips.txt"  # in a checkpoint: the digest of what it was trained on


def loss_per_token(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy per label token of a whole update.

    Whisper's own loss, the mean of each batch, gives more weight to a token in a batch with few
    tokens; an update in two batches would have a different gradient from one of the same clips.

    `num_items_in_batch` are the label tokens of the update, over accumulation and processes, which
    the Trainer counts; None: those of these labels. Labels of -100 do not count.
    """
    logits = outputs["logits"].flatten(0, 1)
    total = F.cross_entropy(
        logits, labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORED).sum()
    return total / num_items_in_batch


class WhisperTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer with a short audio context, dev WER from real decoding, whole checkpoints."""

    def __init__(self, *, recipe: Recipe, checkpoints: Path | None = None, **kwargs: Any):
        smoothing = kwargs["args"].label_smoothing_factor
        loss = functools.partial(loss_per_token, smoothing=smoothing)
        super().__init__(compute_loss_func=loss, **kwargs)
        self.recipe = recipe
        self.checkpoints = checkpoints or Path(self.args.output_dir)  # where they are kept
        loads = self.args.load_best_model_at_end
        self.selection, self.dev_errors = Selection(recipe.method.patience > 0, loads), None
        self.pace = Pace(self.args.world_size)
        self.losses = Losses()
        self.stream: StreamLoader | None = None
        if isinstance(self.train_dataset, SpeechStream):
            workers, pinned = self.args.dataloader_num_workers, self.args.dataloader_pin_memory
            self.stream = StreamLoader(self.train_dataset, workers, pinned, outlive_sigterm)

    @functools.cached_property
    def clips(self) -> str:
        """A digest of the training and dev clips; with a stream, of the dev clips alone."""
        stored = (self.train_dataset, self.eval_dataset)
        return "".join(digest_of_clips(rows) for rows in stored if isinstance(rows, Dataset))

    def get_train_dataloader(self) -> DataLoader:
        """Return this process's batches of each update."""
        if self.stream:
            return self.stream
        batches = EqualSpeechBatches(
            self.train_dataset["seconds"][:],
            effective_batch(self.args) * self.args.world_size,
            self.args.seed,
            self.args.gradient_accumulation_steps,
            self.args.world_size,
            self.args.process_index,
        )
        loader = DataLoader(
            Passes(self.train_dataset),
            batch_sampler=batches,
            collate_fn=self.data_collator.with_samples,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            worker_init_fn=outlive_sigterm,
        )
        # Not accelerator.prepare: it would divide the batches a second time, and its wrapper does
        # not pass on the epoch when training is resumed.
        how = {"put_on_device": False, "dispatch_batches": False}
        return prepare_data_loader(loader, self.accelerator.device, 1, 0, **how)

    def _prepare_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Send a batch to the device and compute its log-mels there.

        The copy out of pinned memory runs beside the step before.
        """
        batch = {
            name: values.to(self.args.device, non_blocking=True) for name, values in inputs.items()
        }
        batch = self.data_collator.with_features(batch)
        self.pace.count(batch["input_features"])
        return batch

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        """Return the schedule; warn if the learning rate is still rising when training ends."""
        schedule = super().create_scheduler(num_training_steps, *args, **kwargs)
        warmup = self.args.get_warmup_steps(num_training_steps)
        rises = not any(group["lr"] for group in self.optimizer.param_groups)
        if rises and warmup >= num_training_steps > 1:
            told = "warmup_steps = %d, of %d in all: the learning rate rises to the end. Write 0.1."
            logger.warning(told, warmup, num_training_steps)
        return schedule

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """Return 0: Transformers would multiply the numbers of a log-mel by the weights."""
        return 0

    def compute_loss(self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        """Return the loss, with the encoder at the length of the batch."""
        whisper = self.accelerator.unwrap_model(model)
        with audio_context(whisper, inputs["input_features"].shape[-1]):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the pace of training to each logged loss."""
        super().log({**logs, **self.pace.tell()} if "loss" in logs else logs, *args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A finished run that is started again would take one more step (transformers 5.23).
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def training_step(
        self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Take one step, and stop before a NaN or infinite loss reaches the weights.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.losses.add(loss, self.state.global_step + 1)
        if host_looks(loss.device, self.state.global_step):
            self.losses.check()
        return loss

    def evaluate(self, *, ignore_keys: list[str] | None = None) -> dict[str, float]:
        """Return WER and CER of the model's transcripts of dev, at the recipe's context.

        Each of n processes takes every n-th clip, and all of them get the counts of all clips, so
        that every process makes the same decisions.
        """
        started = time.perf_counter()
        clips = len(self.eval_dataset)
        mine = range(self.args.process_index, clips, self.args.world_size)
        with without_autocast(self.model):
            counts = count_dev_errors(
                self.model,
                self.processing_class,
                self.eval_dataset.select(mine),
                self.recipe,
                self.recipe.decoding_context,
            )
        self.dev_errors = {
            metric: self._of_all_processes(part, mine, clips) for metric, part in counts.items()
        }
        took = time.perf_counter() - started
        self.pace.leave_out(took)
        rates = {f"eval_{name}": error_rate(errors) for name, errors in self.dev_errors.items()}
        metrics = {**rates, "eval_runtime": took}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _of_all_processes(self, counts: np.ndarray, mine: range, clips: int) -> np.ndarray:
        """Return the counts of all clips, in their order, gathered from all processes."""
        whole = torch.zeros(clips, counts.shape[1], dtype=torch.int64, device=self.args.device)
        whole[list(mine)] = torch.from_numpy(counts).to(self.args.device)
        return self.accelerator.reduce(whole, "sum").cpu().numpy()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # Without a checkpoint there is nothing to keep. The Trainer's own record of the best one
        # stays empty: with save_total_limit = 1 the last checkpoint would be deleted for it, and
        # it is a path, which a run folder that was moved no longer has (transformers 5.23).
        if not self.control.should_save and self.args.save_strategy != SaveStrategy.BEST:
            return False
        return self.selection.add(self.dev_errors[dev_metric(self.recipe)], self.state.global_step)

    def kept_step(self) -> int:
        """Return the step whose weights are kept."""
        if self.selection.prefers_best():
            return self.selection.fewest_step
        return self.state.global_step

    def load_kept(self) -> None:
        """Go back to the weights of the step that is kept, if it is not the last one."""
        if self.kept_step() != self.state.global_step:
            kept = Path(self.args.output_dir) / f"checkpoint-{self.kept_step()}"
            self._load_from_checkpoint(str(kept))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.losses.check()
        folder = Path(self.args.output_dir)
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        keep, self.args.save_total_limit = self.args.save_total_limit, None
        writes = new_checkpoint(checkpoint, needed=stored_bytes(self.model, self.optimizer))
        with writes if self.args.should_save else contextlib.nullcontext():
            super()._save_checkpoint(*args, **kwargs)
            if self.args.should_save:
                self.selection.save(checkpoint)
                (checkpoint / CLIPS).write_text(self.clips, encoding="utf-8")
            if self.stream:
                self.stream.save(checkpoint)
            # Each process writes its own random state.
            self.accelerator.wait_for_everyone()
        self.args.save_total_limit = keep
        if self.args.should_save:
            drop_old(folder, keep, f"checkpoint-{self.selection.fewest_step}")
            if folder != self.checkpoints:
                copy_checkpoints(folder, self.checkpoints)


class ShardedWhisperTrainer(Sharded, WhisperTrainer):
    """WhisperTrainer for a model that is divided among the processes."""
