"""What programs write about a recording as JSON: segments with times, perhaps corrected since."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.config import RecipeError
from utils.streaming.cues import Cue

# The list of segments in a program's JSON, a key that all of them have, and how each is read.
SEGMENTS: dict[str, tuple[str, Callable[[dict], tuple[Any, Any, str]]]] = {
    "segments": ("text", lambda one: (one["start"], one["end"], one["text"])),  # Whisper, WhisperX
    "transcription": (  # whisper.cpp, in milliseconds
        "offsets",
        lambda one: (one["offsets"]["from"] / 1000, one["offsets"]["to"] / 1000, one["text"]),
    ),
    "chunks": ("timestamp", lambda one: (*one["timestamp"], one["text"])),  # Transformers
    "fragments": (  # aeneas
        "lines",
        lambda one: (one["begin"], one["end"], " ".join(one["lines"])),
    ),
}


def list_of_segments(text: str) -> str:
    """Return the name of the list of segments in a JSON; "" if it is something else."""
    found = (name for name, (key, _) in SEGMENTS.items() if f'"{name}"' in text)
    return next((name for name in found if f'"{SEGMENTS[name][0]}"' in text), "")


def read_segments(path: Path, text: str) -> list[Cue]:
    """Return the segments of a program's JSON.

    Raises:
        RecipeError: the JSON is damaged, or a segment lacks a time or its text.
    """
    cues = []
    try:
        name = list_of_segments(text)
        for one in json.loads(text)[name]:
            start, end, said = SEGMENTS[name][1](one)
            # Transformers leaves the last end open.
            times = (math.nan if at is None else float(at) for at in (start, end))
            cues.append(Cue(*times, str(said), str(one.get("speaker") or "")))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(
            f"{path} is no transcript of Whisper's, segments of start, end and text ({error!r})."
        ) from None
    return cues
