"""Your own recordings on disk: found in whatever layout they have, and divided into splits.

A folder with tables or lists of files and texts, Kaldi's data folder, sound files beside a .txt
each, or one table. If a layout is not recognised, the message lists what is there.
"""

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from utils.config import RecipeError
from utils.streaming import annotations
from utils.streaming.columns import NoColumns
from utils.streaming.files import (
    MISSING,
    SPLITS,
    WITHOUT_SOUND,
    Line,
    Recording,
    read_text,
    say,
    split_in_folders,
    split_in_name,
)
from utils.streaming.folders import Folder
from utils.streaming.layouts import LISTS, read_kaldi, read_list, read_lists
from utils.streaming.pairs import TEXTS, read_pairs
from utils.streaming.sound import promised_seconds
from utils.streaming.splits import hold_out, with_listed_splits
from utils.streaming.tables import TABLES, read_beside, read_nameless, read_table
from utils.streaming.unread import nothing_found, shown, ways_from


def _resolve(path: Path, lines: Sequence[Line], folder: Folder) -> Iterable[tuple[str, Recording]]:
    """Yield (place, recording) of each line of one table or list."""
    by_name, by_place = split_in_name(path), split_in_folders(folder.name(path))
    beside = folder.name(path.parent)
    for line, sound in zip(lines, folder.locate(lines, path.parent), strict=True):
        wanted = posixpath.normpath(posixpath.join(beside, line.name.replace("\\", "/")))
        name = folder.name(sound) if sound else wanted
        is_part = line.start is not None or line.end is not None
        named = SPLITS.get(line.split.lower(), line.split)
        yield (
            line.where,
            Recording(
                path=sound or folder.root / wanted,
                text=line.text,
                id=f"{name}@{line.start or 0:g}" if is_part else name,
                split=named or by_name or split_in_folders(name) or by_place,
                start=line.start,
                end=line.end,
                speaker=line.speaker,
                recording=line.recording or (name if is_part else ""),
                fault="" if sound else MISSING,
            ),
        )


def _merge(found: Iterable[tuple[str, Recording]]) -> list[Recording]:
    """Return each clip once, even if two tables name it.

    Raises:
        RecipeError: a clip has two texts.
    """
    merged: dict[tuple, tuple[str, Recording]] = {}
    twice = 0
    for where, one in found:
        key = (one.path, one.start, one.end)
        first, before = merged.setdefault(key, (where, one))
        if before is one:
            continue
        if before.text.split() != one.text.split():
            raise RecipeError(
                f"{where}: {one.id} is named a second time, and {first} has another text. If these "
                "are parts of one file, give start and end in seconds; if one table is out of "
                "date, give the other one as name in the recipe."
            )
        twice += 1
        known = {"split": before.split or one.split, "speaker": before.speaker or one.speaker}
        merged[key] = first, replace(before, **known)
    if twice:
        say(f"{twice} clips are named twice with the same text, and count once.")
    ids = Counter(one.id for _, one in merged.values())
    return [
        replace(one, id=f"{one.id}-{one.end:g}") if ids[one.id] > 1 and one.end else one
        for _, one in merged.values()
    ]


def _read_table(path: Path, folder: Folder, text: str, audio: str) -> list[Line]:
    """Return the lines of the table that the recipe names.

    Raises:
        RecipeError: it cannot be read, or has no column of files or texts.
    """
    try:
        return read_table(path, text, audio)
    except NoColumns:
        if guessed := _guess(path, folder, text, audio):
            return guessed
        raise


def _guess(path: Path, folder: Folder, text: str, audio: str) -> list[Line]:
    """Return the lines of a table without known columns by what is in it; else none."""
    # If the recipe names a column, it is not there.
    if audio or text != "text" or path.suffix.lower() not in (".csv", ".tsv"):
        return []
    return read_nameless(path, partial(folder.knows, beside=path.parent))


def _is_annotation(path: Path) -> bool:
    """Return whether a table or JSON has the parts of one recording; no if it cannot be read."""
    try:
        return annotations.is_annotation(path, read_text(path))
    except RecipeError:
        return False


