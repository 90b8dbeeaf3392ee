"""Seq2SeqTrainer with a short audio context, dev WER from real decoding, whole checkpoints."""

import contextlib
import functools
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer

from utils.config import Recipe
from utils.preprocessing.batches import EqualSpeechBatches
from utils.preprocessing.prepare import digest_of_clips
from utils.preprocessing.stream import SpeechStream
from utils.scoring.error_rates import error_rate
from utils.training.checkpoints import copy_checkpoints, drop_old, new_checkpoint, stored_bytes
from utils.training.dev import count_dev_errors
from utils.training.pace import Pace
from utils.training.selection import Selection
from utils.training.sharding import Sharded
from utils.training.stopping import outlive_sigterm
from utils.whisper.audio_context import audio_context

CLIPS = "clips.txt"  # in a checkpoint: the digest of what it was trained on


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and the way out."""


class WhisperTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer with a short audio context, dev WER from real decoding, whole checkpoints."""

    def __init__(self, *, recipe: Recipe, checkpoints: Path | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.recipe = recipe
        self.checkpoints = checkpoints or Path(self.args.output_dir)  # where they shall survive
        self.selection, self.dev_errors = Selection(), None
        self.pace = Pace(self.args.world_size)

    @functools.cached_property
    def clips(self) -> str:
        """A digest of the clips to train on and to judge by; of a stream, of the latter alone."""
        stored = (self.train_dataset, self.eval_dataset)
        return "".join(digest_of_clips(rows) for rows in stored if isinstance(rows, Dataset))

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of equal speech; under torchrun each process takes every n-th."""
        if isinstance(self.train_dataset, SpeechStream):
            loader = DataLoader(
                self.train_dataset, batch_size=None, pin_memory=self.args.dataloader_pin_memory
            )
            return self._on_device(loader)
        batches = EqualSpeechBatches(
            self.train_dataset["seconds"][:],
            self.args.train_batch_size,
            self.args.seed,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            worker_init_fn=outlive_sigterm,
        )
        return self._on_device(loader)

    def _on_device(self, loader: DataLoader) -> DataLoader:
        # Not accelerator.prepare: it would share the batches out a second time, behind a wrapper
        # that does not pass on which epoch it is when training is resumed.
        return prepare_data_loader(
            loader, self.accelerator.device, 1, 0, put_on_device=True, dispatch_batches=False
        )

    def compute_loss(self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        """Return the loss with the encoder at the length that the batch has."""
        whisper = self.accelerator.unwrap_model(model)
        with audio_context(whisper, inputs["input_features"].shape[-1]):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log how fast training goes beside each loss."""
        super().log({**logs, **self.pace.tell()} if "loss" in logs else logs, *args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A run that has ended and is called again would take one step more (transformers 5.23).
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def training_step(
        self, model: torch.nn.Module, inputs: dict, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Take one step, and stop before a loss that is no number reaches the weights.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        self.pace.count(inputs["input_features"])
        loss = super().training_step(model, inputs, *args, **kwargs)
        if isinstance(self.train_dataset, SpeechStream):
            self.train_dataset.taken += 1
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}; the weights of "
                "the step before are unharmed. Lower learning_rate, or look for broken clips."
            )
        return loss

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **_: Any,
    ) -> dict[str, float]:
        """Return the WER of what the model really writes on the dev split, at the short context."""
        started = time.perf_counter()
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        self.dev_errors = count_dev_errors(
            self.model, self.processing_class, rows, self.recipe, self.recipe.audio_context
        )
        took = time.perf_counter() - started
        self.pace.leave_out(took)
        metrics = {
            f"{metric_key_prefix}_wer": error_rate(self.dev_errors),
            f"{metric_key_prefix}_runtime": took,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        if not self.selection.accepts(self.dev_errors):
            return False
        self.state.best_metric = metrics["eval_wer"]
        self.state.best_global_step = self.state.global_step
        return True

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        folder = Path(self.args.output_dir)
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        keep, self.args.save_total_limit = self.args.save_total_limit, None
        writes = new_checkpoint(checkpoint, needed=stored_bytes(self.model, self.optimizer))
        with writes if self.args.should_save else contextlib.nullcontext():
            super()._save_checkpoint(*args, **kwargs)
            if self.args.should_save:
                self.selection.save(checkpoint)
                (checkpoint / CLIPS).write_text(self.clips, encoding="utf-8")
            if isinstance(self.train_dataset, SpeechStream):
                self.train_dataset.save(checkpoint)
            # Each process writes its own random state.
            self.accelerator.wait_for_everyone()
        self.args.save_total_limit = keep
        if self.args.should_save:
            drop_old(folder, keep, self.state.best_model_checkpoint)
            if folder != self.checkpoints:
                copy_checkpoints(folder, self.checkpoints)


class ShardedWhisperTrainer(Sharded, WhisperTrainer):
    """WhisperTrainer with a model that is divided among the processes."""
