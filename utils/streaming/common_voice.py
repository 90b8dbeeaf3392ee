"""Common Voice as Mozilla distributes it: an archive on disk, read without unpacking it.

Scripted speech is LANG/{train,dev,test,…}.tsv, clip_durations.tsv and clips/*.mp3; spontaneous
speech is ss-corpus-LANG.tsv with a split column, and audios/*.mp3. Source of the layouts:
github.com/common-voice/cv-dataset (datasets/*/README.md) for releases 27.0 and 5.0, November 2026.
"""

import csv
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from utils.config import RecipeError
from utils.streaming.data_collective import download
from utils.streaming.files import Recording, leads_out
from utils.streaming.splits import hold_out

DURATIONS = "clip_durations.tsv"
TABLES = {"train.tsv", "dev.tsv", "test.tsv", DURATIONS}
SPONTANEOUS, CLIPS = "ss-corpus-", ("clips", "audios")
# Tables of sentences, and of clips that somebody reported: they name no files.
NO_SPLITS = {"clip_durations", "reported", "validated_sentences", "unvalidated_sentences"}
CUT_OFF = (tarfile.TarError, EOFError, OSError, zlib.error)
# Tags in transcripts of spontaneous speech: [disfluency], [noise]. They are not spoken.
TAGS = re.compile(r"\[[a-z _-]+\]")


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, tarfile.ExFileObject]]:
    """Yield (path, contents) of an archive's files in one pass; nothing is unpacked."""
    try:
        with tarfile.open(archive, mode="r|*") as tar:
            while (member := tar.next()) is not None:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise RecipeError(
                        f'{archive} holds the path "{member.name}", which leads out of it: it is '
                        "not what Mozilla published."
                    )
                if member.isfile():
                    yield path, tar.extractfile(member)
                # tarfile remembers every member: 1 KB per clip, gigabytes in a large archive.
                tar.members.clear()
    except CUT_OFF as error:
        raise _cut_off(archive, error) from None


def _cut_off(archive: Path, error: Exception) -> RecipeError:
    return RecipeError(
        f"{archive} cannot be read to its end ({error}): download it again, or go on with the "
        "download if it was cut off."
    )


def _read(content: Path | tarfile.ExFileObject, archive: Path) -> bytes:
    """Return a file of a folder or an archive; most downloads are cut off in the middle of one."""
    try:
        return content.read_bytes() if isinstance(content, Path) else content.read()
    except CUT_OFF as error:
        raise _cut_off(archive, error) from None


@lru_cache(maxsize=4)  # one pass through an archive for its tables, not one for each split
def _tables(path: Path, modified: int, wanted: str) -> dict[str, str]:
    """Return text by file name of the tables in use and of `wanted`, "" for all others."""
    if path.is_dir():
        files = ((PurePosixPath(p), p) for p in sorted(path.rglob("*.tsv")))
    else:
        files = _members(path)  # the tables are anywhere among the clips
    tables: dict[str, str] = {}
    for inner, content in files:
        if inner.name in {*TABLES, wanted} or inner.name.startswith(SPONTANEOUS):
            data = _read(content, path)
            try:
                tables[inner.name] = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = data[: error.start].count(b"\n") + 1
                raise RecipeError(f"{path}: {inner.name}, line {line}, is not UTF-8.") from None
            if wanted in tables and tables.keys() >= TABLES:
                break
        elif inner.suffix == ".tsv":  # hundreds of megabytes in a large language
            tables[inner.name] = ""
    return tables


