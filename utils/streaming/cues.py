"""From the segments of an annotation to clips of up to 30 s: what is said, what is left out.

A clip's text has the times of its segments as Whisper's timestamp tokens: `<|0.00|> Ciao.<|1.20|>`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import regex

from utils.text import word_gap
from utils.whisper.audio_context import STOCK_SECONDS
from utils.whisper.captions import Segment, to_marks

# Seconds. A longer pause may contain speech that nobody transcribed.
LONGEST_PAUSE = 3.0
# Seconds that two cues may overlap, or one exceed the sound: people set boundaries by ear.
TOLERANCE = 0.5

SOUND = "caption of a sound"
SPEAKER = "name of a speaker"
MARKUP = "mark-up"
MUSIC = regex.compile(r"♪[^♪]*(?:♪|$)|♫[^♫]*(?:♫|$)")
BRACKETS = regex.compile(
    r"(?:\[[^\]]*\]|\([^)]*\)|（[^）]*）|【[^】]*】|［[^］]*］)\s*[:：]?|^\s*\*[^*\n]+\*\s*$",
    regex.M,
)
TAGS = regex.compile(r"</?[a-zA-Z][^<>\n]*>|<[\d:.]+>|\{\\[^}\n]*\}")
CHANGE = regex.compile(r"^\s*(?:>>+|[-–—‐](?!\d))\s*(?=\S)", regex.M)  # a different speaker's line
NAME = regex.compile(
    r"^\s*(\p{Lu}[\p{L}\p{M}\d.'’ -]{0,30}?|\p{Lo}{1,8}) ?[:：](?=\s|\p{Lo})", regex.M
)
CLOCK = regex.compile(  # [00:01:02] or 1:02 - before what is said from there on
    r"^\s*[\[(]?(?:\d+:)?\d{1,2}:\d{2}(?:[.,]\d+)?[\])]?(?:\s*[-–:]\s|\s|$)\s*", regex.M
)
OFTEN = 3  # cues that a name in lower case must open to count as a speaker's


class Cue(NamedTuple):
    """A segment of an annotation, in seconds from the start of the recording."""

    start: float
    end: float
    text: str
    speaker: str = ""  # "" if the annotation names none


@dataclass(frozen=True)
class Clip:
    """A part of a recording, in seconds from its start."""

    start: float
    end: float
    text: str
    notes: tuple[str, ...] = ()  # what was removed from the text, or moved; each once per place
    fault: str = ""  # why it cannot be used
    speaker: str = ""


def _speakers(cues: Iterable[Cue]) -> set[str]:
    """Return names before a colon: in capitals, numbered, or frequent there."""
    found = Counter(name for cue in cues for name in NAME.findall(cue.text))
    return {
        name
        for name, count in found.items()
        if count >= OFTEN or name.isupper() or regex.search(r"\d\.?$", name)
    }


def clean(text: str, language: str, speakers: Iterable[str] = ()) -> tuple[str, list[str]]:
    """Return the spoken text of a cue, and what was removed from it, once for each place.

    Args:
        text: of one cue, with its line breaks.
        language: Whisper's code; without word spaces, a line break leaves none.
        speakers: names to remove before a colon.
    """
    notes: list[str] = []
    speakers = set(speakers)
    for reason, pattern in ((MARKUP, TAGS), (SOUND, MUSIC), (SOUND, BRACKETS), (SPEAKER, CHANGE)):
        text, count = pattern.subn(" ", text)
        notes += [f"{reason} left out"] * count
    named = [found for found in NAME.finditer(text) if found[1] in speakers]
    for found in reversed(named):
        text = text[: found.start()] + "\n" + text[found.end() :]
    notes += [f"{SPEAKER} left out"] * len(named)
    words = [" ".join(line.split()) for line in text.splitlines()]
    said = word_gap(language).join(filter(None, words))
    if not regex.search(r"[\p{L}\p{N}]", said):
        return "", notes or ["cue without words left out"]
    return said, notes


def without_clocks(text: str) -> str:
    """Return a transcript without the times in front of its lines, if at least half have one."""
    lines = [line for line in text.splitlines() if line.strip()]
    are_many = 2 * sum(bool(CLOCK.match(line)) for line in lines) >= len(lines) > 1
    return CLOCK.sub("", text) if are_many else text


def _fault(cue: Cue, seconds: float) -> str:
    """Return why a cue's own times cannot be used, regardless of its neighbours."""
    if math.isnan(cue.start + cue.end):
        return "segment without times"
    if cue.end <= cue.start:
        return "cue that ends where it starts, or before"
    if cue.start >= seconds:
        return "cue after the end of the sound"
    if cue.end > seconds + TOLERANCE:
        return "cue that outlives the sound"
    if cue.end - cue.start > STOCK_SECONDS:
        return f"cue longer than {STOCK_SECONDS:g} s"
    return ""


