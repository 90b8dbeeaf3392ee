"""From a streamed row to Whisper's training data: samples, label ids, filters, batches."""

import functools
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, concatenate_datasets
from datasets.arrow_writer import ArrowWriter
from transformers import WhisperTokenizer

from utils.config import Recipe, UserError, Windows
from utils.environment.lock import only_writer
from utils.environment.machine import usable_cores
from utils.environment.whole import fits
from utils.preprocessing.examples import PREPARED, attempt
from utils.preprocessing.parallel import map_in_order
from utils.preprocessing.quality import QualityReport, Unusable
from utils.preprocessing.windows import as_one, join
from utils.streaming.mixing import training_stream
from utils.streaming.pseudo_labels import PSEUDO
from utils.streaming.sources import stream

SAMPLE_CLIPS = 200  # stored of a training split that is streamed: to look at, and to try batches on


class PreprocessingError(UserError, ValueError):
    """Too little of a split is left to continue; the message says what was dropped."""


def split_streams(recipe: Recipe) -> dict[str, IterableDataset]:
    """Return the stream of each prepared split: train, dev, test and, if any, unseen."""
    trained = [source for source in recipe.sources if source.train]
    unseen = [source for source in recipe.sources if not source.train and source.test]
    parts = {
        "dev": [stream(source, source.dev) for source in trained if source.dev],
        "test": [stream(source, source.test) for source in trained if source.test],
        "unseen": [stream(source, source.test) for source in unseen],
    }
    streams = {
        "train": training_stream(recipe.sources, recipe.training.get("seed", 42), recipe.mixing)
    }
    if not recipe.preprocessing.stored:
        streams["train"] = streams["train"].take(SAMPLE_CLIPS)
    streams |= {name: concatenate_datasets(part) for name, part in parts.items() if part}
    return streams


def check_dropped(report: QualityReport, split: str) -> None:
    """Refuse a split if too much of it was dropped.

    Raises:
        PreprocessingError: of one source more than `max_dropped_share`, or nothing is left at all.
    """
    share = report.rules.max_dropped_share
    for source, _ in report.parts(split):
        dropped = report.dropped[source, split]
        total = report.kept[source, split] + dropped.total()
        # Of what a model transcribed, doubtful clips are many, and say nothing about the data.
        faults = sum(n for reason, n in dropped.items() if not reason.startswith(PSEUDO))
        if faults > share * total or dropped.total() == total:
            reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.most_common())
            examples = report.examples[dropped.most_common(1)[0][0]]
            first = next((f" The first: {e['why']}." for e in examples if e["why"]), "")
            raise PreprocessingError(
                f"{dropped.total()} of {total} clips of {source} were dropped ({reasons}); at most "
                f"{share:.0%} may be. Look at the source, or at [preprocessing].{first}"
            )
    if not report.parts(split):
        raise PreprocessingError("there are no clips. Look at the source.")


def usable(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: WhisperTokenizer,
    report: QualityReport,
    split: str,
    processes: int = 1,
) -> Iterator[dict[str, Any]]:
    """Yield prepared rows that break no rule; the report counts all streamed rows.

    Order and report are the same for any number of processes.
    """
    one = functools.partial(attempt, tokenizer=tokenizer, rules=report.rules)
    rows, again = itertools.tee(rows)
    for row, example in zip(rows, map_in_order(one, again, processes), strict=True):
        try:
            if isinstance(example, Unusable):
                raise example
            report.keep(split, row, example)
        except Unusable as reason:
            report.drop(split, row, reason)
        else:
            yield example


def prepare_split(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: WhisperTokenizer,
    folder: Path,
    report: QualityReport,
    split: str = "train",
    windows: Windows | None = None,
    processes: int = 1,
) -> Dataset:
    """Prepare one split into a file in `folder`, never holding it in memory.

    Args:
        rows: as streamed.
        tokenizer: the checkpoint's.
        folder: an empty one.
        report: where each row is counted; its rules are the recipe's.
        split: the name in the report.
        windows: the recipe's, for a split that is trained on.
        processes: that decode and check.

    Raises:
        PreprocessingError: nothing is left, or more than `max_dropped_share` of one source was
            dropped.
    """
    path = folder / "split.arrow"
    # Not Dataset.from_generator: it wraps every error of a source in one of its own, fails on an
    # empty split, and may reuse an older result whose generator looks the same.
    with ArrowWriter(features=PREPARED, path=str(path)) as writer:
        kept = usable(rows, tokenizer, report, split, processes)
        if windows is None:
            kept = map(as_one, kept)
        for window in join(kept, windows or Windows(), report.rules.max_label_tokens):
            writer.write(window)
        writer.finalize()
    check_dropped(report, split)
    return Dataset.from_file(str(path))


def prepare(
    recipe: Recipe, tokenizer: WhisperTokenizer, folder: Path, processes: int | None = None
) -> tuple[DatasetDict, QualityReport]:
    """Prepare every split of a recipe and publish them as one Arrow folder.

    The folder appears only when complete: it is written beside its place and then moved there.

    Args:
        recipe: the experiment.
        tokenizer: the checkpoint's.
        folder: where the prepared clips go; one that is there is replaced.
        processes: that decode and check; None takes all cores.

    Returns:
        The data set as stored, and what was found in it.

    Raises:
        PreprocessingError: too little of a split is left, or a process died.
        DiskFull: the clips do not fit.
        InUse: another process writes to the run folder.
    """
    report, place = QualityReport(recipe.preprocessing), folder.resolve()  # a link stays one
    partial = place.with_name(f".{place.name}.partial")
    with only_writer(folder.parent):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with fits(partial):
                splits = _prepare_splits(recipe, tokenizer, partial, report, processes)
                splits.save_to_disk(partial / "prepared")
            shutil.rmtree(place, ignore_errors=True)
            (partial / "prepared").rename(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return DatasetDict.load_from_disk(str(folder)), report


def _prepare_splits(
    recipe: Recipe,
    tokenizer: WhisperTokenizer,
    partial: Path,
    report: QualityReport,
    processes: int | None,
) -> DatasetDict:
    """Return the splits of a recipe, each in a folder of its own."""
    splits, streams = {}, split_streams(recipe)
    # Test splits first: a clip that is also in training is dropped from training.
    for name in [*(name for name in ("test", "unseen", "dev") if name in streams), "train"]:
        (partial / name).mkdir(parents=True)
        try:
            splits[name] = prepare_split(
                streams[name],
                tokenizer,
                partial / name,
                report,
                name,
                recipe.windows if name == "train" else None,
                processes or usable_cores(),
            )
        except PreprocessingError as error:
            raise PreprocessingError(f"{recipe.path}, split {name}: {error}") from None
        except BrokenProcessPool:
            raise PreprocessingError(
                f"{recipe.path}, split {name}: a process that decodes clips died, most likely "
                "because memory ran out. Close other programs, or prepare with fewer cores: "
                "put `taskset -c 0` before the command."
            ) from None
    return DatasetDict({name: splits[name] for name in streams})
