"""Subtitles: SRT, WebVTT, YouTube's SBV, TTML and SubStation, read by pysubs2."""

import html
import re
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import ParseError

import pysubs2

from utils.config import RecipeError
from utils.streaming.cues import TAGS, Cue

KINDS = {"WEBVTT": "vtt", "[Script Info]": "ass", "<?xml": "ttml", "<tt": "ttml"}
SBV = re.compile(r"^(\d+:\d\d:\d\d\.\d+),(\d+:\d\d:\d\d\.\d+)\s*$", re.M)  # YouTube's times
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?[ \t]+([^<>\n]+)>")  # WebVTT: <v Anna>, <v.loud Anna>
WORD_TIMES = re.compile(r"<[\d:.]+>")  # WebVTT: two in a line would be the times of a cue
NEXT = "\n\n0\n"  # pysubs2 takes a number at the end of a text for that of the next cue


def read_subtitles(path: Path, text: str) -> list[Cue]:
    """Return the cues of a file, whose format is that of its contents.

    Raises:
        RecipeError: it cannot be read, or has a time that is not understood.
    """
    kind = next((KINDS[mark] for mark in KINDS if text.lstrip().startswith(mark)), "srt")
    if kind == "vtt":
        text = _numbered(text)
    elif kind == "srt":
        text = SBV.sub(r"\1 --> \2", text) + NEXT
    try:
        cues = pysubs2.SSAFile.from_string(text, format_=kind, keep_html_tags=True)
    except (ParseError, ValueError, LookupError, NotImplementedError) as error:
        raise RecipeError(f"{path} is no {kind.upper()} that can be read ({error}).") from None
    found = [one for one in cues if not one.is_comment]
    # A time that is not recognised would be taken for a line of the cue before.
    lines = [line for line in text.splitlines() if "-->" in line]
    if kind in ("srt", "vtt") and (len(lines) != len(found) or not lines):
        raise RecipeError(
            f"{path} is not understood as subtitles: {len(lines)} lines have -->, {len(found)} are "
            "the times of a cue, such as 00:01:02,500 --> 00:01:04,000."
        )
    return _unrolled([_cue_of(one) for one in found])


def _numbered(text: str) -> str:
    """Return the cues of a WebVTT, each before a number: without notes and the names of cues."""
    blocks = re.split(r"\n{2,}", text.replace("\r\n", "\n"))
    starts = [(block, block.find("-->")) for block in blocks]
    cues = [block[block.rfind("\n", 0, at) + 1 :] for block, at in starts if at >= 0]
    return WORD_TIMES.sub("", "".join(f"{cue}{NEXT}" for cue in cues))


def _unrolled(cues: list[Cue]) -> list[Cue]:
    """Return cues without the lines that rolling captions, as YouTube's, repeat from the last."""
    said = [list(filter(str.strip, TAGS.sub("", one.text).split("\n"))) for one in cues]
    repeated = [
        next((n for n in range(len(lines), 0, -1) if before[-n:] == lines[:n]), 0)
        for before, lines in pairwise([[], *said])
    ]
    if len(cues) < 3 or 2 * sum(map(bool, repeated)) < len(cues):  # what is said twice is kept
        return cues
    return [
        cue._replace(text="\n".join(lines[count:]))
        for cue, lines, count in zip(cues, said, repeated, strict=True)
    ]


def _cue_of(event: pysubs2.SSAEvent) -> Cue:
    """Return a subtitle with its speaker: a voice of WebVTT, or the actor of SubStation."""
    voices = [" ".join(name.split()) for name in VOICE.findall(event.text)] or [event.name.strip()]
    speaker = html.unescape(" & ".join(dict.fromkeys(voices)))
    return Cue(event.start / 1000, event.end / 1000, html.unescape(event.plaintext), speaker)
