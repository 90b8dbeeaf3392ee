"""Training windows: clips joined to fill the encoder, labels with timestamps and the text before.

Whisper was trained on windows of 30 s, with the times of every phrase and the text before. A short
clip has none of that, and a model trained only on such clips forgets it first.

`cut_samples` and `cut_tokens` divide a window into speech and pauses, which have no tokens.
"""

import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from utils.config import Windows
from utils.text import word_gap
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.features import TIMESTAMP_STEP
from utils.whisper.labels import POSITIONS

# OpenAI's transcribe keeps this many tokens of the text before: half of the positions, less one.
PROMPT_TOKENS = POSITIONS // 2 - 1
CUT = "\n"  # between the texts of joined clips; in none of them
LONGEST_GAP = 30.0  # seconds between two windows of a recording if one prompts the other
MOST_OPEN = 100  # windows that wait for more clips: each holds up to a megabyte of sound
ALONE = (
    "%s names neither recording nor speaker: each of its clips stays alone. Give the data such a "
    "column, or leave out [windows] seconds."
)

logger = logging.getLogger(__name__)


def join(
    clips: Iterable[dict[str, Any]], windows: Windows, max_label_tokens: int = POSITIONS
) -> Iterator[dict[str, Any]]:
    """Yield prepared clips joined to windows, in their order.

    Clips of one recording are joined or, if no recordings are named, clips of one speaker. A clip
    that names neither stays alone: the next one of its source may have a different speaker.

    Args:
        clips: of `prepare_example`.
        windows: the recipe's; with 0 seconds every clip is a window.
        max_label_tokens: the most that a window's labels may have, timestamps included.
    """
    waiting: dict[Hashable, list[dict[str, Any]]] = {}
    before: dict[Hashable, dict[str, Any]] = {}  # the last clip, with the text of its window
    alone: set[str] = set()

    def close(key: Hashable) -> dict[str, Any]:
        clips, last = waiting.pop(key), before.pop(key, None)
        window = _merge(clips, last["text_ids"] if last and _follows(last, clips[0]) else [])
        if windows.previous_text:
            said = said_ids(window)[-PROMPT_TOKENS:]
            before[key] = {**clips[-1], "audio": None, "text_ids": said}
            if len(before) > MOST_OPEN:
                del before[next(iter(before))]
        return window

    for clip in clips:
        key = _company(clip)
        if key is None:
            if windows.seconds and clip["source"] not in alone:
                alone.add(clip["source"])
                logger.warning(ALONE, clip["source"])
            yield _merge([clip], [])
            continue
        together = [*waiting.get(key, []), clip]
        seconds = sum(one["seconds"] for one in together)
        # 2 times for each clip, and the prefix.
        tokens = sum(len(said_ids(one)) + 2 * len(one["cut_tokens"]) for one in together) + 4
        if key in waiting and (seconds > windows.seconds or tokens > max_label_tokens):
            yield close(key)
            together = [clip]
        waiting[key] = together
        if not windows.seconds:  # nothing to wait for
            yield close(key)
        elif len(waiting) > MOST_OPEN:
            yield close(next(iter(waiting)))
    for key in list(waiting):
        yield close(key)


def _company(clip: Mapping[str, Any]) -> Hashable | None:
    """Return what clips must share to share a window; None if it is unknown."""
    for part in ("recording", "speaker"):
        if clip.get(part):
            return clip["source"], part, clip[part]
    return None


def _follows(last: Mapping[str, Any], clip: Mapping[str, Any]) -> bool:
    """Return whether a clip continues a recording where the last one ended, or soon after.

    Unrelated prompts would teach the model to ignore prompts.
    """
    if not clip["recording"] or clip["recording"] != last["recording"] or clip["start"] is None:
        return False
    return -0.01 < clip["start"] - (last["start"] + last["seconds"]) < LONGEST_GAP


def as_one(clip: dict[str, Any]) -> dict[str, Any]:
    """Return a prepared clip without its inner times, as decoded in a test."""
    gap = word_gap(clip["language"])
    whole = {"text": clip["text"].replace(CUT, gap), "cut_samples": [len(clip["audio"])]}
    return {**clip, **whole, "cut_tokens": [sum(clip["cut_tokens"])]}


def said_ids(row: Mapping[str, Any]) -> list[int]:
    """Return a prepared row's label ids between prefix and end token."""
    return list(row["labels"][-1 - sum(row["cut_tokens"]) : -1])


def _merge(clips: Sequence[dict[str, Any]], previous: list[int]) -> dict[str, Any]:
    first = clips[0]
    prefix = first["labels"][: -1 - sum(first["cut_tokens"])]
    return {
        **first,
        "audio": np.concatenate([one["audio"] for one in clips]),
        "labels": [*prefix, *(i for one in clips for i in said_ids(one)), first["labels"][-1]],
        "text": CUT.join(one["text"] for one in clips if one["text"]),  # not of non-speech
        "seconds": sum(one["seconds"] for one in clips),
        "cut_samples": [count for one in clips for count in one["cut_samples"]],
        "cut_tokens": [count for one in clips for count in one["cut_tokens"]],
        "previous": previous,
        "id": first["id"] + (f" and {len(clips) - 1} more" if len(clips) > 1 else ""),
    }


def cut(row: Mapping[str, Any]) -> list[tuple[str, np.ndarray]]:
    """Return the text and the samples of each clip of a prepared row."""
    borders = np.cumsum(row["cut_samples"])[:-1]
    parts = zip(np.split(row["audio"], borders), row["cut_tokens"], strict=True)
    said = [samples for samples, tokens in parts if tokens]
    return list(zip(row["text"].split(CUT) if said else (), said, strict=True))


def timed_labels(row: Mapping[str, Any], first_timestamp: int, stretch: float = 1.0) -> list[int]:
    """Return a row's label ids with the times at which each of its clips begins and ends.

    Args:
        row: a prepared one.
        first_timestamp: the id of `<|0.00|>`, which follows that of `<|notimestamps|>`.
        stretch: the clip's current duration divided by its stored one.

    Returns:
        The ids; the stored ones, without times, if the decoder has too few positions for them.
    """
    text, ends = said_ids(row), np.cumsum(row["cut_samples"]) / SAMPLING_RATE * stretch
    steps = [0, *np.round(ends / TIMESTAMP_STEP).astype(int).tolist()]
    ids = list(row["labels"][: -2 - len(text)])  # without <|notimestamps|>
    for start, end, tokens in zip(steps, steps[1:], row["cut_tokens"], strict=False):
        if tokens:
            ids += [first_timestamp + start, *text[:tokens], first_timestamp + end]
            text = text[tokens:]
    ids.append(row["labels"][-1])
    return ids if len(ids) <= POSITIONS else list(row["labels"])
