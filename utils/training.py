"""Fine-tuning: the model, the arguments and the trainer; run by lesson 04 and under torchrun."""

import argparse
import contextlib
import functools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset, load_from_disk
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from transformers.integrations import TensorBoardCallback

from utils.adapters import HardwareError, choose_weights, merge, quantization, require_8bit
from utils.artifacts import Run, RunMismatch, open_run, require, save_report, write_atomically
from utils.audio_context import audio_context
from utils.batches import EqualSpeechBatches
from utils.cache import FetchError
from utils.checkpoints import (
    copy_checkpoints,
    drop_old,
    find_valid_checkpoint,
    new_checkpoint,
    save_model,
    stored_bytes,
    whole_checkpoints,
)
from utils.colab import quick_disk
from utils.config import AudioContext, Recipe, RecipeError, load_recipe
from utils.decoding import transcribe
from utils.embedded import resolve
from utils.environment import device, loader_workers, precision, training_precision
from utils.error_rates import error_rate
from utils.memory import (
    halving,
    largest_batch,
    ran_out,
    release,
    smaller_batches,
    with_batch,
)
from utils.model import load_model
from utils.pace import Pace
from utils.predictions import count_row_errors
from utils.preprocessing import SpeechCollator, digest_of_clips, waveform
from utils.presets import preset
from utils.selection import Selection
from utils.sharding import Sharded, gather
from utils.speech_stream import SpeechStream
from utils.stopping import SIGNAL, Patience, ends_on_sigterm, outlive_sigterm
from utils.weights import average, blend

CLIPS = "clips.txt"  # in a checkpoint: the digest of what it was trained on

# Of the logs; `reindex` leaves a column empty that was not logged yet.
SHOWN = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "eval_wer": "dev WER",
    "clips_per_second": "clips/s",
    "audio_hours_per_hour": "audio, h/h",
    "memory_gib": "memory, GiB",
}

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and the way out."""


class Stopped(RuntimeError):
    """The machine asked to stop; a whole checkpoint is written, and the same command goes on."""


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


class MetricsFile(TrainerCallback):
    """Appends every log to `metrics.jsonl`, from which the curves can be drawn after a crash."""

    def __init__(self, run: Run, watch: Callable[[list[dict], int], None] | None = None):
        self.path, self.watch, self.rows = run.metrics, watch, []

    def on_train_begin(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Keep what led to the checkpoint that training goes on from, and nothing later."""
        rows = read_metrics(self.path) if self.path.exists() else []
        self.rows = [row for row in rows if row["step"] <= state.global_step]
        if state.is_world_process_zero:
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def on_log(self, args, state, control, logs: Mapping[str, Any], **_) -> None:  # noqa: ANN001
        """Write one line, and show it to whoever watches; one process of several does."""
        if not state.is_world_process_zero:
            return
        self.rows.append({"step": state.global_step, "time": time.time(), **logs})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        if self.watch:
            self.watch(self.rows, state.max_steps)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the trainer's logs, oldest first; a line cut off by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def progress_line(rows: list[dict[str, Any]], max_steps: int) -> str:
    """Return one line that says how far training is and how long it will still take."""
    last = rows[-1]
    done = last["step"] - rows[0]["step"]
    parts = [f"step {last['step']}/{max_steps}"]
    if "loss" in last:
        parts.append(f"loss {last['loss']:.3f}")
        parts.append(f"{last['clips_per_second']:.1f} clips/s, {last['memory_gib']:.1f} GiB")
    if "eval_wer" in last:
        parts.append(f"dev WER {last['eval_wer']:.1%}")
    if "train_runtime" in last:
        parts.append(f"trained in {last['train_runtime']:.0f} s")
    elif done:
        left = (last["time"] - rows[0]["time"]) / done * (max_steps - last["step"])
        minutes, seconds = divmod(round(left), 60)
        parts.append(f"{minutes} min {seconds} s left")
    return " · ".join(parts)


def progress_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the newest logs, a line for each step."""
    logs = pd.DataFrame(rows).groupby("step").last()  # loss and dev WER are logged one by one
    return logs.reindex(columns=list(SHOWN)).rename(columns=SHOWN).tail(12)


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
            task=recipe.model.task,
        ),
        recipe.evaluation.batch_size,
    )
    read = zip(rows["text"][:], rows["language"][:], hypotheses, strict=True)
    told = [{"reference": text, "language": code, "dev": heard} for text, code, heard in read]
    return count_row_errors(told, "dev", "word", recipe.evaluation.normalized)


def training_arguments(recipe: Recipe, run: Run) -> Seq2SeqTrainingArguments:
    """Return the recipe's `[training]` with what follows from the run folder and the hardware."""
    width = WhisperConfig.from_pretrained(
        resolve(recipe.model.checkpoint), revision=recipe.model.revision
    ).d_model
    arguments = {
        **preset(width, recipe.method.weights),
        "eval_strategy": "steps",
        "save_strategy": "steps",
        # The one that `Selection` takes on dev: test is not looked at before lesson 05.
        "load_best_model_at_end": True,
        "metric_for_best_model": "wer",
        "greater_is_better": False,
        "report_to": "none",  # build_trainer adds TensorBoard, with a folder of the run's
        # A stream goes on from where a checkpoint says, without reading what came before.
        "ignore_data_skip": not recipe.preprocessing.stored,
        # The default hides a NaN loss: it logs 0.0 while every weight is NaN already.
        "logging_nan_inf_filter": False,
        # Unless told so, processes on a machine without a GPU do not find each other: each would
        # train alone, into the same folder (accelerate 1.15).
        "use_cpu": device().type == "cpu",
        "ddp_find_unused_parameters": False,  # every trained weight takes part in every step
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataloader_num_workers": loader_workers(),
        "disable_tqdm": True,  # progress_line says more in one line
        **recipe.training,
    }
    # Processes that are started anew for each pass would import torch each time.
    arguments.setdefault("dataloader_persistent_workers", arguments["dataloader_num_workers"] > 0)
    if recipe.method.average_last and arguments.get("save_total_limit"):
        # The best one stays, too, and may be older.
        least = recipe.method.average_last + 1
        arguments["save_total_limit"] = max(arguments["save_total_limit"], least)
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


def main() -> None:
    """Train a recipe from the shell; several processes under torchrun share the work."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    started = time.perf_counter()
    try:
        recipe = load_recipe(options.recipe)
        run = open_run(recipe, options.runs)
        trainer = train(
            recipe, run, lambda rows, steps: print(progress_line(rows, steps), flush=True)
        )
        if trainer.args.should_save:
            report = training_report(trainer, run, time.perf_counter() - started)
            print("wrote", save_report(run, "training", report))
    except Stopped as reason:
        print(reason, file=sys.stderr)
        sys.exit(128 + SIGNAL)  # what a shell reports for a process that the signal has ended
    except (FetchError, HardwareError, OSError, RecipeError, RunMismatch, TrainingError) as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
