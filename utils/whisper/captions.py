"""Captions: what was said from when to when, and the file formats that players take."""

import json
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Segment(NamedTuple):
    """A sentence or so, in seconds from the start of the recording."""

    start: float
    end: float
    text: str


def clock(seconds: float, mark: str = ".") -> str:
    """Return `01:02:03.450`; `mark` separates the milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def _line(text: str) -> str:
    # A blank line ends a cue in both formats: a text with one would end its own cue.
    return " ".join(text.split())


# Whisper's timestamp tokens, <|0.00|> to <|30.00|>, but also <|it|> and <|endoftext|>.
MARK = re.compile(r"<\|([^|<>]*)\|>")


def to_marks(segments: Iterable[Segment]) -> str:
    """Return `<|0.00|> Ciao.<|1.20|><|1.50|> Come va?<|2.00|>`, Whisper's format of timestamps."""
    return "".join(f"<|{start:.2f}|> {_line(text)}<|{end:.2f}|>" for start, end, text in segments)


def from_marks(text: str) -> list[Segment]:
    """Return the segments of `to_marks`; none where a text has no marks at all.

    Raises:
        ValueError: other marks than times, or times that do not go up in pairs around the text.
    """
    parts = MARK.split(text)  # text and mark in turn
    if len(parts) == 1:
        return []
    times = [float(mark) for mark in parts[1::2]]
    said, between = parts[2::4], "".join(parts[::4]).strip()
    if len(times) % 2 or between or times != sorted(times):
        raise ValueError("times that are not in pairs around the text, or do not go up")
    return [
        Segment(*one) for one in zip(times[::2], times[1::2], map(str.strip, said), strict=True)
    ]


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
