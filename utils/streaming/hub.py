"""Speech on the Hugging Face Hub: pinned to a commit, read with patience, refused with a reason."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import fsspec
from datasets import Audio, IterableDataset, load_dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from huggingface_hub.utils._http import default_client_factory

from utils.config import RecipeError, Source
from utils.streaming.sound import promised_seconds

# What data sets call them: client_id is Common Voice's, speaker_id that of MLS and VoxPopuli.
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
RECORDING_COLUMNS = ("recording", "recording_id", "chapter_id", "session_id")
LONGEST_PAUSE_SECONDS = 8.0  # what huggingface_hub waits at most between two tries


class Encoded(Audio):
    """An audio column that is passed on as it lies there: bytes, or the path of a file.

    Not decoded: inside the stream, one corrupt row would end it. And of a path `Audio` makes its
    bytes with torchcodec, which needs an FFmpeg, only to read the file (datasets 5.2).
    """

    def encode_example(self, value: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return bytes and path as they are; where a builder names a file, there are no bytes."""
        if isinstance(value, str):
            return {"bytes": None, "path": value}
        return value and {key: value.get(key) for key in ("bytes", "path")}


class HubError(OSError):
    """The Hub does not give what was asked for; the message says why and how to go on."""


class _Silence(Exception):
    """A request has failed for longer than a source's patience.

    No OSError and no error of the network: the libraries try those again, for ten minutes and more.
    """


# What the libraries raise when something cannot be opened or read.
FAILURES = (OSError, ValueError, RuntimeError, httpx.TransportError, _Silence)


class _Patience:
    """Ends the tries of huggingface_hub when the same request has failed for too long."""

    def __init__(self) -> None:
        self.deadline_seconds, self.first_tries = 0.0, None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Give every request in the block at most so many seconds, all its tries together."""
        # A pause may be under way when the time is up: it is part of the time.
        self.deadline_seconds = max(seconds - LONGEST_PAUSE_SECONDS, 1.0)
        self.first_tries = {}
        try:
            yield
        finally:
            self.first_tries = None

    def before_request(self, request: Any) -> None:
        """Stop a request that has been tried for too long, else shorten its own time limits."""
        if self.first_tries is None:
            return
        now = time.monotonic()
        left = self.first_tries.setdefault(_key(request), now) + self.deadline_seconds - now
        if left <= 0:
            raise _Silence
        limits = request.extensions["timeout"]
        request.extensions["timeout"] = {
            name: left if limit is None else min(limit, left) for name, limit in limits.items()
        }

    def after_response(self, response: Any) -> None:
        """Forget the tries of a request that was answered: asked again, it is a new one."""
        if self.first_tries and response.status_code < 500 and response.status_code != 429:
            self.first_tries.pop(_key(response.request), None)


def _key(request: Any) -> tuple[str, str, str | None]:
    return request.method, str(request.url), request.headers.get("range")


_patience = _Patience()


@lru_cache(maxsize=1)
def _make_patient() -> None:
    """Let `_patience` watch the requests of every client that huggingface_hub makes."""

    def client() -> httpx.Client:
        made = default_client_factory()
        made.event_hooks["request"].append(_patience.before_request)
        made.event_hooks["response"].append(_patience.after_response)
        return made

    set_client_factory(client)


def is_on_hub(source: Source) -> bool:
    """Tell whether a source's `dataset` is a Hub id: `owner/name`, and no folder of that name."""
    return source.dataset.count("/") == 1 and not Path(source.dataset).exists()


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error of huggingface_hub carries, if it carries one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _explained(error: Exception, source: Source, place: str) -> Exception:
    """Return what a person is told instead of an error of the libraries: one sentence."""
    page = f"{constants.ENDPOINT}/datasets/{source.dataset}"
    status = _status(error)
    if isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return HubError(
            f"{source.dataset} is gated: accept its terms on {page}, log in with `hf auth login` "
            "(in Colab: the secret HF_TOKEN), and run this cell again."
        )
    if isinstance(error, RevisionNotFoundError):
        return RecipeError(
            f'{source.dataset} has no revision "{source.revision}": correct revision in the '
            f"recipe; {page}/tree/main lists them."
        )
    if isinstance(error, (RepositoryNotFoundError, DatasetNotFoundError)):
        return RecipeError(
            f"{source.dataset} cannot be opened: there is no such data set on the Hub, or it is "
            "private. Check dataset in the recipe, or log in with `hf auth login`."
        )
    if status in (401, 403):
        return HubError(
            f"The Hub refuses your token ({status}) for {place}: log in again with "
            "`hf auth login`, or unset HF_TOKEN if the data set is public."
        )
    if isinstance(error, (_Silence, HfHubHTTPError, httpx.TransportError, ConnectionError)):
        what = f"answers {status}" if status else "does not answer"
        if isinstance(error, _Silence):
            what = f"has not answered for {source.patience_seconds:g} s (patience_seconds)"
        if isinstance(error, OfflineModeIsEnabled):
            what = "may not be asked, because HF_HUB_OFFLINE is set"
        return HubError(
            f"The Hub at {constants.ENDPOINT} {what}: {place} is needed. What lessons have saved "
            "is still there; run this cell again when the Hub can be reached."
        )
    reason = " ".join(str(error).split()).rstrip(".")
    way_out = "Check dataset, name and split"
    if isinstance(error, RuntimeError):  # a loading script, which would have to be executed
        way_out = 'Try revision = "refs/convert/parquet", the Hub\'s own conversion,'
    return RecipeError(f"{place}, cannot be opened: {reason}. {way_out} in the recipe.")


