"""How far and how fast training is: its pace, `metrics.jsonl`, one line, a table, the report."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from utils.artifacts import Run, write_atomically
from utils.environment.machine import peak_gib, precision
from utils.training.dev import dev_metric
from utils.whisper.audio_context import FRAMES_PER_SECOND

if TYPE_CHECKING:  # which counts its pace here
    from utils.training.trainer import WhisperTrainer

# Of the logs: their names and forms in the table.
SHOWN = {
    "loss": ("loss", "{:.3f}"),
    "learning_rate": ("learning rate", "{:.1e}"),
    "eval_wer": ("dev WER", "{:.1%}"),
    "eval_cer": ("dev CER", "{:.1%}"),
    "clips_per_second": ("clips/s", "{:.1f}"),
    "audio_hours_per_hour": ("audio, h/h", "{:.1f}"),
    "memory_gib": ("memory, GiB", "{:.1f}"),
}


class Pace:
    """Counts batches as they are trained on, and returns the pace since its last report."""

    def __init__(self, processes: int):
        self.processes = processes  # each gets as much audio
        self.since: float | None = None
        self.clips, self.seconds = 0, 0.0

    def count(self, features: torch.Tensor) -> None:
        """Count a batch of log-mels `(clips, mels, frames)` that is about to be trained on."""
        if self.since is None:
            self.since = time.perf_counter()
        self.clips += len(features)
        self.seconds += len(features) * features.shape[-1] / FRAMES_PER_SECOND

    def leave_out(self, seconds: float) -> None:
        """Do not count the time that an evaluation took."""
        if self.since is not None:
            self.since += seconds

    def tell(self) -> dict[str, float]:
        """Return the pace of all processes since the last call.

        `audio_hours_per_hour` counts the encoder's windows, silence behind a clip and all.
        `memory_gib` is the most so far: of the GPU, else of the process.
        """
        now = time.perf_counter()
        rate = self.processes / max(now - (self.since or now), 1e-9)
        gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else peak_gib()
        told = {
            "clips_per_second": round(self.clips * rate, 2),
            "audio_hours_per_hour": round(self.seconds * rate, 1),
            "memory_gib": round(gib, 2),
        }
        self.since, self.clips, self.seconds = now, 0, 0.0
        return told


class MetricsFile(TrainerCallback):
    """Appends every log to `metrics.jsonl`, from which the curves can be drawn after a crash."""

    def __init__(self, run: Run, watch: Callable[[list[dict], int], None] | None = None):
        self.path, self.watch, self.rows = run.metrics, watch, []
        self.process = f"{os.getpid()} {time.time_ns()}"

    def on_train_begin(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Keep the logs up to the checkpoint that training resumes from, and drop later ones."""
        rows = read_metrics(self.path) if self.path.exists() else []
        self.rows = [row for row in rows if row["step"] <= state.global_step]
        if state.is_world_process_zero:
            write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def on_log(self, args, state, control, logs: Mapping[str, Any], **_) -> None:  # noqa: ANN001
        """Write one line and call the watcher; only the first of several processes does."""
        if not state.is_world_process_zero:
            return
        now = {"time": time.time(), "clock": time.monotonic(), "process": self.process}
        self.rows.append({"step": state.global_step, **now, **logs})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        if self.watch:
            self.watch(self.rows, state.max_steps)


class Curves(TensorBoardCallback):
    """TensorBoard's curves, in the run's folder, without the name of this machine."""

    def __init__(self, run: Run):
        super().__init__()
        self.logging_dir = str(run.tensorboard)  # its own would be called after the machine

    def on_train_end(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Close the file of events, and take the machine out of its name, and of older ones."""
        super().on_train_end(args, state, control)
        host = socket.gethostname()
        for path in (
            Path(self.logging_dir).glob("*tfevents*") if state.is_world_process_zero else ()
        ):
            path.rename(path.with_name(path.name.replace(f".{host}.", ".this-machine.")))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the trainer's logs, oldest first; a line cut off by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) and isinstance(row.get("step"), int) else []
    return rows


def progress_line(rows: list[dict[str, Any]], max_steps: int) -> str:
    """Return one line with the progress of training and the time left."""
    last = rows[-1]
    # Of this process alone, by a clock that nobody sets: else a pause would count as work.
    paced = [row for row in rows if row.get("process") == last.get("process") and "clock" in row]
    done = last["step"] - paced[0]["step"] if paced else 0
    parts = [f"step {last['step']}/{max_steps}"]
    if "loss" in last:
        parts.append(f"loss {last['loss']:.3f}")
        parts.append(f"{last['clips_per_second']:.1f} clips/s, {last['memory_gib']:.1f} GiB")
    # Both are logged, the one that decides first.
    if rates := [key for key in last if key in ("eval_wer", "eval_cer")]:
        parts.append(f"dev {rates[0][5:].upper()} {last[rates[0]]:.1%}")
    if "train_runtime" in last:
        parts.append(f"trained in {last['train_runtime']:.0f} s")
    elif done:
        left = (last["clock"] - paced[0]["clock"]) / done * (max_steps - last["step"])
        minutes, seconds = divmod(round(left), 60)
        parts.append(f"{minutes} min {seconds} s left")
    return " · ".join(parts)


def progress_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the twelve newest logs for people, a line a step; "" for what was not logged."""
    logs = pd.DataFrame(rows).groupby("step").last()  # loss and dev rates are logged one by one
    shown = {
        name: [form.format(value) if pd.notna(value) else "" for value in logs[key]]
        for key, (name, form) in SHOWN.items()
        if key in logs
    }
    return pd.DataFrame(shown, index=logs.index).tail(12)


def _seconds_before(rows: list[dict[str, Any]]) -> float:
    """Return how long the processes trained that the last one has resumed from."""
    clocks: dict[str, list[float]] = {}
    for row in rows:
        if "clock" in row:
            clocks.setdefault(row["process"], []).append(row["clock"])
    return sum(max(each) - min(each) for each in list(clocks.values())[:-1])


def training_report(trainer: "WhisperTrainer", run: Run, seconds: float) -> dict[str, Any]:
    """Return what `training.json` holds: steps, losses, dev rates, seconds, batches.

    `seconds` are this process's; those of interrupted ones are added.
    """
    logs, used, metric = read_metrics(run.metrics), trainer.args, dev_metric(trainer.recipe)
    losses, key = [row["loss"] for row in logs if "loss" in row], f"eval_{metric}"
    return {
        "steps": trainer.state.global_step,
        "best_step": trainer.kept_step(),
        "loss_first": losses[0] if losses else None,  # none within fewer steps than logging_steps
        "loss_last": losses[-1] if losses else None,
        f"dev_{metric}_by_step": {row["step"]: row[key] for row in logs if key in row},
        "seconds": seconds + _seconds_before(logs),
        "precision": precision().name,
        "weights": trainer.recipe.method.weights,
        "clips_at_once": used.per_device_train_batch_size,
        "accumulation": used.gradient_accumulation_steps,
    }
