"""The files below a folder, and which of them a name in a table refers to."""

import os
import posixpath
import unicodedata
from bisect import bisect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from utils.config import RecipeError
from utils.streaming.files import SUFFIXES, Line, leads_out, parts_of, say

LOSSLESS = (".wav", ".flac")  # of a clip that lies there in several formats, one of these is read
SAMPLE = 60  # names of a table that are tried to find the folder of its files


def _leads_back(folder: Path) -> bool:
    """Tell whether a folder is a link to one that it lies in: it would be walked for ever."""
    return folder.is_symlink() and any(map(folder.samefile, folder.absolute().parents))


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
            inner = (name for name in folders if name[0] != "." and name != "__MACOSX")
            folders[:] = sorted(name for name in inner if not _leads_back(Path(folder, name)))
            found += [Path(folder, name) for name in sorted(names) if name[0] != "."]
        return found

    @cached_property
    def sounds(self) -> list[Path]:
        """The audio files."""
        return [path for path in self.files if path.suffix.lower() in SUFFIXES]

    @cached_property
    def _names(self) -> tuple[dict[str, Path | None], ...]:
        """Sounds by name, in any case and with or without suffix; by stem, whatever the folder."""
        exact, loose, alone = {}, {}, {}
        for path in self.sounds:
            name = _form(self.name(path))
            exact[name] = path
            # A loose name that several clips share refers to none of them.
            for other in {name.casefold(), _stem(name), _stem(name).casefold()}:
                loose[other] = _same_clip(loose[other], path) if other in loose else path
            stem = _stem(_form(path.name))
            alone[stem] = _same_clip(alone[stem], path) if stem in alone else path
        return loose | exact, alone

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
        name, (known, _) = _form(name), self._names
        if found := known.get(name):
            return found
        stem = _stem(name)
        return next(filter(None, map(known.get, (name.casefold(), stem, stem.casefold()))), None)

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
            if found.get(line.name) is None and "://" in line.name:
                raise RecipeError(
                    f"{line.where}: {line.name} is an address, and sound is not fetched from "
                    "there: download the files, and name them in its place."
                )
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
        below += dict.fromkeys(str(one) for name in below for one in PurePosixPath(name).parents)
        depth = max((len(parts_of(name)) for name in sample), default=1)
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
        parts = parts_of(name)
        if stripped >= len(parts) or (stripped == 0 and parts[0] == "/"):
            return None
        inner = posixpath.normpath(posixpath.join(base, *parts[stripped:]))
        return None if inner.startswith("..") else self.find(inner)

    def anywhere(self, name: str) -> Path | None:
        """Return the only sound with a name that has no folder, wherever it is."""
        return self._names[1].get(_stem(_form(name)))

    def of(self, path: Path) -> Path | None:
        """Return the sound that a file beside it is named after: talk.json, talk.mp3.words.json."""
        return self.anywhere(path.stem) or self.anywhere(path.with_suffix("").stem)

    def _missing(self, line: Line, beside: Path, count: int, of: int = 0) -> str:
        close = get_close_matches(parts_of(line.name)[-1], [p.name for p in self.sounds], n=1)
        hint = f'; there is "{close[0]}"' if close else ""
        if not self.sounds:
            hint = "; there is no sound at all"
        share = f"{count} of {of} files" if of else f"{count} files, all"
        return (
            f"{share} that the table names are not there. The first is {line.where}: "
            f"{beside / line.name}{hint}. Names are relative to the table's folder."
        )


def _same_clip(one: Path | None, other: Path) -> Path | None:
    """Return the file to read of two that are one clip in two formats: None if they are not."""
    kinds = [path.suffix.lower() for path in (one, other) if path]
    if len(set(kinds)) < 2 or one.with_suffix("") != other.with_suffix(""):
        return None
    return one if kinds[0] in LOSSLESS or kinds[1] not in LOSSLESS else other


def _stem(name: str) -> str:
    """Return a name without an audio suffix: `1.2.wav` → `1.2`, `1.2` → `1.2`."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in SUFFIXES else name