def _may_pass(error: Exception) -> bool:
    """Tell whether it is worth asking again: nobody answered, or the server is busy."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if status := _status(error):
        return status == 429 or status >= 500
    # load_dataset says FileNotFoundError, and none of its kinds, of a server that it cannot ask.
    passing = (httpx.TransportError, ConnectionError, LocalEntryNotFoundError)
    return isinstance(error, passing) or type(error) is FileNotFoundError


def _patiently(source: Source, place: str, ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns, asking again what may pass; reads do so by themselves.

    Raises:
        RecipeError, HubError: in one sentence.
    """
    given_up = time.monotonic() + source.patience_seconds
    for pause in chain((1.0, 2.0, 4.0), repeat(LONGEST_PAUSE_SECONDS)):
        try:
            with _patience.limit(given_up - time.monotonic()):
                return ask()
        except FAILURES as error:
            out_of_time = time.monotonic() + pause > given_up
            if out_of_time or not is_on_hub(source) or not _may_pass(error):
                raise _explained(error, source, place) from None
        time.sleep(pause)


@cache
def _commit(source: Source) -> str:
    """Return the commit that a source's revision names, the same for the whole process."""
    _make_patient()
    api = HfApi()
    info = _patiently(
        source, source.dataset, lambda: api.dataset_info(source.dataset, revision=source.revision)
    )
    return info.sha


def commits(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return which commit of which Hub data set each source is read from, for a report."""
    return [
        {"source": one.label, "dataset": one.dataset, "commit": _commit(one)}
        for one in sources
        if is_on_hub(one)
    ]


def _has_folder(source: Source) -> bool:
    if is_on_hub(source):
        at_commit = {"revision": _commit(source), "repo_type": "dataset"}
        return bool(HfApi().get_paths_info(source.dataset, [source.name], **at_commit))
    return (Path(source.dataset) / source.name).is_dir()


def _load(source: Source, **options: Any) -> IterableDataset:
    """Load a data set by its config, or by the folder of that name where no config has it."""
    try:
        return load_dataset(source.dataset, source.name or None, **options)
    except ValueError as error:
        # The Hub's own conversions (refs/convert/parquet) have a folder for each config and no
        # card that lists them.
        if "not found" in str(error) and source.name and _has_folder(source):
            return load_dataset(source.dataset, data_dir=source.name, **options)
        raise


def open_split(source: Source, split: str) -> IterableDataset:
    """Open one split of a Hub data set, or of a folder in the Hub's layout.

    Returns:
        Its rows as they are there, nothing read but the schema. `audio` is left encoded.

    Raises:
        RecipeError: dataset, name, revision, split or text column are not there.
        HubError: gated, a token that is refused, or a server that does not answer.
    """
    options: dict[str, Any] = {"split": split, "streaming": True}
    if is_on_hub(source):
        options["revision"] = _commit(source)
    rows = _patiently(
        source, f'{source.dataset}, split "{split}"', lambda: _load(source, **options)
    )
    for column in ("audio", source.text_column):
        if column not in rows.column_names:
            raise RecipeError(
                f'{source.dataset} has no column "{column}"; it has '
                f"{', '.join(rows.column_names)}. Set text_column in the recipe."
            )
    return rows.cast_column("audio", Encoded(decode=False))


def speaker_and_recording(row: Mapping[str, Any]) -> dict[str, str]:
    """Return who speaks in a row, and in which longer recording; "" where no column names it."""

    def named(columns: Sequence[str]) -> str:
        found = (str(row[name]) for name in columns if row.get(name) is not None)
        return next((name for name in found if name not in ("", "None")), "")

    speaker, recording = named(SPEAKER_COLUMNS), named(RECORDING_COLUMNS)
    # MLS' chapter_id is a book: two people may have read it.
    return {"speaker": speaker, "recording": recording and f"{speaker}/{recording}"}


def read_rows(
    rows: IterableDataset, files: Sequence[int], source: Source, split: str
) -> Iterator[dict[str, Any]]:
    """Yield what `open_split` returned in the schema of utils.streaming, each row once, in order.

    What is wrong with one row (no bytes, no text) is left to the filters, which count it.

    Args:
        rows: of `open_split`.
        files: numbers of those of its files to read. A list, so that `datasets` can deal them out
            to several processes, and goes on with the file at which a stream was left.
        source: what it was opened for.
        split: likewise.

    Raises:
        HubError: the Hub stopped answering, or refuses; the message says how to go on.
    """
    for file in files:
        reader, number = iter(rows.shard(rows.num_shards, file)), 0
        place = f"{source.dataset}, {split}, file {file}"
        while row := _next_row(reader, source, f"{place}, row {number}"):
            yield {
                "audio": row["audio"],
                "text": row[source.text_column] or "",
                "language": source.language,
                "seconds": promised_seconds(row["audio"]),
                "source": source.label,
                "id": f"{source.label}/{split}/{file}/{number}",
                **speaker_and_recording(row),
            }
            number += 1


def _bytes_of(audio: Mapping[str, Any] | None) -> bytes:
    """Return the encoded file of a row: out of the table, or the file that the table names."""
    audio = audio or {}
    if audio.get("bytes") is None and audio.get("path"):
        with suppress(FileNotFoundError), fsspec.open(audio["path"], "rb") as file:
            return file.read()
    return audio.get("bytes") or b""


def _next_row(reader: Iterator, source: Source, place: str) -> dict[str, Any] | None:
    try:
        with _patience.limit(source.patience_seconds):
            row = next(reader, None)
            return row and {**row, "audio": _bytes_of(row["audio"])}
    except FAILURES as error:
        raise _explained(error, source, place) from None
