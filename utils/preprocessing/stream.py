"""Training clips that are streamed from their sources during training, and never stored.

For more speech than the disk holds. A pool of clips is read, filtered and joined during training on
the pool before; the position in the stream is part of each checkpoint.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from transformers import WhisperTokenizer

from utils.config import Recipe
from utils.preprocessing.batches import POOL_BATCHES, EqualSpeechBatches
from utils.preprocessing.prepare import check_dropped, usable
from utils.preprocessing.quality import StreamReport
from utils.preprocessing.windows import join
from utils.streaming.sources import training_stream

Place = dict[str, Any]  # pass, pool and state of the rows where a pool begins; batch in that pool


class SpeechStream(torch.utils.data.IterableDataset):
    """Endless batches, like those of `EqualSpeechBatches`, from sources that are only streamed.

    Clips are sorted by length within a pool of 50 updates. Every pass reads the sources in their
    own order: neighbours meet again, in other batches. With several processes, each takes its own
    files if they can be divided evenly; else each reads all rows and decodes every n-th.

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
        self.accumulation = accumulation
        self.seed = recipe.training.get("seed", 42)
        rows = training_stream(recipe.sources, self.seed, recipe.mixing)
        self.rows = split_dataset_by_node(rows, process, processes) if processes > 1 else rows
        self.file = f"stream-{process}-of-{processes}.json"
        self.report = StreamReport(recipe.preprocessing, held_out)
        self.place: Place = {"pass": 0, "pool": 0, "rows": None, "batch": 0}
        self.taken = 0  # batches that training has used since this object was created
        self._begun: list[tuple[int, Place]] = []  # batches yielded before each pool

    def _pools(self) -> Iterator[tuple[Place, list[dict[str, Any]]]]:
        """Yield the position where each pool begins, and its prepared rows.

        Raises:
            PreprocessingError: a whole pass leaves no clips.
        """
        place = self.place
        if place["rows"]:
            self.rows.load_state_dict(place["rows"])
        while True:
            self.rows.set_epoch(place["pass"])
            clips = usable(self.rows, self.tokenizer, self.report, "train")
            while rows := list(islice(clips, POOL_BATCHES * self.clips)):
                limit = self.recipe.preprocessing.max_label_tokens
                yield place, list(join(rows, self.recipe.windows, limit))
                place = {**place, "pool": place["pool"] + 1, "batch": 0}
                place["rows"] = self.rows.state_dict()
            if place["rows"] is None:  # a whole pass without a clip
                check_dropped(self.report, "train")
            place = {**place, "pass": place["pass"] + 1, "rows": None}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        given, pools = 0, self._pools()
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, pools)
            while True:
                place, rows = coming.result()
                coming = reader.submit(next, pools)
                self._begun.append((given, place))
                batches = EqualSpeechBatches(
                    [row["seconds"] for row in rows], self.clips, self.seed, self.accumulation
                )
                batches.set_epoch(place["pool"])
                for batch in islice(batches, place["batch"], None):
                    given += 1
                    yield self.collate([rows[index] for index in batch])

    def save(self, folder: Path) -> None:
        """Write the position of training, which is behind that of reading, into a checkpoint."""
        reached = sum(before <= self.taken for before, _ in self._begun)
        self._begun = self._begun[reached - 1 :]
        before, place = self._begun[0]
        place = {**place, "batch": place["batch"] + self.taken - before, "of": self.accumulation}
        (folder / self.file).write_text(json.dumps(place), encoding="utf-8")

    def go_on_from(self, folder: Path) -> None:
        """Begin at a checkpoint's position; rows before its pool are not decoded again.

        Raises:
            FileNotFoundError: the checkpoint is not one of a stream, or of as many processes.
        """
        self.place = json.loads((folder / self.file).read_text(encoding="utf-8"))
        # A different card may hold another number of clips at once: resume after as many updates.
        self.place["batch"] = self.place["batch"] // self.place.pop("of") * self.accumulation
