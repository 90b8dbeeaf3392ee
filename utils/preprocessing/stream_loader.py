"""Workers that stream training clips, and the place of each of them in a checkpoint."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from utils.config import UserError
from utils.preprocessing.prepare import PreprocessingError
from utils.preprocessing.stream import SpeechStream


class StreamLoader:
    """The batches of a stream, made in worker processes whose places a checkpoint holds.

    Args:
        stream: what to load.
        workers: processes; 0 makes the batches in this one.
        pin_memory: whether a GPU copies them while it computes.
        begin_worker: called in each worker.
    """

    def __init__(
        self,
        stream: SpeechStream,
        workers: int = 0,
        pin_memory: bool = False,
        begin_worker: Callable[[int], None] | None = None,
    ):
        self.stream, self.workers, self.place = stream, workers, None
        self._how = {"pin_memory": pin_memory, "worker_init_fn": begin_worker}
        self._loader: StatefulDataLoader | None = None

    @property
    def _file(self) -> str:
        return f"stream-{self.stream.process}-of-{self.stream.processes}.json"

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self.stream.closing.clear()
        with warnings.catch_warnings():  # of torch, about what torchdata calls (0.11, torch 2.13)
            warnings.simplefilter("ignore", UserWarning)
            self._loader = StatefulDataLoader(
                self.stream, batch_size=None, num_workers=self.workers, **self._how
            )
        if self.place:
            self._loader.load_state_dict(self.place)
        nothing_left: UserError | None = None
        try:
            for update in self._loader:
                if isinstance(update, PreprocessingError):  # other workers may have clips
                    nothing_left = update
                elif isinstance(update, UserError):
                    raise update
                else:
                    yield from update
            if nothing_left:
                raise nothing_left
        finally:
            self.stream.closing.set()

    def save(self, folder: Path) -> None:
        """Write the place of training, which is behind that of reading, into a checkpoint."""
        told = {"workers": self.workers, "place": self._loader.state_dict()}
        (folder / self._file).write_text(json.dumps(told), encoding="utf-8")

    def go_on_from(self, folder: Path) -> None:
        """Begin at a checkpoint's place, with as many workers as it was made with.

        Raises:
            PreprocessingError: the checkpoint is not one of a stream, or of as many processes.
        """
        path = folder / self._file
        if not path.exists():
            raise PreprocessingError(
                f"{folder} has no {path.name}: its training clips were not streamed, or were "
                f"divided among another number of processes than {self.stream.processes}. Start as "
                "many processes as before, or give the recipe a new name."
            )
        told = json.loads(path.read_text(encoding="utf-8"))
        self.workers, self.place = told["workers"], told["place"]
