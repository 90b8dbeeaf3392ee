"""Sound with its text in a file of the same name: a .txt for each clip, or an annotation."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, splitext

from utils.config import RecipeError
from utils.streaming import annotations
from utils.streaming.cues import make_clips
from utils.streaming.files import (
    MISSING,
    VCTK,
    VCTK_SECOND,
    WITHOUT_SOUND,
    Recording,
    is_transcript,
    read_text,
    say,
    split_in_folders,
)
from utils.streaming.folders import Folder
from utils.streaming.sound import promised_seconds
from utils.whisper.audio_context import STOCK_SECONDS

TEXTS = (".txt", ".lab", ".trn")
TIMIT = re.compile(r"\d+ \d+ (?=\D)(.*)\s*")  # the first and the last sample before the text
# What aligners write: times and a phone, a word or a phrase in each line.
ALIGNED = re.compile(r"(?:\S+\s+)?\d+(?:\.\d+)?\s+\d+(?:\.\d+)?\s+\S.*")
# In LibriTTS a clip has two texts: the original, and one with numbers in words.
IN_WORDS, AS_WRITTEN = ".normalized", ".original"

EMPTY = "annotation without any text"
Texts = dict[tuple[Path, str], str]  # annotation, its track → contents of the file


def _annotated(
    sound: Path, texts: Texts, name: str, language: str, tier: str
) -> Iterator[Recording]:
    """Yield the clips of a long recording that is divided by subtitles or an annotation."""
    known = {"split": split_in_folders(name), "recording": name}
    if not sound.is_file():
        said = f"{next(iter(texts))[0].name} lies beside no sound of its name"
        yield Recording(sound, said, name, fault=WITHOUT_SOUND, **known)
        return
    seconds = promised_seconds(sound) or math.inf
    cues = annotations.read_cues(texts, tier, name)
    if not cues:
        there = ", ".join(path.name for path, _ in texts)
        said = f"{name} has annotations without any text: {there}."
        yield Recording(sound, said, name, fault=EMPTY, **known)
    for clip in make_clips(cues, language, seconds):
        told = {name: getattr(clip, name) for name in ("start", "end", "speaker", "notes", "fault")}
        yield Recording(sound, clip.text, f"{name}@{clip.start:g}", **told, **known)


def _plain(folder: Folder, texts: dict[Path, str]) -> dict[Path, str]:
    """Return the text of each sound, beside it or in a tree of texts.

    A text without a sound is filed under the name that its sound would have, as a .wav.
    """
    found: dict[Path, str] = {}
    if all(map(TIMIT.fullmatch, texts.values())):
        texts = {path: TIMIT.fullmatch(text)[1] for path, text in texts.items()}
    plain = {path: text for path, text in texts.items() if not _is_aligned(text)}
    if aligned := [path.name for path in texts if path not in plain]:
        say(
            f"{len(aligned)} files such as {aligned[0]} have times and labels in their lines: they "
            "are no transcripts, and not read. What is said when is read from subtitles, a "
            "TextGrid or an .eaf."
        )
    for path, text in plain.items():
        stem, suffix = splitext(folder.name(path))
        if suffix == ".trn":  # THCHS-30's, whose other lines are pinyin and phones
            text = text.partition("\n")[0]
        name, kind = splitext(stem)
        if kind not in (IN_WORDS, AS_WRITTEN):
            name = stem
        own = (basename(name), f"{basename(name)}{VCTK}")
        sound = folder.find(name) or next(filter(None, map(folder.anywhere, own)), None)
        sound = sound or path.with_suffix(".wav")
        if sound not in found or kind == AS_WRITTEN:
            found[sound] = text
    return found


def _is_aligned(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and all(map(ALIGNED.fullmatch, map(str.strip, lines)))


def _is_long(sound: Path) -> bool:
    return (promised_seconds(sound) or 0.0) > STOCK_SECONDS


def read_pairs(folder: Folder, language: str, tier: str = "") -> list[Recording]:
    """Match every sound with the .txt of its name, or with its annotation.

    Either may lack the other, so that the report counts it. A .txt comes first, unless the recipe
    names a tier, or the recording is longer than a window: Whisper writes both.

    Args:
        folder: whose files they are.
        language: Whisper's code.
        tier: of annotations or subtitles, where a recording has several.

    Raises:
        RecipeError: an annotation cannot be read, or none has any text.
    """
    texts, timed = {}, set()
    for path in folder.files:
        kind = path.suffix.lower()
        is_text = kind in TEXTS and is_transcript(path)
        if is_text or (kind in (".json", ".tsv", ".csv") and folder.of(path)):
            texts[path] = read_text(path)
        if annotations.is_annotation(path, texts.get(path, "")):
            timed.add(path)
        elif not is_text:
            texts.pop(path, None)
    plain = _plain(folder, {path: text for path, text in texts.items() if path not in timed})
    annotated = annotations.beside(folder, sorted(timed))
    second = {path.with_name(path.name.replace(VCTK, VCTK_SECOND)) for path in plain}
    found, sounds = [], set(folder.sounds) - (second - plain.keys())
    for path in sorted({*sounds, *annotated, *plain}, key=lambda path: path.parts):
        name = folder.name(path)
        if path in annotated and (tier or path not in plain or _is_long(path)):
            tracks = annotated[path].items()
            known = {(p, track): texts.get(p) or read_text(p) for p, track in tracks}
            found += _annotated(path, known, name, language, tier)
        else:
            split = split_in_folders(name)
            fault = "" if path in sounds else MISSING
            found.append(Recording(path, plain.get(path, ""), name, split, fault=fault))
    if found and all(one.fault == EMPTY for one in found):
        raise RecipeError(found[0].text)
    return found
