"""When training ends before its last step: the machine asks, or dev improves no more."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import Trainer, TrainerCallback

SIGNAL = signal.SIGTERM  # what Slurm, Kubernetes, Docker and spot instances send before they kill


class Patience(TrainerCallback):
    """Ends training after so many dev evaluations in a row without a lower error rate.

    Transformers' EarlyStoppingCallback counts in an attribute that a resumed run starts from zero;
    the log is part of every checkpoint.

    Args:
        evaluations: how many.
        rate: the key of the logs that decides, `eval_wer` or `eval_cer`.
    """

    def __init__(self, evaluations: int, rate: str):
        self.evaluations, self.rate = evaluations, rate

    def on_evaluate(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Stop if the best evaluation lies too far back."""
        rates = [row[self.rate] for row in state.log_history if self.rate in row]
        if rates and len(rates) - 1 - rates.index(min(rates)) >= self.evaluations:
            control.should_training_stop = True

    on_train_begin = on_evaluate  # of a run that has been stopped and is called again


def outlive_sigterm(_: int) -> None:
    """Let a loader's process live until its trainer has written the checkpoint and ends it.

    torchrun and systemd signal a whole group of processes, and a loader without its workers is an
    error in the middle of the step.
    """
    signal.signal(SIGNAL, signal.SIG_IGN)


class _SaveAndStop(TrainerCallback):
    """Ends training with a checkpoint at the end of the step in which a signal came."""

    received = False

    def on_step_end(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Ask for a checkpoint and the end; every process at the same step."""
        if args.world_size > 1:
            flag = torch.tensor(float(self.received), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.received = bool(flag)
        if self.received:
            control.should_save = control.should_training_stop = True


@contextmanager
def ends_on_sigterm(trainer: Trainer) -> Iterator[_SaveAndStop]:
    """Let SIGTERM end the block's training with a whole checkpoint; `received` says that it did.

    Outside the main thread Python takes no signals: there SIGTERM does what it did before.
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
