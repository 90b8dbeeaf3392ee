"""Files of a data set on the Hub: which a split has, and which are fetched, not streamed."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
from datasets import DatasetBuilder, load_dataset_builder
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from pyarrow import parquet

from utils.config import RecipeError, Source
from utils.streaming.patience import is_on_hub, make_patient, patiently

# A row group is read whole before its first row is available. FLEURS has groups of up to 700 MB,
# and a lesson opens a split several times.
LARGE_GROUP_BYTES = 100_000_000


@cache
def commit_of(source: Source) -> str:
    """Return the commit of a source's revision, the same for the whole process."""
    make_patient()
    api = HfApi()
    info = patiently(
        source, source.dataset, lambda: api.dataset_info(source.dataset, revision=source.revision)
    )
    return info.sha


def root_of(source: Source) -> str:
    """Return the address of a data set's files at its commit, or its folder on this machine."""
    if is_on_hub(source):
        return f"hf://datasets/{source.dataset}@{commit_of(source)}"
    return source.dataset


def _folder_splits(source: Source) -> tuple[str, dict[str, list[str]]]:
    """Return a folder, and its Parquet files by split, if no card lists the config.

    FLEURS has them in parquet-data/NAME/, the Hub's own conversions (refs/convert/parquet) in
    NAME/.
    """
    for folder in (f"parquet-data/{source.name}", source.name) if source.name else ():
        base = root_of(source)
        if is_on_hub(source):
            at_commit = {"revision": commit_of(source), "repo_type": "dataset"}
            tree = HfApi().list_repo_tree(source.dataset, folder, recursive=True, **at_commit)
            try:
                files = [entry.path for entry in tree]
            except EntryNotFoundError:
                continue
        else:
            found = (Path(base) / folder).rglob("*.parquet")
            files = [path.relative_to(base).as_posix() for path in found]
        splits: dict[str, list[str]] = {}
        for path in sorted(files):
            # train-00000-of-00001.parquet, or train/0000.parquet
            if match := re.fullmatch(rf"{re.escape(folder)}/(\w+)(?:[-/].*)?\.parquet", path):
                splits.setdefault(match[1], []).append(f"{base}/{path}")
        if splits:
            return folder, splits
    return "", {}


def _by_config(source: Source) -> DatasetBuilder:
    options = {"revision": commit_of(source)} if is_on_hub(source) else {}
    return load_dataset_builder(source.dataset, source.name or None, **options)


def builder_of(source: Source, split: str) -> DatasetBuilder:
    """Return the builder of a data set: by its config, or by the folder of that name.

    Raises:
        RecipeError: the folder exists, but the split is not in it.
    """
    try:
        return _by_config(source)
    except (ValueError, RuntimeError):  # no such config, or a loading script
        folder, splits = _folder_splits(source)
        if not splits:
            raise
    if split not in splits:
        raise RecipeError(
            f'{source.dataset} has no split "{split}" in {folder}; it has {", ".join(splits)}.'
        )
    return load_dataset_builder("parquet", data_files={split: splits[split]})


@cache
def splits_of(source: Source) -> tuple[str, ...]:
    """Return the names of a source's splits; none if only reading its rows would show them.

    Raises:
        RecipeError, HubError: it cannot be opened.
    """

    def names() -> tuple[str, ...]:
        try:
            builder = _by_config(source)
        except (ValueError, RuntimeError):
            _, splits = _folder_splits(source)
            if not splits:
                raise
            return tuple(splits)
        return tuple(map(str, builder.config.data_files or builder.info.splits or ()))

    if is_on_hub(source):
        commit_of(source)  # it retries by itself
    return patiently(source, f'{source.dataset}, split "{source.train}"', names)


def _in_cache(source: Source, address: str) -> tuple[dict[str, str], str | None]:
    """Return huggingface_hub's arguments for a file, and its path if it has been fetched."""
    commit = commit_of(source)
    name = address.removeprefix(f"{root_of(source)}/")
    file = {"repo_id": source.dataset, "filename": name, "revision": commit, "repo_type": "dataset"}
    found = try_to_load_from_cache(**file)
    return file, found if isinstance(found, str) else None


def _first_group_bytes(source: Source, address: str) -> int:
    """Return how much of a Parquet file has to be read before its first row is available."""
    with fsspec.open(_in_cache(source, address)[1] or address, "rb") as file:
        group = parquet.read_metadata(file).row_group(0)
    return sum(group.column(number).total_compressed_size for number in range(group.num_columns))


def too_large_to_stream(source: Source, files: Sequence[str]) -> bool:
    """Return whether to fetch a split's files whole, judged by the very first row group."""
    if not is_on_hub(source) or not files or not files[0].endswith(".parquet"):
        return False
    return _first_group_bytes(source, files[0]) > LARGE_GROUP_BYTES


def fetched_rows(source: Source, address: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that is fetched into the Hub's cache once, and read from there."""
    file, cached = _in_cache(source, address)
    if not cached:
        print(
            f"fetching {source.dataset}, {file['filename']} … once, into the Hub's cache: its rows "
            "lie in groups that are too large to stream",
            flush=True,
        )
        place = f"{source.dataset}, {file['filename']}"
        cached = patiently(source, place, lambda: hf_hub_download(**file))
    # Mapped, a group of 260 MB took 540 MB of memory while its rows were read; unmapped, 780 MB.
    with parquet.ParquetFile(cached, memory_map=True) as table:
        for batch in table.iter_batches(batch_size=16, use_threads=False):
            yield from batch.to_pylist()
