"""The files of a folder of recordings, and which of them a name in a table refers to."""

import os
import posixpath
import unicodedata
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from utils.config import RecipeError

SPLITS = {"train": "train", "dev": "dev", "test": "test"}
SPLITS |= {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "eval": "dev"}
SPLITS |= {"development": "dev", "testing": "test"}
# Audio, and video with an audio track; the decoder determines the format from the contents.
SUFFIXES = {
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".snd"),
    *(".caf", ".w64", ".sph", ".m4a", ".m4b", ".mp4", ".aac", ".amr", ".3gp", ".3gpp", ".3g2"),
    *(".wma", ".asf", ".webm", ".weba", ".mkv", ".mka", ".mov", ".avi", ".flv", ".mpg", ".mpeg"),
    *(".mp2", ".ac3", ".ape", ".wv", ".tta", ".voc", ".gsm", ".spx", ".dsf"),
}
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
NO_TRANSCRIPTS = {"readme", "license", "licence", "copying", "changelog", "requirements"}
SAMPLE = 60  # names of a table that are tried to find the folder of its files


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
        RecipeError: it has a different encoding. Guessing could give wrong letters silently.
    """
    data = path.read_bytes()
    encoding = next((e for mark, e in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}, line {line}, is not UTF-8: save it as UTF-8.") from None


def is_transcript(path: Path) -> bool:
    """Return whether a text file may be a transcript: not a README or a licence."""
    return path.stem.lower() not in NO_TRANSCRIPTS


def split_of(name: str, folders: Sequence[str] = ()) -> str:
    """Return the split that a name means, else that of a folder on the path; "" if none."""
    name = name.strip().lower()
    known = (SPLITS.get(part.lower(), "") for part in folders)
    return SPLITS.get(name, name) or next(filter(None, known), "")


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


class Folder:
    """The files below a folder, found by name in any form that tables use.

    It is listed only when needed: a table may be in a large folder and name its files exactly.
    """

    def __init__(self, root: Path):
        self.root = root

    @cached_property
    def files(self) -> list[Path]:
        """The paths below the folder, sorted, without hidden ones."""
        found = []
        for folder, folders, names in os.walk(self.root, followlinks=True):
            folders[:] = sorted(name for name in folders if name[0] != "." and name != "__MACOSX")
            found += [Path(folder, name) for name in sorted(names) if name[0] != "."]
        return found

    @cached_property
    def sounds(self) -> list[Path]:
        """The audio files."""
        return [path for path in self.files if path.suffix.lower() in SUFFIXES]

    @cached_property
    def _names(self) -> tuple[dict[str, Path | None], ...]:
        """Sounds by name; ignoring case and suffix; by stem only, whatever the folder."""
        exact, loose, alone = {}, {}, {}
        for path in self.sounds:
            name = _form(self.name(path))
            exact[name] = path
            # A loose name that several files share refers to none of them.
            for other in {name.casefold(), _stem(name), _stem(name).casefold()}:
                loose[other] = None if other in loose else path
            stem = _stem(_form(path.name))
            alone[stem] = None if stem in alone else path
        return exact, loose, alone

    @cached_property
    def _with_sound(self) -> list[str]:
        return sorted({self.name(path.parent) for path in self.sounds})

    @cached_property
    def _by_parent(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._with_sound:
            found.setdefault(str(PurePosixPath(name).parent), []).append(name)
        return found

    def name(self, path: Path) -> str:
        """Return a path as its name below the folder, with slashes."""
        # Not relative_to, which takes five times as long, for every file.
        text, root = path.as_posix(), self.root.as_posix()
        if root == ".":
            return text
        return text[len(root) :].lstrip("/") or "."

    def find(self, name: str) -> Path | None:
        """Return the sound with a name below the folder, ignoring case and suffix if need be."""
        name, (exact, loose, _) = _form(name), self._names
        if name in exact:
            return exact[name]
        if found := loose.get(name):
            return found
        stem = _stem(name)
        return next(filter(None, map(loose.get, (name.casefold(), stem, stem.casefold()))), None)

    def locate(self, lines: Sequence[Line], beside: Path) -> list[Path | None]:
        """Return the file of each line of one table, None if there is none.

        Names are relative to the table's folder, or all of them to one other folder: people move
        tables, and move data between machines.

        Args:
            lines: of the table.
            beside: the table's folder.

        Raises:
            RecipeError: none of the files exists; the message has the first path that was tried. Or
                a name leads out of the folder.
        """
        names = list(dict.fromkeys(line.name for line in lines))
        found: dict[str, Path | None] = dict.fromkeys(names)
        if "files" not in self.__dict__:  # not looked through so far, and perhaps it need not be
            found = {name: self._directly(beside, name) for name in names}
        if not all(found.values()):
            find = self._finder(beside, names[:: max(1, len(names) // SAMPLE)])
            found = {name: found[name] or find(name) for name in names}
        there = [path for path in found.values() if path]
        if len(there) > len(set(there)) and len(set(map(_form, names))) == len(names):
            found = {name: self._below(self.name(beside), name) for name in names}
        for line in lines:
            if found.get(line.name) is None and leads_out(self.name(beside), line.name):
                raise RecipeError(
                    f'{line.where}: "{line.name}" leads out of {self.root}; files are named '
                    "relative to the table, inside its folder."
                )
        if not any(found.values()):
            raise RecipeError(self._missing(lines[0], beside, len(names)))
        if lost := [line for line in lines if found.get(line.name) is None]:
            say(self._missing(lost[0], beside, len({line.name for line in lost}), len(names)))
        return [found.get(line.name) for line in lines]

    def _directly(self, beside: Path, name: str) -> Path | None:
        if leads_out(self.name(beside), name):
            return None
        path = beside / name.strip().replace("\\", "/")
        return path if path.is_file() else None

    def knows(self, names: Sequence[str], beside: Path) -> bool:
        """Return whether at least half of the names in a table or list are those of sounds."""
        sample = names[:: max(1, len(names) // SAMPLE)]
        find = self._finder(beside, sample)
        return bool(sample) and 2 * sum(find(one) is not None for one in sample) >= len(sample)

    def _finder(self, beside: Path, sample: Sequence[str]) -> Callable[[str], Path | None]:
        """Return the function from name to file that finds most of a sample of names."""
        here = self.name(beside)
        own = partial(self._below, here)
        if any(map(own, sample)):
            return own
        inner = PurePosixPath(here)
        above = [str(one) for one in inner.parents]
        near = self._by_parent.get(str(inner.parent), [])
        first = bisect(self._with_sound, f"{here}/") if here != "." else 0
        below = self._with_sound[first : first + SAMPLE]
        depth = max((len(_parts(name)) for name in sample), default=1)
        ways = [
            partial(self._below, folder, stripped=stripped)
            for stripped in range(depth)
            for folder in dict.fromkeys([here, *above, *near[:SAMPLE], *below])
        ]
        ways.append(self.anywhere)
        counts = [sum(way(name) is not None for name in sample) for way in ways]
        return ways[counts.index(max(counts))]

    def _below(self, base: str, name: str, stripped: int = 0) -> Path | None:
        if (
            base == "." and not stripped and name.isalnum()
        ):  # most ids: there is nothing to take apart
            return self.find(name)
        parts = _parts(name)
        if stripped >= len(parts) or (stripped == 0 and parts[0] == "/"):
            return None
        inner = posixpath.normpath(posixpath.join(base, *parts[stripped:]))
        return None if inner.startswith("..") else self.find(inner)

    def anywhere(self, name: str) -> Path | None:
        """Return the only sound with a name that has no folder, wherever it is."""
        return self._names[2].get(_stem(_form(name)))

    def _missing(self, line: Line, beside: Path, count: int, of: int = 0) -> str:
        close = get_close_matches(_parts(line.name)[-1], [p.name for p in self.sounds], n=1)
        hint = f'; there is "{close[0]}"' if close else ""
        if not self.sounds:
            hint = "; there is no sound at all"
        share = f"{count} of {of} files" if of else f"{count} files, all"
        return (
            f"{share} that the table names are not there. The first is {line.where}: "
            f"{beside / line.name}{hint}. Names are relative to the table's folder."
        )


def _stem(name: str) -> str:
    """Return a name without an audio suffix: `1.2.wav` → `1.2`, `1.2` → `1.2`."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.strip().replace("\\", "/")).parts or ("",)


def leads_out(here: str, name: str) -> bool:
    """Return whether a name, relative to a folder below the root, leads out of the root."""
    parts = _parts(name)
    joined = posixpath.normpath(posixpath.join(here, *parts))
    return joined.startswith(("/", "..")) or parts[0].endswith(":")
