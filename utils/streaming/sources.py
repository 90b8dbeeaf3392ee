"""Sources of speech as streams of one schema: read lazily, mixed, and decoded with a guard.

A row is `audio` (the bytes of an encoded file), `text`, `language`, `seconds` (or None),
`source` (the label of its `Source`), `id`, `speaker` and `recording`, the longer one that it was
cut from; both are "" where the data name none, and are unique only within their source.
No file is downloaded whole unless its rows are not available singly, nothing is decoded before it
is needed, and one corrupt clip costs only that clip.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import (
    Features,
    IterableDataset,
    List,
    Value,
    concatenate_datasets,
)

from utils.config import RecipeError, Source
from utils.embedded import fetch as embedded
from utils.streaming import common_voice
from utils.streaming.files import Recording
from utils.streaming.hub import held_out, open_split, read_rows
from utils.streaming.parts import read_audio
from utils.streaming.pseudo_labels import CLIPS_AT_ONCE, labeller
from utils.streaming.recordings import all_sounds, read_recordings
from utils.streaming.sound import AudioError, decode_audio, promised_seconds
from utils.whisper.audio_context import SAMPLING_RATE

# A list among a generator's arguments is what datasets calls files: divided among the workers
# that stream it, and read in another order in each pass.
PARTS = 16

EMBEDDED_SPLITS = ("train", "dev", "test")  # the values of transcripts.split_of

SCHEMA = Features(
    {
        "audio": Value("binary"),
        "text": Value("string"),
        "language": Value("string"),
        "seconds": Value("float32"),
        "source": Value("string"),
        "id": Value("string"),
        "speaker": Value("string"),
        "recording": Value("string"),
        # From sources that cut long recordings, else None: where in it the clip begins
        # (seconds), what was removed from its text, and why it cannot be used.
        "start": Value("float64"),
        "notes": List(Value("string")),
        "fault": Value("string"),
    }
)


def seconds_of(row: Mapping[str, Any]) -> float:
    """Return the duration of a streamed row: its source's, else by decoding; 0 if that fails."""
    if row["seconds"] is not None:
        return row["seconds"]
    try:
        return len(decode_audio(row["audio"])) / SAMPLING_RATE
    except AudioError:
        return 0.0


def _embedded_rows(
    language: str, speaker: str, split: str, label: str, parts: Sequence[int]
) -> Iterator[dict]:
    # The packages list their prompts by topic: ordered by a hash, the first rows of a stream
    # are a sample of all of them.
    clips = [clip for clip in embedded.speech(language, speaker).clips if clip.split == split]
    clips.sort(key=lambda clip: hashlib.sha256(clip.id.encode()).digest())
    for part in parts:
        for clip in clips[len(clips) * part // PARTS : len(clips) * (part + 1) // PARTS]:
            data = clip.path.read_bytes()
            yield {
                "audio": data,
                "text": clip.text,
                "language": language,
                "seconds": promised_seconds(data),
                "source": label,
                "id": clip.id,
                "speaker": clip.speaker,
                "recording": "",
            }


def _embedded_stream(source: Source, split: str) -> IterableDataset:
    if split not in EMBEDDED_SPLITS:
        raise RecipeError(
            f'The embedded speech has no split "{split}"; it has {", ".join(EMBEDDED_SPLITS)}.'
        )
    return IterableDataset.from_generator(
        _embedded_rows,
        features=SCHEMA,
        gen_kwargs={
            "language": source.language,
            "speaker": source.name,
            "split": split,
            "label": source.label,
            "parts": list(range(PARTS)),
        },
    )


def _recorded_rows(recordings: Sequence[Sequence[Recording]], source: Source) -> Iterator[dict]:
    for one in itertools.chain.from_iterable(recordings):
        audio, seconds = (b"", None) if one.fault else read_audio(one)
        yield {
            "audio": audio,
            "text": one.text,
            "language": source.language,
            "seconds": seconds,
            "source": source.label,
            "id": f"{source.label}/{one.id}",
            "speaker": one.speaker,
            "recording": one.recording,
            "start": one.start,
            "notes": list(one.notes),
            "fault": one.fault,
        }


def _recorded_stream(source: Source, split: str) -> IterableDataset:
    columns = source.text_column, source.audio_column
    if source.transcribe_with:
        found = all_sounds(source.name)
    else:
        found = read_recordings(source.name, source.language, *columns, tier=source.tier)
    if not any(one.split == split for one in found):
        splits = ", ".join(sorted({one.split for one in found}))
        raise RecipeError(
            f'{source.name} has no recordings in the split "{split}"; it has {splits}. Its splits '
            "are called train, dev and test, and a missing dev or test is held out of train."
        )
    chosen = _divided([one for one in found if one.split == split])
    return IterableDataset.from_generator(
        _recorded_rows, features=SCHEMA, gen_kwargs={"recordings": chosen, "source": source}
    )


def _divided(clips: Sequence[Recording]) -> list[tuple[Recording, ...]]:
    """Return clips in up to PARTS parts; those of one recording stay together."""
    borders = [0]
    for part in range(1, PARTS):
        border = max(len(clips) * part // PARTS, borders[-1])
        while 0 < border < len(clips) and (
            clips[border].recording and clips[border].recording == clips[border - 1].recording
        ):
            border += 1
        borders.append(border)
    pairs = itertools.pairwise([*borders, len(clips)])
    return [tuple(clips[first:last]) for first, last in pairs if first < last]


def _common_voice_rows(path: Path, source: Source, split: str) -> Iterator[dict]:
    for name, entry, audio in common_voice.read_clips(path, split, source.language):
        yield {
            "audio": audio,
            "language": source.language,
            "source": source.label,
            "id": f"{source.label}/{name}",
            "recording": "",  # each clip was recorded alone
            **entry,
        }


def _common_voice_stream(source: Source, split: str) -> IterableDataset:
    path = common_voice.find(source.name, source.language)
    # A missing split is reported now, not when its turn comes.
    common_voice.read_split(path, split, source.language)
    return IterableDataset.from_generator(
        _common_voice_rows,
        features=SCHEMA,
        gen_kwargs={"path": path, "source": source, "split": split},
    )


def _hub_stream(source: Source, split: str) -> IterableDataset:
    """Stream a Hub dataset, or a local folder in the Hub's layout, into the schema."""
    names, part = held_out(source, split)
    streams = []
    for name in names:
        rows, files = open_split(source, name)
        told = {"rows": rows, "files": files, "source": source, "split": name, "part": part}
        streams.append(IterableDataset.from_generator(read_rows, features=SCHEMA, gen_kwargs=told))
    return concatenate_datasets(streams) if len(streams) > 1 else streams[0]


def stream(source: Source, split: str) -> IterableDataset:
    """Return a source's rows in the schema of this module, read lazily.

    Args:
        source: the recipe's.
        split: a split name, or several joined: `train+validation`.

    Raises:
        RecipeError: the split or the text column does not exist; the message lists what does.
    """
    kinds = {
        "embedded": _embedded_stream,
        "recordings": _recorded_stream,
        "common_voice": _common_voice_stream,
    }
    open_one = kinds.get(source.dataset, _hub_stream)
    parts = [open_one(source, name) for name in split.split("+")]
    rows = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    rows = rows.take(source.max_clips) if source.max_clips else rows
    if source.transcribe_with:
        add_text = labeller(source.transcribe_with, source.language)
        rows = rows.map(add_text, batched=True, batch_size=CLIPS_AT_ONCE, features=SCHEMA)
    return rows
