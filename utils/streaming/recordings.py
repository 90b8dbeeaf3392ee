"""Your own recordings on disk: sound and text matched by name, and dealt into splits.

Three layouts: a folder with metadata.csv, .tsv or .jsonl in it or in its train/dev/test folders
("audiofolder"); a folder of sound files, each beside a .txt of the same name, or long ones beside
subtitles or annotations; a manifest file.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import soundfile

from utils.config import RecipeError
from utils.streaming import annotations
from utils.streaming.cues import make_clips
from utils.streaming.sound import promised_seconds
from utils.text import normalize

SPLITS = {"train": "train", "dev": "dev", "test": "test"}
SPLITS |= {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "eval": "dev"}
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff")  # what libsndfile reads
MANIFESTS = (".csv", ".tsv", ".jsonl")
# What the column with the file's name is called in audiofolder, in NeMo, and by most people.
FILE_COLUMNS = ("file_name", "audio_filepath", "audio", "path", "file")
BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


@dataclass(frozen=True)
class Recording:
    """One clip: a file, or the part of it from `start` to `end` (seconds)."""

    path: Path
    text: str
    id: str  # the file's name as the manifest has it, and the start of the part
    split: str = ""  # "" where the data say nothing
    start: float | None = None
    end: float | None = None
    speaker: str = ""  # "" where the data name none
    recording: str = ""  # what other clips were cut from, too
    notes: tuple[str, ...] = ()  # what was left out of the text, for the report
    fault: str = ""  # why it cannot be used, where that is known already


def read_text(path: Path) -> str:
    """Read a text file written by any editor: UTF-8 or UTF-16, with or without its mark.

    Raises:
        RecipeError: it is in another encoding. Guessed, it would give wrong letters silently.
    """
    data = path.read_bytes()
    encoding = next((e for mark, e in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}, line {line}, is not UTF-8: save it as UTF-8.") from None


def read_unquoted(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a tab-separated table, where a quote is part of the sentence.

    Read as CSV, a sentence that begins with a quote swallows the rows up to the next one.
    """
    header, *lines = (line.rstrip("\r").split("\t") for line in text.split("\n"))
    for cells in lines:
        if any(cells):
            row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=False))
            if len(cells) > len(header):
                row[None] = cells[len(header) :]  # as csv.DictReader gives what is too much
            yield row


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, columns) of a manifest.

    Raises:
        RecipeError: a line is no JSON, or has more cells than the header: half of a text, cut at
            its comma, would be trained on as the whole.
    """
    text = read_text(path)
    if path.suffix == ".jsonl":
        # Not splitlines: it also breaks at characters that JSON allows inside a string.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise RecipeError(f"{path}, line {number}, is no JSON: {error}.") from None
                if not isinstance(row, dict):
                    raise RecipeError(f"{path}, line {number}: a JSON object is needed.")
                yield number, {key: "" if v is None else str(v) for key, v in row.items()}
        return
    header = text.split("\n", 1)[0]
    if path.suffix == ".tsv":
        numbered = enumerate(read_unquoted(text), 2)
    else:
        # The spreadsheets of half of Europe write semicolons.
        delimiter = ";" if ";" in header and "," not in header else ","
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        numbered = ((reader.line_num, row) for row in reader)
    for number, row in numbered:
        if any(row.pop(None, None) or []):
            raise RecipeError(
                f"{path}, line {number}, has more cells than the header: in a .csv, put a text "
                'with a comma in it between quotes ("); in a .tsv, take tabs out of it.'
            )
        yield number, {key.strip(): value or "" for key, value in row.items() if key}


def safe_path(folder: Path, name: str, where: str) -> Path:
    """Return the file that a manifest names, inside the manifest's folder.

    Raises:
        RecipeError: the name is absolute or leads out of the folder.
    """
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or re.match(r"[A-Za-z]:", name):
        raise RecipeError(
            f'{where}: "{name}" leads out of {folder}; files are named relative to the manifest, '
            "inside its folder."
        )
    return folder / inner


def _seconds(row: dict[str, str], column: str, where: str) -> float | None:
    value = row.get(column, "").strip().replace(",", ".")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise RecipeError(f'{where}: {column} = "{value}" is no number of seconds.')
    return seconds


def _split(row: dict[str, str], name: str) -> str:
    named = row.get("split", "").strip().lower()
    folders = (SPLITS.get(part.lower(), "") for part in PurePosixPath(name).parts[:-1])
    return SPLITS.get(named, named) or next(filter(None, folders), "")


def read_manifest(path: Path, text_column: str = "text", within: str = "") -> list[Recording]:
    """Read a CSV, TSV or JSONL manifest, one clip a line.

    Its columns: the file's name (`FILE_COLUMNS`), the text, and if they are there `split`, and in
    seconds `start` and `end`, or NeMo's `offset` and `duration`.

    Args:
        path: of the manifest; files are named relative to its folder.
        text_column: the column with the text.
        within: the folder it lies in, for the ids and the splits of a folder of manifests.

    Raises:
        RecipeError: a column is missing, or a line cannot be used as it is; the message has both.
    """
    found: dict[str, Recording] = {}
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        column = next((name for name in FILE_COLUMNS if name in row), None)
        if column is None or text_column not in row:
            missing = f'"{text_column}"' if column else f"of the file's name ({FILE_COLUMNS[0]})"
            raise RecipeError(
                f"{where}: the column {missing} is missing; it has {', '.join(row)}. The recipe's "
                "text_column says where the text is."
            )
        name = row[column].strip()
        start, end = _seconds(row, "start", where), _seconds(row, "end", where)
        if "offset" in row:
            start, duration = _seconds(row, "offset", where), _seconds(row, "duration", where)
            end = duration and (start or 0) + duration
        if end is not None and end <= (start or 0):
            raise RecipeError(f"{where}: the clip ends at {end:g} s, before it starts.")
        whole = f"{within}/{name}" if within else name
        one = Recording(
            path=safe_path(path.parent, name, where),
            text=row[text_column],
            id=whole if start is None and end is None else f"{whole}@{start or 0:g}",
            split=_split(row, whole),
            start=start,
            end=end,
        )
        if one.id in found:
            raise RecipeError(
                f"{where}: {one.id} is named a second time. If these are parts of one file, give "
                "start and end in seconds."
            )
        found[one.id] = one
    return list(found.values())


def _read_annotated(
    sound: Path, texts: dict[tuple[Path, str], str], name: str, language: str, tier: str
) -> Iterator[Recording]:
    """Yield the clips of a long recording that subtitles or an annotation divide."""
    known = {"split": _split({}, name), "recording": name}
    if not sound.is_file():
        said = f"{next(iter(texts))[0].name} lies beside no sound of its name"
        yield Recording(sound, said, name, fault="annotation without a sound", **known)
        return
    seconds = promised_seconds(sound) or math.inf
    for clip in make_clips(annotations.read_cues(texts, tier, name), language, seconds):
        told = {"start": clip.start, "end": clip.end, "notes": clip.notes, "fault": clip.fault}
        yield Recording(sound, clip.text, f"{name}@{clip.start:g}", **told, **known)


def _read_pairs(folder: Path, language: str, tier: str) -> list[Recording]:
    """Match every sound file with the .txt of the same name, or with what annotates it.

    Either may lack the other. A .txt comes first, unless a tier is asked for.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    sounds = [path for path in files if path.suffix.lower() in SUFFIXES]
    texts = {p: read_text(p) for p in files if p.suffix.lower() == ".txt" and p.stem != "README"}
    timed = {path for path in files if annotations.is_annotation(path, texts.get(path, ""))}
    plain = {path.with_suffix(""): text for path, text in texts.items() if path not in timed}
    annotated = annotations.beside(sounds, sorted(timed))
    alone = plain.keys() - {path.with_suffix("") for path in sounds}
    # A text without a sound is a row whose file is missing, so that the report counts it.
    paths = {*sounds, *annotated, *(path.with_suffix(".wav") for path in alone)}
    found = []
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        text = plain.get(path.with_suffix(""))
        if path in annotated and (tier or text is None):
            known = {
                (p, track): texts.get(p) or read_text(p) for p, track in annotated[path].items()
            }
            found += _read_annotated(path, known, name, language, tier)
        else:
            found.append(Recording(path, text or "", name, _split({}, name)))
    return found


