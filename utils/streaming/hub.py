"""Speech on the Hugging Face Hub: pinned to a commit, retried, and refused with a reason."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Audio, IterableDataset

from utils.config import Source
from utils.streaming.columns import SPEAKER_COLUMNS, UNSCORED, plain
from utils.streaming.files import SPLITS, say, split_in_name
from utils.streaming.hub_columns import (
    encoded,
    fault_of_language,
    flattened,
    language_column,
    nested,
    said_column,
    sound_column,
    speaker_and_recording,
    text_of,
)
from utils.streaming.hub_files import (
    builder_of,
    commit_of,
    fetched_rows,
    root_of,
    splits_of,
    too_large_to_stream,
)
from utils.streaming.patience import FAILURES, PATIENCE, explained, is_on_hub, patiently
from utils.streaming.sound import promised_seconds
from utils.streaming.splits import HELD_OUT, split_of_key
from utils.text import normalize

# Of so many first rows, so many speakers: then a tenth of all speakers are some.
FIRST_ROWS, MANY_SPEAKERS = 200, 20
ROWS_AT_ONCE = 16  # out of Arrow: one by one takes several times as long


class Part(NamedTuple):
    """Which rows of a split are taken, of a data set that lacks others."""

    kept: str  # "train", "dev" or "test"
    missing: tuple[str, ...]  # of test and dev
    by_speaker: bool  # else by sentence


class Encoded(Audio):
    """An audio column that is passed on undecoded: bytes, or the path of a file.

    Decoded inside the stream, one corrupt row would end it. And for a path, `Audio` uses
    torchcodec, which needs an FFmpeg, only to read the bytes of the file (datasets 5.2).
    """

    def encode_example(self, value: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return bytes and path unchanged; if a builder names a file, there are no bytes."""
        if isinstance(value, str):
            return {"bytes": None, "path": value}
        return value and {key: value.get(key) for key in ("bytes", "path")}


