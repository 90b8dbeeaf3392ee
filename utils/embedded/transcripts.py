"""What embedded speech consists of: clips, what was dropped and why, and the three splits."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    id: str  # "it-carlo/vm-goodbye"
    path: Path  # WAV or Ogg Vorbis
    text: str
    split: str  # "train", "dev" or "test"
    speaker: str  # "it-carlo", "cs-statue"


@dataclass(frozen=True)
class Line:
    """A line of the transcripts with its recording, or a recording without a line."""

    id: str
    path: Path | None
    text: str  # cleaned
    reason: str  # why it is dropped, or ""
    shown: str  # in its original form, for examples
    speaker: str


@dataclass(frozen=True)
class Speech:
    """One speaker's clips, and what was dropped."""

    language: str
    speaker: str
    clips: tuple[Clip, ...]
    dropped: Mapping[str, int]  # reason -> lines (and recordings without a line)
    examples: Mapping[str, str]  # reason -> the first that it dropped
    attribution: str  # show it wherever a clip is played


def trim(text: str) -> str:
    """Return a transcript without ellipses and quotes that do not belong to it.

    Casing and punctuation stay. Ellipses at either end are removed ("...has joined"), and so are
    quotes around the whole or without their other half, and double spaces; "" if nothing is left
    that could be spoken.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if sum(text.count(quote) for quote in '"“”') == 1 or re.fullmatch('["“][^"“”]*["”]', text):
        text = re.sub('["“”]', "", text)
    text = re.sub(r"^(\.\.+|…)|(\.\.+|…)$", "", text.strip()).strip()
    return text if any(c.isalnum() for c in text) else ""


def first_reason(text: str, unusable: Mapping[str, re.Pattern]) -> str:
    """Return the first reason whose pattern a text matches, or ""."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return next((reason for reason, pattern in unusable.items() if pattern.search(text)), "")


def fits(text: str, seconds: float) -> bool:
    """Return whether a text fits a recording's length: nobody speaks 25 characters a second."""
    return len(text) <= 25 * seconds and (seconds < 5 or len(text) >= 4 * seconds)


def split_of(text: str) -> str:
    """Return the split of a sentence: "test" for about 10 %, "dev" for 12 %, else "train".

    It depends only on letters, marks and digits, so that a sentence is in one split whoever says
    it and however it is punctuated. "Premere 1" and "premere uno" still count as two sentences.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    key = "".join(c for c in text if unicodedata.category(c)[0] in "LMN")
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if share < 0.10 else "dev" if share < 0.22 else "train"
