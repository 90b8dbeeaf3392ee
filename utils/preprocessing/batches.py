"""Which clips share a training batch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

BLUR = 0.05  # relative noise on the lengths before they are sorted
POOL_BATCHES = 50  # clips are sorted by length within this many updates: similar lengths, new mix


class Passes(torch.utils.data.Dataset[dict[str, Any]]):
    """The rows of a data set, again in every pass: place p is row p mod n of pass p div n.

    Each row says as `epoch` in which pass it is. Workers that live on learn it in no other way.
    """

    def __init__(self, rows: Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        epochs, numbers = np.divmod(np.array(places, dtype=int), len(self))
        rows = self.rows.__getitems__(numbers.tolist())
        return [{**row, "epoch": int(one)} for row, one in zip(rows, epochs, strict=True)]


class EqualSpeechBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of `Passes`: clips of similar length, and about as much speech in every update.

    Clips of similar length need no padding, and the cost of a step depends on the seconds of its
    batch. With a fixed number of clips, a batch of one-word clips would have a tenth of the speech
    of one of sentences and yet move the weights as far, since gradients are clipped to one norm.

    Updates are cut first and divided among processes and accumulation steps afterwards, so that
    update k has the same clips whatever batch size fits a card. The order depends only on seed and
    epoch: a resumed run trains on the same clips as an uninterrupted one.

    Args:
        seconds: of every row.
        clips: in an update on average, over all processes and accumulation steps; short clips come
            in larger updates, long ones in smaller.
        seed: of the order.
        accumulation: batches of each process that make one update. One is empty where the update
            has fewer clips than batches.
        processes: that train together: each takes every n-th batch of an update.
        process: which of them this is.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        clips: int,
        seed: int,
        accumulation: int = 1,
        processes: int = 1,
        process: int = 0,
    ):
        self.seconds, self.clips, self.seed, self.epoch = np.asarray(seconds), clips, seed, 0
        self.accumulation, self.processes, self.process = accumulation, processes, process

    def __len__(self) -> int:
        pool = POOL_BATCHES * self.clips
        whole, rest = divmod(len(self.seconds), pool)
        return (whole * POOL_BATCHES + math.ceil(rest / self.clips)) * self.accumulation

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch; called by the Trainer."""
        self.epoch = epoch

    def updates(self) -> list[np.ndarray]:
        """Return the rows of each update of the epoch, short clips first."""
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.seconds))
        updates = []
        for start in range(0, len(order), POOL_BATCHES * self.clips):
            pool = order[start : start + POOL_BATCHES * self.clips]
            # Where all clips are one pool, sorting alone would make the same batches in every
            # epoch.
            about = self.seconds[pool] * random.uniform(1 - BLUR, 1 + BLUR, len(pool))
            pool = pool[np.argsort(about, kind="stable")]
            updates += self._cut(pool, math.ceil(len(pool) / self.clips))
        random.shuffle(updates)
        return updates

    def rows(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch of the epoch."""
        for update in self.updates():
            # Neighbours in length go to different processes, which then take about equally long.
            parts = np.array_split(update, self.accumulation * self.processes)
            yield from (part.tolist() for part in parts[self.process :: self.processes])

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * len(self.seconds)
        return ([first + row for row in rows] for rows in self.rows())

    def _cut(self, rows: np.ndarray, count: int) -> list[np.ndarray]:
        """Cut rows, short ones first, into `count` updates of about equal seconds, none empty."""
        total = np.cumsum(self.seconds[rows])
        borders = np.searchsorted(total, total[-1] * np.arange(1, count) / count)
        # A clip longer than an update's share would leave the next one empty: at least one each.
        each = np.arange(1, count)
        borders = np.maximum.accumulate(np.maximum(borders, 1) - each) + each
        borders = np.minimum(borders, len(rows) - count + each)
        return np.split(rows, borders)