def commits(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Return the commit of each Hub data set among the sources, for a report."""
    return [
        {"source": one.label, "dataset": one.dataset, "commit": commit_of(one)}
        for one in sources
        if is_on_hub(one)
    ]


def open_split(source: Source, split: str) -> tuple[IterableDataset, list[tuple[int, str]]]:
    """Open one split of a Hub data set, or of a folder in the Hub's layout.

    Returns:
        Its rows unchanged, nothing read but the schema, `audio` left encoded; and for each of its
        files the number and "", or the address of a file that is better fetched whole: one with row
        groups so large that the first row costs hundreds of megabytes.

    Raises:
        RecipeError: dataset, name, revision, split or text column do not exist.
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
        commit_of(source)  # it retries by itself
    rows, files = patiently(source, f'{source.dataset}, split "{split}"', opened)
    sound = sound_column(rows.features, source)
    said_column(flattened(rows.features, nested(rows.features, sound)), source)
    if isinstance(rows.features[sound], Audio):
        rows = rows.cast_column(sound, Encoded(decode=False))
    return rows, list(enumerate(files))


def missing_splits(source: Source) -> tuple[str, ...]:
    """Return which of test and dev the recipe wants and the data set lacks under any name."""
    wanted = {SPLITS.get(getattr(source, use)) for use in HELD_OUT} & {*HELD_OUT}
    names = splits_of(source) if source.train and wanted else ()
    if not names or not set(source.train.split("+")) <= set(names):
        return ()
    there = {split_in_name(Path(name)) for name in names}  # of LibriSpeech's: validation.clean
    return tuple(use for use in HELD_OUT if use in wanted - there)


@cache
def _splits_by_speaker(source: Source) -> bool:
    """Return whether a data set without splits names so many speakers that some can be held out.

    Only its first rows are asked, which every lesson reads anyway.
    """
    rows, _ = open_split(source, source.train.split("+")[0])
    structures = nested(rows.features, sound_column(rows.features, source))
    columns = {name for name in rows.features if plain(name) in SPEAKER_COLUMNS} | {*structures}
    first = rows.select_columns(sorted(columns)).take(FIRST_ROWS) if columns else []

    def speakers() -> list[str]:
        return [speaker_and_recording(flattened(row, structures))["speaker"] for row in first]

    named = patiently(source, source.dataset, speakers)
    return all(named) and len(set(named)) >= MANY_SPEAKERS


def held_out(source: Source, split: str) -> tuple[list[str], Part | None]:
    """Return the splits whose rows make a split of the recipe, and which of their rows.

    A dev or test split that a data set lacks is held out of its training rows: always the same
    ones, by the hash of the speaker or of the sentence.

    Returns:
        The names to open, and the part of them for `read_rows`; None for all rows.
    """
    missing, trained = missing_splits(source), source.train.split("+")
    kind = SPLITS.get(split)
    if not missing or (kind not in missing and split not in trained):
        return [split], None
    by_speaker = _splits_by_speaker(source)
    what = "speaker" if by_speaker else "sentence"
    say(
        f"{source.label} has no {' and no '.join(missing)} split: a tenth is held out of train, by "
        f"the hash of the {what}, no {what} in two splits."
    )
    if kind in missing:
        return trained, Part(kind, missing, by_speaker)
    return [split], Part("train", missing, by_speaker)


def read_rows(
    rows: IterableDataset,
    files: Sequence[tuple[int, str]],
    source: Source,
    split: str,
    part: Part | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `open_split` in the schema of utils.streaming, each once, in order.

    Faults of one row (no bytes, no text) are left to the filters, which count them.

    Args:
        rows: of `open_split`.
        files: of `open_split`. A list: `datasets` divides it, and resumes at the file of the stop.
        source: the source it was opened for.
        split: its split.
        part: of `held_out`; other rows are passed over.

    Raises:
        HubError: the Hub stopped answering, or refuses; the message says how to continue.
    """
    features = rows.features  # once: the property makes a copy
    sound = sound_column(features, source)
    structures = nested(features, sound)
    features = flattened(features, structures)
    said, root = said_column(features, source), root_of(source)
    spoken = language_column(features, source)
    for file, address in files:
        whole = fetched_rows(source, address) if address else None
        reader = whole or _singly(rows.shard(rows.num_shards, file))
        reader = (flattened(row, structures) for row in reader) if structures else reader
        for number in count():
            place = f"{source.dataset}, {split}, file {file}, row {number}"
            with _within_patience(source, place):
                if not (row := next(reader, None)):
                    break
                text = text_of(row, said, features, place)
                is_other = part and _split_of_row(row, text, source, part) != part.kept
                if is_other or text.strip() == UNSCORED:
                    continue
                audio, fault = encoded(row[sound], row, source, root, place)
            yield {
                "audio": audio,
                "text": text,
                "language": source.language,
                "seconds": promised_seconds(audio),
                "source": source.label,
                "id": f"{source.label}/{split}/{file}/{number}",
                "fault": fault_of_language(row, spoken, features, source) or fault,
                **speaker_and_recording(row),
            }


def _singly(rows: IterableDataset) -> Iterator[dict[str, Any]]:
    """Yield rows one by one; in a loader's worker, iter(rows) would leave out most of them."""
    for batch in rows.iter(batch_size=ROWS_AT_ONCE):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _split_of_row(row: Mapping[str, Any], text: str, source: Source, part: Part) -> str:
    speaker = speaker_and_recording(row)["speaker"] if part.by_speaker else ""
    return split_of_key(speaker or normalize(text, source.language), part.missing)


@contextmanager
def _within_patience(source: Source, place: str) -> Iterator[None]:
    """Limit the time of each request in the block, and turn failures into a message."""
    try:
        with PATIENCE.limit(source.patience_seconds):
            yield
    except FAILURES as error:
        raise explained(error, source, place) from None
