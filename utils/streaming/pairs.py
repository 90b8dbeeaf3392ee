"""Sound with its text in a file of the same name: a .txt for each clip, or an annotation."""

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import basename, splitext

from utils.streaming import annotations
from utils.streaming.cues import make_clips
from utils.streaming.files import Recording, is_transcript, read_text, split_of
from utils.streaming.folders import Folder
from utils.streaming.sound import promised_seconds
from utils.whisper.audio_context import STOCK_SECONDS

TEXTS = (".txt", ".lab")
TIMIT = re.compile(r"\d+ \d+ (?=\D)")  # the first and the last sample, before each text
# In LibriTTS a clip has two texts: the original, and one with numbers in words.
IN_WORDS, AS_WRITTEN = ".normalized", ".original"

Texts = dict[tuple[Path, str], str]  # annotation, its track → contents of the file


def _annotated(
    sound: Path, texts: Texts, name: str, language: str, tier: str
) -> Iterator[Recording]:
    """Yield the clips of a long recording that is divided by subtitles or an annotation."""
    known = {"split": split_of("", PurePosixPath(name).parts[:-1]), "recording": name}
    if not sound.is_file():
        said = f"{next(iter(texts))[0].name} lies beside no sound of its name"
        yield Recording(sound, said, name, fault="annotation without a sound", **known)
        return
    seconds = promised_seconds(sound) or math.inf
    for clip in make_clips(annotations.read_cues(texts, tier, name), language, seconds):
        told = {name: getattr(clip, name) for name in ("start", "end", "speaker", "notes", "fault")}
        yield Recording(sound, clip.text, f"{name}@{clip.start:g}", **told, **known)


def _plain(folder: Folder, texts: dict[Path, str]) -> dict[Path, str]:
    """Return the text of each sound, beside it or in a tree of texts.

    A text without a sound is filed under the name that its sound would have, as a .wav.
    """
    found: dict[Path, str] = {}
    if all(map(TIMIT.match, texts.values())):
        texts = {path: TIMIT.sub("", text, count=1) for path, text in texts.items()}
    for path, text in texts.items():
        stem, _ = splitext(folder.name(path))
        name, kind = splitext(stem)
        if kind not in (IN_WORDS, AS_WRITTEN):
            name = stem
        sound = folder.find(name) or folder.anywhere(basename(name)) or path.with_suffix(".wav")
        if sound not in found or kind == AS_WRITTEN:
            found[sound] = text
    return found


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
    """
    texts, timed = {}, set()
    for path in folder.files:
        kind = path.suffix.lower()
        is_text = kind in TEXTS and is_transcript(path)
        if is_text or (kind == ".json" and folder.anywhere(path.stem)):
            texts[path] = read_text(path)
        if annotations.is_annotation(path, texts.get(path, "")):
            timed.add(path)
        elif not is_text:
            texts.pop(path, None)
    plain = _plain(folder, {path: text for path, text in texts.items() if path not in timed})
    annotated = annotations.beside(folder.sounds, sorted(timed))
    found = []
    for path in sorted({*folder.sounds, *annotated, *plain}, key=lambda path: path.parts):
        name = folder.name(path)
        if path in annotated and (tier or path not in plain or _is_long(path)):
            tracks = annotated[path].items()
            known = {(p, track): texts.get(p) or read_text(p) for p, track in tracks}
            found += _annotated(path, known, name, language, tier)
        else:
            split = split_of("", PurePosixPath(name).parts[:-1])
            found.append(Recording(path, plain.get(path, ""), name, split))
    return found
