"""Speech on the Hugging Face Hub: pinned to a commit, read with patience, refused with a reason."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Audio, IterableDataset

from utils.config import RecipeError, Source
from utils.streaming.columns import RECORDING_COLUMNS, SPEAKER_COLUMNS
from utils.streaming.hub_columns import encoded, said_column, sound_column, text_of
from utils.streaming.hub_files import builder_of, commit_of, fetched_rows, too_large_to_stream
from utils.streaming.patience import FAILURES, PATIENCE, explained, is_on_hub, patiently
from utils.streaming.sound import promised_seconds


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


def commits(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return which commit of which Hub data set each source is read from, for a report."""
    return [
        {"source": one.label, "dataset": one.dataset, "commit": commit_of(one)}
        for one in sources
        if is_on_hub(one)
    ]


def open_split(source: Source, split: str) -> tuple[IterableDataset, list[tuple[int, str]]]:
    """Open one split of a Hub data set, or of a folder in the Hub's layout.

    Returns:
        Its rows as they are there, nothing read but the schema, `audio` left encoded; and for each
        of its files the number and "", or the address of a file that is better fetched whole: one
        whose rows lie in such large groups that the first row costs hundreds of megabytes.

    Raises:
        RecipeError: dataset, name, revision, split or text column are not there.
        HubError: gated, a token that is refused, or a server that does not answer.
    """

    def opened() -> tuple[IterableDataset, list[str]]:
        builder = builder_of(source, split)
        # CSV has no schema before its first rows are read.
        rows = builder.as_streaming_dataset(split=split)._resolve_features()
        files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]
        is_large = len(files) == rows.num_shards and too_large_to_stream(source, files)
        return rows, files if is_large else [""] * rows.num_shards

    if is_on_hub(source):
        commit_of(source)  # with patience of its own
    rows, files = patiently(source, f'{source.dataset}, split "{split}"', opened)
    sound = sound_column(rows.features, source)
    said_column(rows.features, source)
    if isinstance(rows.features[sound], Audio):
        rows = rows.cast_column(sound, Encoded(decode=False))
    return rows, list(enumerate(files))


def speaker_and_recording(row: Mapping[str, Any]) -> dict[str, str]:
    """Return who speaks in a row, and in which longer recording; "" where no column names it."""

    def named(columns: Sequence[str]) -> str:
        found = (str(row[name]) for name in columns if row.get(name) is not None)
        return next((name for name in found if name not in ("", "None")), "")

    speaker, recording = named(SPEAKER_COLUMNS), named(RECORDING_COLUMNS)
    # MLS' chapter_id is a book: two people may have read it.
    return {"speaker": speaker, "recording": recording and f"{speaker}/{recording}"}


def read_rows(
    rows: IterableDataset, files: Sequence[tuple[int, str]], source: Source, split: str
) -> Iterator[dict[str, Any]]:
    """Yield what `open_split` returned in the schema of utils.streaming, each row once, in order.

    What is wrong with one row (no bytes, no text) is left to the filters, which count it.

    Args:
        rows: of `open_split`.
        files: those of its files to read, likewise. A list, so that `datasets` can deal them out
            to several processes, and goes on with the file at which a stream was left.
        source: what it was opened for.
        split: likewise.

    Raises:
        HubError: the Hub stopped answering, or refuses; the message says how to go on.
    """
    sound, said = sound_column(rows.features, source), said_column(rows.features, source)
    for file, address in files:
        whole = fetched_rows(source, address) if address else None
        reader, number = whole or iter(rows.shard(rows.num_shards, file)), 0
        place = f"{source.dataset}, {split}, file {file}"
        while row := _next_row(reader, source, sound, where := f"{place}, row {number}"):
            yield {
                "audio": row[sound],
                "text": text_of(row, said, rows.features, where),
                "language": source.language,
                "seconds": promised_seconds(row[sound]),
                "source": source.label,
                "id": f"{source.label}/{split}/{file}/{number}",
                **speaker_and_recording(row),
            }
            number += 1


def _next_row(reader: Iterator, source: Source, sound: str, place: str) -> dict[str, Any] | None:
    root = source.dataset
    if is_on_hub(source):
        root = f"hf://datasets/{source.dataset}@{commit_of(source)}"
    try:
        with PATIENCE.limit(source.patience_seconds):
            row = next(reader, None)
            return row and {**row, sound: encoded(row[sound], row, source, root, place)}
    except RecipeError:  # in one sentence already
        raise
    except FAILURES as error:
        raise explained(error, source, place) from None
