"""What ends training before its last step: SIGTERM, or a loss that is no number."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import Trainer, TrainerCallback

from utils.config import UserError

STEPS_UNSEEN = 10  # between two looks of the host at numbers that a GPU computes
SIGNAL = signal.SIGTERM  # what Slurm, Kubernetes, Docker and spot instances send before they kill
NEVER = 2**62  # a step that no run reaches


def host_looks(device: torch.device, step: int) -> bool:
    """Tell whether the host looks at this step at what the device computes: it waits for a GPU."""
    return device.type == "cpu" or step % STEPS_UNSEEN == 0


class TrainingError(UserError, RuntimeError):
    """Training cannot continue; the message names the step and the way out."""


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


def outlive_sigterm(_: int) -> None:
    """Keep a data loader's process alive until its trainer has written the checkpoint.

    torchrun and systemd signal a whole group of processes, and a loader that has lost its workers
    raises in the middle of the step.
    """
    signal.signal(SIGNAL, signal.SIG_IGN)


class _SaveAndStop(TrainerCallback):
    """Ends training with a checkpoint at the end of the step in which a signal came."""

    received = False

    def on_step_end(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Request a checkpoint and the end, in every process at the same step."""
        if args.world_size > 1:
            if not host_looks(args.device, state.global_step):
                return
            flag = torch.tensor(float(self.received), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.received = bool(flag)
        if self.received:
            control.should_save = control.should_training_stop = True


@contextmanager
def ends_on_sigterm(trainer: Trainer) -> Iterator[_SaveAndStop]:
    """End the block's training at SIGTERM, with a complete checkpoint; sets `received`.

    Python handles signals only in the main thread: elsewhere SIGTERM keeps its effect.
    """
    stop = _SaveAndStop()
    trainer.add_callback(stop)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(SIGNAL, lambda *_: setattr(stop, "received", True))
    try:
        yield stop
    finally:
        signal.signal(SIGNAL, before)