def _read_tables(folder: Folder, text: str, audio: str) -> list[tuple[Path, list[Line]]]:
    """Return the tables of clips in a folder, each with its lines.

    If one has a header, those without and the JSONs of single clips tell something else.

    Raises:
        RecipeError: a table cannot be read, or one called metadata has no column of texts.
    """
    tables = [path for path in folder.files if path.suffix.lower() in TABLES]
    found, guessed = [], []
    for path in tables:
        kind = path.suffix.lower()
        own = folder.of(path) if kind in (".json", ".csv", ".tsv") else None
        is_annotation = bool(own or kind == ".json") and _is_annotation(path)
        if is_annotation and own:
            continue
        if kind == ".json" and folder.anywhere(path.stem):
            if not any(path.with_suffix(other).is_file() for other in TEXTS):
                guessed.append((path, read_beside(path, text)))
            continue
        try:
            lines = read_table(path, text, audio)
            # One whose sound is not there numbers its segments.
            if not is_annotation or folder.knows([one.name for one in lines], path.parent):
                found.append((path, lines))
        except NoColumns:
            guessed.append((path, _guess(path, folder, text, audio)))
            is_metadata = path.stem.lower() == "metadata"
            if not guessed[-1][1] and (is_metadata or (audio and len(tables) == 1)):
                raise
    found = [(path, lines) for path, lines in found if lines]
    return found or [(path, lines) for path, lines in guessed if lines]


def _listed(found: Iterable[tuple[Path, list[Line]]], folder: Folder) -> list[Recording]:
    return _merge(one for table, lines in found for one in _resolve(table, lines, folder))


def _have_texts(recordings: Iterable[Recording]) -> bool:
    return any(one.text.strip() and one.fault not in (MISSING, WITHOUT_SOUND) for one in recordings)


def _tell_unnamed(folder: Folder, recordings: Sequence[Recording]) -> None:
    named = {one.path for one in recordings}
    if left := [folder.name(path) for path in folder.sounds if path not in named]:
        say(f"{len(left)} sound files of {folder.root} are in no table: {shown(left)}.")


def _check_times(recordings: Sequence[Recording]) -> None:
    """Refuse parts after the end of their recording: milliseconds taken for seconds.

    Raises:
        RecipeError: most parts of the first recording end far after it.
    """
    first = next((one.path for one in recordings if one.end and one.path.is_file()), None)
    seconds = first and promised_seconds(first)
    ends = [one.end for one in recordings if one.path == first and one.end and not one.fault]
    if seconds and 2 * sum(end > 2 * seconds + 10 for end in ends) > len(ends):
        raise RecipeError(
            f"{first.name} is {seconds:.0f} s long, and most of its parts end later, the last at "
            f"{max(ends):g} s: if these are milliseconds, call the columns start_ms and end_ms; "
            "if they count samples, divide them by the sampling rate."
        )


def read_recordings(
    name: str,
    language: str,
    text_column: str = "text",
    audio_column: str = "",
    tier: str = "",
) -> list[Recording]:
    """Return every recording of a folder or a table, each with its split.

    Args:
        name: a folder, or a table.
        language: Whisper's code.
        text_column: of tables; "text" takes the first known name of texts that a table has.
        audio_column: of tables; "" takes the first known name of files that a table has.
        tier: of annotations or subtitles, where a recording has several.

    Raises:
        RecipeError: no known layout, or a table cannot be read as it is.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() in TABLES:
        folder = Folder(path.parent)
        found = [(path, _read_table(path, folder, text_column, audio_column))]
    elif path.is_file() and path.suffix.lower() in LISTS:
        folder = Folder(path.parent)
        found = [(path, read_list(path, folder))]
    elif path.is_dir():
        folder = Folder(path)
        found = read_kaldi(folder) or _read_tables(folder, text_column, audio_column)
        found = found or read_lists(folder)
    else:
        raise RecipeError(
            f"{path} is neither a folder nor a table ({', '.join(TABLES)}): name in the recipe "
            f"says where your recordings are.{ways_from([path])}"
        )
    recordings = listed = _listed(found, folder)
    if path.is_dir() and not listed:
        recordings = read_pairs(folder, language, tier)
        if not _have_texts(recordings):
            recordings = listed = _listed(read_lists(folder, of_labels=True), folder)
    if not _have_texts(recordings):
        raise nothing_found(folder)
    if path.is_dir():
        if listed:
            _tell_unnamed(folder, recordings)
        recordings = with_listed_splits(recordings, folder)
    _check_times(recordings)
    return hold_out(recordings, language, path.name)


def all_sounds(name: str) -> list[Recording]:
    """Return every sound file of a folder as a training clip without a text.

    Raises:
        RecipeError: it is no folder, or has no sound.
    """
    folder = Folder(Path(name).expanduser())
    if not folder.sounds:
        raise RecipeError(
            f"{name} is no folder with sound files: a source with transcribe_with takes all that "
            "are in one."
        )
    return [Recording(path, "", folder.name(path), split="train") for path in folder.sounds]
