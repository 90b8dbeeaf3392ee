"""Test clips transcribed by several models, a few batches at a time, into a journal that survives
interruptions."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from tqdm.auto import tqdm
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import write_atomically
from utils.config import AudioContext, Recipe
from utils.embedded.fetch import resolve
from utils.environment.lock import only_writer
from utils.environment.machine import device
from utils.evaluation.probes import estimate_snr
from utils.preprocessing.examples import waveform
from utils.preprocessing.prepare import usable
from utils.preprocessing.quality import QualityReport
from utils.streaming.sources import stream
from utils.whisper.decoding import clips_at_once, transcribe
from utils.whisper.hypotheses import Hypotheses
from utils.whisper.load import load_checkpoint, load_model

BATCHES_AT_ONCE = 4  # decoded before the next line of the journal: what an interruption can cost


class Reader(NamedTuple):
    """A model and the window in which it transcribes the clips."""

    model: WhisperForConditionalGeneration
    processor: WhisperProcessor
    context: AudioContext | None  # None is the stock 30 s window
    # Of an unmodified checkpoint, which transcribes each clip once for all recipes.
    kept: Hypotheses | None = None

    def transcribe(
        self, clips: Sequence[np.ndarray], languages: Sequence[str], batch_size: int
    ) -> tuple[list[str], Sequence[int]]:
        """Return the hypothesis for each clip, and which clips were decoded now."""
        if self.kept:
            return self.kept.transcribe(clips, language=languages, batch_size=batch_size)
        texts = transcribe(
            self.model,
            self.processor,
            clips,
            language=languages,
            context=self.context,
            batch_size=batch_size,
        )
        return texts, range(len(clips))


FACTS = ("id", "source", "language", "seconds", "speaker")  # that a prediction row keeps of a clip


def split_of(language: str, split: str, recipe: Recipe) -> str:
    """Return "test", "unseen" or "untrained": the name under which the report counts a clip."""
    return split if language in recipe.languages or split == "test" else "untrained"


def prepared_clips(prepared: Mapping[str, datasets.Dataset], recipe: Recipe) -> Iterator[dict]:
    """Yield the clips that lesson 3 prepared for testing: samples and metadata."""
    for split in ("test", "unseen"):
        if split not in prepared:
            continue
        rows = prepared[split].remove_columns("labels")
        for row in rows.with_format("numpy", columns=["audio"], output_all_columns=True):
            name = split_of(row["language"], split, recipe)
            facts = {key: row.get(key, "") for key in FACTS}
            yield {**facts, "split": name, "reference": row["text"], "samples": waveform(row)}


def streamed_clips(recipe: Recipe, processor: WhisperProcessor) -> Iterator[dict]:
    """Yield the same clips from the sources, by the same rules, one at a time."""
    report = QualityReport(recipe.preprocessing)  # it drops what is there twice, as in lesson 3
    for source in sorted(recipe.sources, key=lambda source: not source.train):
        if not source.test:
            continue
        name = "test" if source.train else "unseen"
        split, rows = split_of(source.language, name, recipe), stream(source, source.test)
        for example in usable(rows, processor.tokenizer, report, name):
            facts = {key: example[key] for key in FACTS} | {"reference": example["text"]}
            yield {**facts, "split": split, "samples": waveform(example)}


def read_journal(path: Path, made_from: Mapping[str, Any]) -> list[dict]:
    """Return the groups of an interrupted evaluation, or none if its inputs were different.

    A line that a crash cut off is left out.
    """
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return lines[1:] if lines and lines[0] == made_from else []


def read_clips(
    clips: Iterable[dict],
    readers: Mapping[str, Reader],
    recipe: Recipe,
    journal: Path,
    made_from: Mapping[str, Any],
) -> tuple[list[dict], dict[str, dict[str, float]]]:
    """Transcribe every clip with every reader, a few batches at a time.

    Each group is stored in a journal at once: interrupted and called again, it continues there.
    The clips are never in memory all together.

    Args:
        clips: of `prepared_clips` or `streamed_clips`.
        readers: "before", "after" and, where wanted, "after_30s".
        recipe: gives the batch size, see `clips_at_once`.
        journal: where to write; the caller deletes it once the report is saved.
        made_from: what the result depends on; a journal made from something else is not used.

    Returns:
        The prediction rows, and for each reader `batch_size`, and `decode_seconds` and
        `speech_seconds` of the clips that it decoded now; if all were in the cache, it is left out.

    Raises:
        InUse: another process writes to the journal's folder.
    """
    with only_writer(journal.parent):
        groups = read_journal(journal, made_from)
        write_atomically(journal, "".join(json.dumps(line) + "\n" for line in [made_from, *groups]))
        done = {row["id"] for group in groups for row in group["rows"]}
        size = clips_at_once(next(iter(readers.values())).model, recipe.evaluation.batch_size)
        bar = tqdm(desc="clips read", unit="clip", initial=len(done))
        with journal.open("a", encoding="utf-8") as file:
            left = (clip for clip in clips if clip["id"] not in done)
            while group := list(islice(left, BATCHES_AT_ONCE * size)):
                groups.append(_read_group(group, readers, size))
                file.write(json.dumps(groups[-1]) + "\n")
                file.flush()
                bar.update(len(group))
    bar.close()
    rows = [row for group in groups for row in group["rows"]]
    return rows, {name: told for name in readers if (told := _speed(groups, name, size))}


def _speed(groups: Sequence[Mapping[str, Any]], name: str, size: int) -> dict[str, float]:
    """Return how long a reader decoded, and how much speech; nothing if it decoded none."""
    seconds, speech = (
        round(sum(group[key][name] for group in groups), 2) for key in ("seconds", "decoded")
    )
    told = {"decode_seconds": seconds, "speech_seconds": speech, "batch_size": size}
    return told if speech else {}


def _read_group(
    group: Sequence[dict], readers: Mapping[str, Reader], batch_size: int
) -> dict[str, Any]:
    rows = [
        {key: value for key, value in clip.items() if key != "samples"}
        | {"snr_db": round(estimate_snr(clip["samples"]), 1), "after_30s": None}
        for clip in group
    ]
    clips, languages = [clip["samples"] for clip in group], [row["language"] for row in rows]
    seconds, decoded = {}, {}
    for name, reader in readers.items():
        started = time.perf_counter()
        texts, now = reader.transcribe(clips, languages, batch_size)
        seconds[name] = time.perf_counter() - started
        decoded[name] = sum(rows[number]["seconds"] for number in now)
        for row, text in zip(rows, texts, strict=True):
            row[name] = text
    return {"rows": rows, "seconds": seconds, "decoded": decoded}


def load_readers(recipe: Recipe, checkpoint: str | Path, stock_window: bool) -> dict[str, Reader]:
    """Load the models that are compared.

    Args:
        recipe: its checkpoint is "before", at 30 s: it was trained on nothing else.
        checkpoint: "after": a folder, a Hub id or an embedded name.
        stock_window: decode it at 30 s alone, as a checkpoint must be that may not have been
            trained at a short context. Otherwise at the recipe's context, and at 30 s as well: that
            is how other programs will run it.
    """
    base, base_processor = load_model(recipe)
    tuned, processor = load_checkpoint(resolve(str(checkpoint)))
    own = recipe.decoding_context
    context = None if stock_window or not own.enabled else own
    kept = Hypotheses(base.to(device()), base_processor)
    readers = {
        "before": Reader(base, base_processor, None, kept),
        "after": Reader(tuned.to(device()), processor, context),
    }
    if context:
        readers["after_30s"] = Reader(tuned, processor, None)
    return readers
