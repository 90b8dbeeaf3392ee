"""Which clips share a training batch."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

BLUR = 0.05  # by which lengths are taken for longer or shorter when they are sorted
POOL_BATCHES = 50  # clips are sorted by length within this many batches: like lengths, new company


class EqualSpeechBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of row numbers: clips of like length, and about as much speech in every batch.

    Clips of like length need no padding, and the cost of a step follows the seconds of its batch.
    With a fixed number of clips, a batch of one-word clips would be a tenth of the speech of one of
    sentences and yet move the weights as far, since gradients are clipped to one norm.

    The order follows from seed and epoch alone, so that a resumed run sees what the uninterrupted
    one would have seen, and every epoch has the same number of batches.

    Args:
        seconds: of every row.
        clips: in a batch on average; short clips come in larger batches, long ones in smaller.
        seed: of the order.
        processes: that train together: each takes every n-th batch, all of them equally many.
        process: which of them this is.
    """

    def __init__(
        self, seconds: Sequence[float], clips: int, seed: int, processes: int = 1, process: int = 0
    ):
        self.seconds, self.clips, self.seed, self.epoch = np.asarray(seconds), clips, seed, 0
        self.processes, self.process = processes, process

    def __len__(self) -> int:
        pool = POOL_BATCHES * self.clips
        whole, rest = divmod(len(self.seconds), pool)
        batches = whole * POOL_BATCHES + math.ceil(rest / self.clips)
        return math.ceil(batches / self.processes)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; called by the Trainer."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.seconds))
        batches = []
        for start in range(0, len(order), POOL_BATCHES * self.clips):
            pool = order[start : start + POOL_BATCHES * self.clips]
            # Where all clips are one pool, sorting alone would make the same batches in every
            # epoch, and what the collator draws for a batch would be the same each time, too.
            about = self.seconds[pool] * random.uniform(1 - BLUR, 1 + BLUR, len(pool))
            pool = pool[np.argsort(about, kind="stable")]
            batches += self._cut(pool, math.ceil(len(pool) / self.clips))
        random.shuffle(batches)
        # Where they don't divide evenly, the first ones come twice: no process waits for another.
        batches += batches[: -len(batches) % self.processes]
        return iter(batches[self.process :: self.processes])

    def _cut(self, rows: np.ndarray, count: int) -> list[list[int]]:
        """Cut rows, short ones first, into `count` batches of about equal seconds, none empty."""
        total = np.cumsum(self.seconds[rows])
        borders = np.searchsorted(total, total[-1] * np.arange(1, count) / count)
        # A clip longer than a batch's share would leave the next batch empty: at least one each.
        each = np.arange(1, count)
        borders = np.maximum.accumulate(np.maximum(borders, 1) - each) + each
        borders = np.minimum(borders, len(rows) - count + each)
        return [part.tolist() for part in np.split(rows, borders)]
