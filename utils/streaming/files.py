"""What the files of a folder of recordings are: sound, text, which split, one line of a table."""

import posixpath
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from utils.config import RecipeError
from utils.streaming.headers import HEAD, what_instead

SPLITS = {"train": "train", "dev": "dev", "test": "test"}
SPLITS |= {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "eval": "dev"}
SPLITS |= {"development": "dev", "testing": "test"}
# Audio, and video with an audio track; the decoder determines the format from the contents.
SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".sph", ".m4a", ".m4b", ".mp4", ".aac", ".amr", ".3gp", ".3gpp", ".3g2"),
    *(".wma", ".asf", ".webm", ".weba", ".mkv", ".mka", ".mov", ".avi", ".flv", ".mpg", ".mpeg"),
    *(".wmv", ".m4v", ".mts", ".m2ts", ".ogv"),
    *(".mp2", ".ac3", ".ape", ".wv", ".tta", ".voc", ".gsm", ".spx", ".dsf"),
}
# Faults of a text, and of an annotation, whose sound is not there.
MISSING, WITHOUT_SOUND = "missing audio", "annotation without a sound"
# VCTK's two microphones: the first is read, and the text has the name of neither.
VCTK, VCTK_SECOND = "_mic1", "_mic2"
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
NO_TRANSCRIPTS = {"readme", "license", "licence", "copying", "changelog", "requirements"}
NO_TRANSCRIPTS |= {"utt2spk", "utt2dur", "utt2lang", "utt2num_frames", "reco2dur"}  # Kaldi's


class Line(NamedTuple):
    """One clip as listed in a table or a list."""

    where: str  # "metadata.csv, line 3"
    name: str  # of the file, as written there
    text: str
    start: float | None = None  # seconds
    end: float | None = None
    split: str = ""
    speaker: str = ""
    recording: str = ""


@dataclass(frozen=True)
class Recording:
    """One clip: a file, or the part of it from `start` to `end` (seconds)."""

    path: Path
    text: str
    id: str  # the file's name below the folder, and the start of the part
    split: str = ""  # "" if the data do not say
    start: float | None = None
    end: float | None = None
    speaker: str = ""  # "" if the data name none
    recording: str = ""  # a recording that other clips were also cut from
    notes: tuple[str, ...] = ()  # what was removed from the text, for the report
    fault: str = ""  # why it cannot be used, if that is known already


@cache
def say(sentence: str) -> None:
    """Print a sentence about the data, once per process."""
    print(sentence)


def read_text(path: Path) -> str:
    """Read a text file from any editor: UTF-8 or UTF-16, with or without a byte-order mark.

    Raises:
        RecipeError: it is a web page, an archive or a pointer of Git LFS; or it has a different
            encoding. Guessing could give wrong letters silently.
    """
    data = path.read_bytes()
    if instead := data.strip(b"\0") and what_instead(data[:HEAD]):
        raise RecipeError(f"{path} is {instead}.")
    encoding = next((e for mark, e in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}, line {line}, is not UTF-8: save it as UTF-8.") from None


def is_transcript(path: Path) -> bool:
    """Return whether a text file may be a transcript: not a README, a licence or an alignment."""
    # LibriSpeech's alignments are lists of words and times beside those of texts.
    return path.stem.lower() not in NO_TRANSCRIPTS and not path.stem.endswith(".alignment")


def split_in_folders(name: str) -> str:
    """Return the split that a folder on a path means: train, dev_other, test-clean; "" if none."""
    firsts = (re.split(r"[-_]", part.lower())[0] for part in PurePosixPath(name).parts[:-1])
    return next((SPLITS[word] for word in firsts if word in SPLITS), "")


def split_in_name(path: Path) -> str:
    """Return the split in the name of a table or list: train.csv, test_manifest.jsonl."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    found = {SPLITS[word] for word in words if word in SPLITS}
    return found.pop() if len(found) == 1 else ""  # not that of train_test_split.csv


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a path that was written on any system; at least one."""
    return PurePosixPath(name.strip().replace("\\", "/")).parts or ("",)


def leads_out(here: str, name: str) -> bool:
    """Return whether a name, relative to a folder below the root, leads out of the root."""
    parts = parts_of(name)
    joined = posixpath.normpath(posixpath.join(here, *parts))
    return joined.startswith(("/", "..")) or parts[0].endswith(":")