def _seconds(milliseconds: str) -> float | None:
    try:
        seconds = float(milliseconds) / 1000
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def _rows(path: Path, name: str, text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a table; raise a RecipeError if it lacks one of the columns."""
    lines = text.replace("\r", "").split("\n")
    # A quote is part of the sentence: as CSV's, it would swallow the rows up to the next one.
    table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
    if missing := [column for column in columns if text and column not in table.fieldnames]:
        raise RecipeError(
            f'{path}: {name} has no column "{missing[0]}"; it has {", ".join(table.fieldnames)}: '
            "it is no table of Common Voice's clips."
        )
    return list(table)


def _clips(rows: list[dict[str, str]], file: str, text: str, split: str = "") -> list[Recording]:
    return [
        Recording(
            path=Path(row[file]),
            text=row[text],
            id=row[file],
            split=split or row.get("split", ""),
            speaker=row.get("client_id", ""),
        )
        for row in rows
    ]


def _listed(path: Path, split: str) -> tuple[list[Recording], dict[str, str], set[str]]:
    """Return the clips of a split and of those it may be held out of, durations and known splits.

    The durations are in milliseconds, as text, by file name.
    """
    wanted = f"{split}.tsv"
    tables = _tables(path, path.stat().st_mtime_ns, "train.tsv" if wanted in TABLES else wanted)
    known = {name[:-4] for name in tables if name[:-4] not in NO_SPLITS}
    if table := next((name for name in tables if name.startswith(SPONTANEOUS)), ""):
        rows = _rows(path, table, tables[table], ("audio_file", "transcription"))
        clips = _clips(rows, "audio_file", "transcription")
        clips = [replace(one, text=TAGS.sub(" ", one.text)) for one in clips]
        durations = {row["audio_file"]: row.get("duration_ms", "") for row in rows}
        known = {one.split for one in clips} - {""}
    else:
        lines = (line.split("\t") for line in tables.get(DURATIONS, "").splitlines()[1:])
        durations = {cells[0]: cells[1] for cells in lines if len(cells) > 1}
        clips = []
        for name in ("train", "dev", "test") if wanted in TABLES else (split,):
            rows = _rows(path, f"{name}.tsv", tables.get(f"{name}.tsv", ""), ("path", "sentence"))
            clips += _clips(rows, "path", "sentence", name)
    return clips, durations, known


def read_split(path: Path, split: str, language: str = "") -> dict[str, dict]:
    """Return the tables' entries for a split: file name → `text`, `seconds` or None, `speaker`.

    If a dev or test split is missing or empty, it is held out of train.

    Args:
        path: an archive or an unpacked folder.
        split: "train", "dev", "test", or a different table: "validated", "other".
        language: Whisper's code.

    Raises:
        RecipeError: it is not Common Voice, or it has no such split.
    """
    clips, durations, known = _listed(path, split)
    if split in ("train", "dev", "test"):
        clips = hold_out(clips, language, path.name)
    found = {}
    for one in (clip for clip in clips if clip.split == split):
        seconds = _seconds(durations.get(one.id, ""))
        found[one.id] = {"text": one.text, "seconds": seconds, "speaker": one.speaker}
    if not found and known == {"unassigned"}:
        raise RecipeError(
            f"{path} has no splits: Mozilla has assigned none of its {len(clips)} clips. Take "
            'train = "unassigned" in the recipe, with dev and test from another source.'
        )
    if not found:
        raise RecipeError(
            f'{path} has no clips in the split "{split}"; '
            + (f"it has {', '.join(sorted(known))}." if known else "is it Common Voice?")
        )
    for name in found:
        if leads_out(".", name):
            raise RecipeError(f'{path}, {split}: "{name}" leads out of the folder of its clips.')
    return found


def read_clips(path: Path, split: str, language: str = "") -> Iterator[tuple[str, dict, bytes]]:
    """Yield (file name, `read_split`'s entry, MP3 bytes) in the order of the archive.

    Clips that are in the table but not in the archive come last, with b"": nothing to decode, so
    that the report counts them.

    Raises:
        RecipeError: see `read_split`; or the archive is incomplete or not what Mozilla published.
    """
    left = read_split(path, split, language)
    # Other folders may have the same names; a mirror of the Hub has its clips in them alone.
    if path.is_dir():
        there = sorted(path.rglob("*"), key=lambda p: (p.parent.name not in CLIPS, p))
        files = ((PurePosixPath(p), p) for p in there if p.is_file())
    else:
        files = (one for one in _members(path) if one[0].parent.name in CLIPS)
    for inner, content in files:
        if inner.name in left:
            data = _read(content, path)
            yield inner.name, left.pop(inner.name), data
        if not left:
            return
    for name, entry in left.items():
        yield name, entry, b""


def _of_language(folder: Path, language: str) -> Path:
    """Return the folder of one locale; two unpacked side by side share a release's root.

    Raises:
        RecipeError: there are several, and not exactly one is of the language.
    """
    tables = [*folder.rglob("train.tsv"), *folder.rglob(f"{SPONTANEOUS}*.tsv")]
    locales = sorted({table.parent for table in tables})
    ours = [one for one in locales if one.name.lower().split("-")[0] == language]
    if len(locales) < 2:
        return folder
    if len(ours) != 1:
        names = ", ".join(one.relative_to(folder).as_posix() for one in locales)
        raise RecipeError(
            f"{folder} holds several locales ({names}): write the one's folder as name."
        )
    return ours[0]


def find(name: str, language: str = "") -> Path:
    """Return the path of Common Voice on disk, downloaded first if `name` is a locale.

    Args:
        name: an archive (.tar.gz), an unpacked folder, or a locale such as "es"; "spontaneous/es"
            for the spontaneous speech.
        language: Whisper's code, to choose from a folder with several locales.

    Raises:
        RecipeError: it is missing, or it cannot be downloaded; the message says what to do.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _of_language(path, language)
    if path.exists():
        return path
    kind, _, locale = name.rpartition("/")
    if kind not in ("", "spontaneous") or not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z]+)*", locale):
        raise RecipeError(
            f"{path} is not there: name of the [[sources]] table is an archive of Common Voice, an "
            'unpacked one, or the locale to download ("es").'
        )
    return download(locale, "spontaneous speech" if kind else "scripted speech")
