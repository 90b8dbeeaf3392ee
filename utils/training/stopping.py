"""When training ends before its last step: after SIGTERM, or by early stopping."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import Trainer, TrainerCallback

STEPS_UNSEEN = 10  # between two looks of the host at numbers that a GPU computes
SIGNAL = signal.SIGTERM  # what Slurm, Kubernetes, Docker and spot instances send before they kill


class Patience(TrainerCallback):
    """Early stopping: ends training after some dev evaluations without a lower error rate.

    Transformers' EarlyStoppingCallback keeps its count in an attribute, which a resumed run starts
    from zero; here the log is used, which is part of every checkpoint.

    Args:
        evaluations: how many.
        rate: the key of the logs that decides, `eval_wer` or `eval_cer`.
    """

    def __init__(self, evaluations: int, rate: str):
        self.evaluations, self.rate = evaluations, rate

    def on_evaluate(self, args, state, control, **_) -> None:  # noqa: ANN001
        """Stop if the best evaluation is too far back."""
        rates = [row[self.rate] for row in state.log_history if self.rate in row]
        if rates and len(rates) - 1 - rates.index(min(rates)) >= self.evaluations:
            control.should_training_stop = True

    on_train_begin = on_evaluate  # a stopped run that was started again


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
            # Between the looks no host waits for its GPU.
            if args.device.type != "cpu" and state.global_step % STEPS_UNSEEN:
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
