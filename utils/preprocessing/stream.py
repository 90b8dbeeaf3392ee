"""Training clips that are streamed from their sources during training, and never stored.

For more speech than the disk holds. Worker processes read, decode, filter and join the clips, each
its own part of the sources; the place of each worker is part of every checkpoint.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from transformers import WhisperTokenizer

from utils.config import Preprocessing, Recipe, UserError
from utils.preprocessing.batches import POOL_BATCHES
from utils.preprocessing.prepare import check_dropped, usable
from utils.preprocessing.quality import QualityReport
from utils.preprocessing.windows import join
from utils.streaming.mixing import mix_training, open_training

FEWEST_UPDATES = 10  # that wait in each of many workers, so that lengths in an update are similar
ROWS_AT_ONCE = 16  # between two places from which a resumed run can read
BEGIN: dict[str, Any] = {"pass": 0, "updates": 0, "rows": None, "read": 0, "waiting": []}


class Waiting(NamedTuple):
    """A prepared window in the buffer."""

    number: int  # in its pass, from the place on where reading began
    first: int  # of the rows that were read together with it
    state: dict[str, Any] | None  # of the stream where those rows begin
    window: dict[str, Any]


class StreamReport(QualityReport):
    """A report on streamed training clips: their number, and duplicates of test clips.

    It stores only the prepared clips that it is created with, so that it does not grow.
    """

    def __init__(self, rules: Preprocessing, prepared: Mapping[str, Dataset]):
        super().__init__(rules)
        for split, rows in prepared.items():
            for row in rows:
                samples = np.asarray(row["audio"], dtype=np.int16)  # the same form as in the stream
                super().keep(split, row, {**row, "audio": samples})

    def keep(self, split: str, row: Mapping[str, Any], example: Mapping[str, Any]) -> None:
        """Count a streamed row that was prepared as `example`.

        Raises:
            Unusable: its sound or its sentence is in a held-out split.
        """
        self._check(split, row, example)
        self.kept[row["source"], split] += 1


class SpeechStream(torch.utils.data.IterableDataset):
    """Endless updates from sources that are only streamed, each a list of collated batches.

    A buffer of prepared clips is kept full. For an update, a clip of it is drawn at random, and
    those nearest in length are added until they are as much speech as updates have on average: as
    in `EqualSpeechBatches`, and the first one is there after a few clips. Each pass reads the files
    of the sources in another order and ends with an empty buffer: every clip comes once in it.

    Each worker of each process reads its own part of every source. Clips that were in the buffer,
    and those of similar age, are prepared again when a stream is resumed.

    Args:
        recipe: the experiment.
        tokenizer: the checkpoint's.
        held_out: the prepared splits that must stay out of training.
        clips: in an update on average, of this process.
        collate: makes a batch of prepared rows.
        accumulation: batches of an update.
        processes: that train together.
        process: which of them this is.
    """

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: WhisperTokenizer,
        held_out: Mapping[str, Dataset],
        clips: int,
        collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]],
        accumulation: int = 1,
        processes: int = 1,
        process: int = 0,
    ):
        self.recipe, self.tokenizer, self.clips, self.collate = recipe, tokenizer, clips, collate
        self.accumulation, self.processes, self.process = accumulation, processes, process
        self.seed = recipe.training.get("seed", 42)
        self.sources = open_training(recipe.sources)
        self.report = StreamReport(recipe.preprocessing, held_out)
        self.closing = multiprocessing.Event()  # a worker that reads stops at the next row
        self.load_state_dict(BEGIN)

    def state_dict(self) -> dict[str, Any]:
        """Return the place behind the last update."""
        return self._place

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin at a place: reading begins at the oldest clip that was in the buffer there."""
        self._place, self._pass, self._updates = state, state["pass"], state["updates"]
        self._waiting: list[Waiting] = []
        self._next = Waiting(0, 0, state["rows"], {})  # the one that is read next

    def _reached(self) -> dict[str, Any]:
        oldest = self._waiting[0] if self._waiting else self._next
        return {
            "pass": self._pass,
            "updates": self._updates,  # of this pass
            "rows": oldest.state,
            "read": self._next.number - oldest.first,  # windows since then
            "waiting": [one.number - oldest.first for one in self._waiting],
        }

    def __iter__(self) -> Iterator[list[dict[str, torch.Tensor]] | UserError]:
        self.load_state_dict(self._place)
        worker = torch.utils.data.get_worker_info()
        self._workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self.process * self._workers + number, self.processes * self._workers
        try:
            rows = mix_training(self.sources, self.seed, self.recipe.mixing, part, parts)
            while not self.closing.is_set():
                yield from self._one_pass(rows)
                self.load_state_dict({**BEGIN, "pass": self._pass + 1})
        except UserError as error:  # raised here, it would reach the main process as a traceback
            yield error

    def _one_pass(self, rows: IterableDataset) -> Iterator[list[dict[str, torch.Tensor]]]:
        # From 1 on datasets reads the files in another order for each number.
        rows.set_epoch(int(np.random.default_rng([self.seed, self._pass]).integers(1, 2**20)))
        windows, left = self._windows(rows), set(self._place["waiting"])
        again = islice(windows, self._place["read"])
        self._waiting += [one for one in again if one.number in left]
        most = max(POOL_BATCHES // self._workers, FEWEST_UPDATES)
        while True:
            # Few at first, so that training begins at once.
            wanted = self.clips * min(2 + self._updates, most)
            self._waiting += islice(windows, max(wanted - len(self._waiting), 0))
            if not self._waiting:
                break
            update = self._draw(is_last=len(self._waiting) < wanted)
            self._updates += 1
            self._place = self._reached()
            parts = np.array_split(np.arange(len(update)), self.accumulation)
            yield [
                self.collate([{**update[index], "epoch": self._pass} for index in part])
                for part in parts
            ]
        if not self._updates and not self.closing.is_set():  # a whole pass without a clip
            check_dropped(self.report, "train")

    def _windows(self, rows: IterableDataset) -> Iterator[Waiting]:
        """Yield the windows of a pass from the place on."""
        if self._next.state:
            rows.load_state_dict(self._next.state)
        # Not iter(rows): in a worker, datasets would divide them among the workers once more.
        singly = ({name: one for name, (one,) in row.items()} for row in rows.iter(batch_size=1))
        windows, limit = self.recipe.windows, self.recipe.preprocessing.max_label_tokens
        joined = windows.seconds or windows.previous_text
        many = POOL_BATCHES * self.clips if joined else ROWS_AT_ONCE
        numbers, state = count(), self._next.state
        while True:
            read: list[str] = []
            together = self._watched(islice(singly, many), read)
            first = self._next.number
            for window in join(
                usable(together, self.tokenizer, self.report, "train"), windows, limit
            ):
                one = Waiting(next(numbers), first, state, window)
                self._next = Waiting(one.number + 1, first, state, {})
                yield one
            if len(read) < many:
                return
            state = rows.state_dict()
            self._next = Waiting(self._next.number, self._next.number, state, {})

    def _watched(self, rows: Iterator[dict], read: list[str]) -> Iterator[dict]:
        """Yield rows until the stream is closed, and note that they were read."""
        for row in rows:
            if self.closing.is_set():
                return
            read.append(row["id"])
            yield row

    def _draw(self, is_last: bool) -> list[dict[str, Any]]:
        """Take the clips of an update out of the buffer; short ones first.

        Args:
            is_last: nothing more is read in this pass: the buffer is divided evenly.
        """
        seconds = np.array([one.window["seconds"] for one in self._waiting])
        share = seconds.sum() / -(-len(seconds) // self.clips) if is_last else 0.0
        share = share or self.clips * seconds.mean()
        random = np.random.default_rng([self.seed, self._pass, self._updates])
        pivot = random.integers(len(seconds))
        # None waits for ever: a resumed run has to read again from the oldest on.
        if self._next.number - self._waiting[0].number > 2 * POOL_BATCHES * self.clips:
            pivot = 0
        nearest = np.argsort(np.abs(seconds - seconds[pivot]), kind="stable")
        until = np.searchsorted(np.cumsum(seconds[nearest]), share + seconds[pivot] / 2)
        taken = {int(index) for index in nearest[: max(until, 1)]}
        update = sorted(
            (self._waiting[index].window for index in taken), key=lambda row: row["seconds"]
        )
        self._waiting = [one for index, one in enumerate(self._waiting) if index not in taken]
        return update