def _disentangle(clips: Sequence[Clip]) -> list[Clip]:
    """Shorten clips that overlap a little, and give a fault to those that overlap more."""
    clips = list(clips)
    last = -1  # the clip that ends last so far
    for number, clip in enumerate(clips):
        if clip.fault or not clip.text:
            continue
        if last >= 0 and (shared := clips[last].end - clip.start) > 0:
            shorter = min(clip.end - clip.start, clips[last].end - clips[last].start)
            if shared <= min(TOLERANCE, shorter / 2):
                notes = (*clips[last].notes, "cue that overlapped the next: cut short")
                clips[last] = replace(clips[last], end=clip.start, notes=notes)
            else:
                for one in (last, number):
                    clips[one] = replace(clips[one], fault="cue that overlaps another")
        if last < 0 or clip.end > clips[last].end:
            last = number
    return clips


def _window(clips: Sequence[Clip]) -> Clip:
    start = clips[0].start
    cues = [Segment(one.start - start, one.end - start, one.text) for one in clips]
    notes = tuple(note for one in clips for note in one.notes)
    return Clip(start, clips[-1].end, to_marks(cues), notes, speaker=clips[0].speaker)


def _first_part(clips: Sequence[Clip], coming: Clip) -> int:
    """Return how many clips to close a window with, before a cue that does not fit any more.

    At the longest pause of the second half: windows should end between sentences.
    """
    ends = [one.end for one in clips]
    starts = [one.start for one in clips[1:]] + [coming.start]
    counts = [
        number
        for number, end in enumerate(ends, 1)
        if end - clips[0].start >= STOCK_SECONDS / 2
        and (number == len(clips) or coming.end - clips[number].start <= STOCK_SECONDS)
    ]
    return max(counts, key=lambda n: (starts[n - 1] - ends[n - 1], n), default=len(clips))


def _clean_all(cues: Sequence[Cue], language: str, seconds: float) -> list[Clip]:
    """Return each cue once, cleaned, by time, with its own fault if it has one."""
    speakers, found, latest = _speakers(cues), [], 0.0
    for cue in dict.fromkeys(cue for cue in cues if cue.text.strip()):  # Praat writes pauses
        text, notes = clean(cue.text, language, speakers)
        fault = _fault(cue, seconds) if text else ""
        if cue.start < latest:
            notes.append("cue out of order: sorted")
        else:
            latest = cue.start
        end = cue.end if fault else min(cue.end, seconds)
        start = 0.0 if cue.start < 0 else cue.start  # Audacity lets a label begin before the sound
        found.append(Clip(start, end, text, tuple(notes), fault, cue.speaker))
    return sorted(found, key=lambda clip: (math.isnan(clip.start), clip.start))


def make_clips(cues: Sequence[Cue], language: str, seconds: float = math.inf) -> Iterator[Clip]:
    """Yield the clips of a recording: cues joined up to 30 s and cut at pauses, and faulty cues.

    A clip has one speaker, where cues name theirs.

    Args:
        cues: of one tier, in the order of the file.
        language: Whisper's code.
        seconds: the duration of the sound, if known.
    """
    waiting: list[Clip] = []
    passed: tuple[str, ...] = ()  # notes of cues without text, for the next with text
    for clip in _disentangle(_clean_all(cues, language, seconds)):
        if waiting and (
            # The speech in between is not transcribed: no window goes across it.
            clip.fault
            or not clip.text
            or clip.start - waiting[-1].end > LONGEST_PAUSE
            or clip.speaker != waiting[-1].speaker
        ):
            yield _window(waiting)
            waiting = []
        if clip.fault:
            yield clip
            continue
        if not clip.text:
            passed += clip.notes
            continue
        if waiting and clip.end - waiting[0].start > STOCK_SECONDS:
            count = _first_part(waiting, clip)
            yield _window(waiting[:count])
            waiting = waiting[count:]
        waiting.append(replace(clip, notes=passed + clip.notes))
        passed = ()
    if waiting:
        yield _window([*waiting[:-1], replace(waiting[-1], notes=waiting[-1].notes + passed)])
