"""Captions: what was said from when to when, and the files that players read it from."""

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Segment(NamedTuple):
    """A sentence or so, in seconds from the start of the recording."""

    start: float
    end: float
    text: str


def clock(seconds: float, mark: str = ".") -> str:
    """Return `01:02:03.450`; `mark` stands before the milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _line(text: str) -> str:
    # A blank line ends a cue in both formats: a text that holds one would end its own.
    return " ".join(text.split())


def to_srt(segments: Iterable[Segment]) -> str:
    """Return SubRip: numbered cues, a comma before the milliseconds."""
    cues = (
        f"{number}\n{clock(start, ',')} --> {clock(end, ',')}\n{_line(text).replace('-->', '->')}\n"
        for number, (start, end, text) in enumerate(segments, 1)
    )
    return "\n".join(cues)


def to_vtt(segments: Iterable[Segment]) -> str:
    """Return WebVTT (https://www.w3.org/TR/webvtt1/), in which `&`, `<` and `>` are escaped."""
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    cues = (
        f"{clock(start)} --> {clock(end)}\n{_line(text).translate(escapes)}\n"
        for start, end, text in segments
    )
    return "\n".join(["WEBVTT\n", *cues])


def to_json(segments: Iterable[Segment]) -> str:
    """Return a JSON list of `{"start", "end", "text"}`, in seconds."""
    rows = [
        {"start": round(start, 3), "end": round(end, 3), "text": text}
        for start, end, text in segments
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Iterable[Segment]], str]] = {
    "srt": to_srt,
    "vtt": to_vtt,
    "json": to_json,
}