def deal(recordings: list[Recording], language: str) -> list[Recording]:
    """Give recordings without splits theirs: a tenth of the sentences each for test and dev.

    By the hash of the normalised text, so that a sentence is in one split whoever says it, and the
    same folder always gives the same splits.
    """
    keys = [hashlib.sha256(normalize(one.text, language).encode()).digest() for one in recordings]
    order = sorted(set(keys))
    share = max(1, round(len(order) / 10))
    splits = dict.fromkeys(order, "train")
    splits |= dict.fromkeys(order[:share], "test") | dict.fromkeys(order[share : 2 * share], "dev")
    return [replace(one, split=splits[key]) for one, key in zip(recordings, keys, strict=True)]


def read_recordings(
    name: str, language: str, text_column: str = "text", tier: str = ""
) -> list[Recording]:
    """Return every recording of a folder or a manifest, each with its split.

    Args:
        name: a folder, or a .csv, .tsv or .jsonl file.
        language: Whisper's code.
        text_column: of a manifest.
        tier: of annotations or subtitles, where a recording has several.

    Raises:
        RecipeError: there is nothing to read; or see `read_manifest`.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix.lower() in MANIFESTS:
        found = read_manifest(path, text_column)
    elif path.is_dir():
        manifests = sorted(p for p in path.rglob("metadata.*") if p.suffix in MANIFESTS)
        found = [
            one
            for manifest in manifests
            for one in read_manifest(
                manifest,
                text_column,
                "" if manifest.parent == path else manifest.parent.relative_to(path).as_posix(),
            )
        ] or _read_pairs(path, language, tier)
    else:
        raise RecipeError(
            f"{path} is neither a folder nor a manifest ({', '.join(MANIFESTS)}): name of the "
            "[[sources]] table says where your recordings are."
        )
    if not found:
        raise RecipeError(
            f"{path} holds no recordings: it needs a metadata.csv with the columns file_name and "
            "text, or sound files, each beside a .txt of the same name or beside subtitles (.srt, "
            ".vtt), a TextGrid, an .eaf or Audacity's labels."
        )
    if not any(one.split for one in found):
        return deal(found, language)
    # What the data leave open is for training, where others of them are dealt out.
    return [replace(one, split=one.split or "train") for one in found]


def read_audio(recording: Recording) -> tuple[bytes, float | None]:
    """Return an encoded file, cut to the recording's part, and its seconds.

    A file that is missing or unreadable gives what `decode_audio` will refuse: it costs its clip,
    and the report counts it.
    """
    if not recording.path.is_file():
        return b"", None
    cut = recording.start is not None or recording.end is not None
    try:
        if not cut:
            data = recording.path.read_bytes()
            return data, soundfile.info(io.BytesIO(data)).duration
        with soundfile.SoundFile(recording.path) as file:
            first = min(round((recording.start or 0) * file.samplerate), file.frames)
            last = file.frames if recording.end is None else round(recording.end * file.samplerate)
            file.seek(first)
            # Read as integers, samples of a float file are not scaled: all become 0.
            is_float = file.subtype in ("FLOAT", "DOUBLE")
            samples = file.read(max(0, last - first), dtype="float32" if is_float else "int16")
            part, subtype = io.BytesIO(), "FLOAT" if is_float else "PCM_16"
            soundfile.write(part, samples, file.samplerate, subtype, format="WAV")
            return part.getvalue(), len(samples) / file.samplerate
    except soundfile.SoundFileError:
        return (b"" if cut else data), None
