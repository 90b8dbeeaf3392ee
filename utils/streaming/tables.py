"""Tables of clips: CSV, TSV, JSON, Parquet and STM, from people and programs."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import median

from utils.config import RecipeError
from utils.streaming import label_studio
from utils.streaming.columns import (
    FILE_COLUMNS,
    PATH_COLUMNS,
    RECORDING_COLUMNS,
    SPEAKER_COLUMNS,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
    NoColumns,
    as_name,
    as_text,
    find_column,
    plain,
    text_column,
)
from utils.streaming.cues import Cue
from utils.streaming.delimited import (
    Rows,
    are_texts,
    by_name,
    delimited,
    name_columns,
    read_cells,
    stm_rows,
)
from utils.streaming.files import Line, read_text
from utils.streaming.headers import read_head, what_instead
from utils.streaming.times import has_start, read_times, time_columns, written_times

JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv", *JSON_LINES, ".parquet", ".stm")
NAME = "file_name"
LEAST_MILLISECONDS = 100  # of most parts: as seconds, no part is so long
COMMON_VOICE = {"client_id", "path", "sentence", "up_votes"}


def read_nameless(path: Path, knows: Callable[[Sequence[str]], bool]) -> list[Line]:
    """Return the clips listed in a table without a header.

    Args:
        path: of the table.
        knows: whether names or ids are those of sounds: it finds the column of the files.

    Returns:
        No lines if there is no such column, none of texts (a list of speakers), or a header.
    """
    rows = list(read_cells(path, read_text(path))[1])
    first = rows[0][1] if rows else []
    if find_column(first, (*FILE_COLUMNS, *TEXT_COLUMNS)):
        return []
    width = len(first)
    columns = ([cells[n] for _, cells in rows if n < len(cells)] for n in range(width))
    file = next((n for n, cells in enumerate(columns) if width > 1 and knows(cells)), None)
    if file is None:
        return []
    if not knows([first[file]]):
        del rows[0]  # a header in another language
    names = name_columns([cells[:width] for _, cells in rows], file)
    lines = list(_lines(path, by_name(path, names, iter(rows)), NAME, "text"))
    return lines if are_texts([line.text for line in lines]) else []


def _json_rows(path: Path, text: str) -> Rows:
    """Yield (number, object) of JSON lines, a list, pandas' columns, or a list in an object.

    Numbers keep their spelling: 3.10 is not 3.1 in a text.
    """
    whole = {"parse_float": str, "parse_int": str}
    try:
        data = json.loads(text, **whole)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        columns = [value for value in data.values() if isinstance(value, dict)]
        strings = [key for key, value in data.items() if isinstance(value, str)]
        if find_column(strings, TEXT_COLUMNS):  # one clip, perhaps with a list of its words
            data = [data]
        elif len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
            data = lists[0]
        elif len(columns) == len(data) and find_column(next(iter(columns), ()), FILE_COLUMNS):
            data = columns  # SpeechBrain's: an object for each id
        elif len(columns) == len(data) > 1:
            data = [{name: column.get(key) for name, column in data.items()} for key in columns[0]]
        else:
            data = [data]
    if isinstance(data, list):
        yield from enumerate(data, 1)
        return
    # Not splitlines: it also breaks at characters that JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line, **whole)
            except (ValueError, RecursionError) as error:
                raise RecipeError(f"{path}, line {number}, is no JSON: {error}.") from None


def _objects(path: Path, rows: Rows) -> Rows:
    for number, row in rows:
        if not isinstance(row, dict):
            raise RecipeError(f"{path}, line {number}: a JSON object is needed.")
        audio = row.get("audio")
        if isinstance(audio, dict) and audio.get("bytes"):
            raise RecipeError(
                f"{path} holds the sound itself, as on the Hub: name its folder as dataset in the "
                'recipe, in place of "recordings".'
            )
        if isinstance(audio, dict):  # Whisper-Finetune's format: a path, and the times of a part
            row = {**{key: value for key, value in row.items() if key != "audio"}, **audio}
        yield number, row


def _rows(path: Path) -> Rows:
    """Yield (line number, columns) of a table, whatever its kind."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        import pyarrow.parquet

        try:
            found = pyarrow.parquet.read_table(path).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            with suppress(OSError), path.open("rb") as file:
                reason = what_instead(read_head(file)) or reason
            raise RecipeError(f"{path} is no Parquet file that can be read: {reason}.") from None
        return _objects(path, enumerate(found, 1))
    text = read_text(path)
    if kind == ".stm":
        return stm_rows(path, text)
    if kind in JSON_LINES or (kind not in TABLES and text.startswith("{")):  # WeNet's data.list
        return _objects(path, _json_rows(path, text))
    return delimited(path, text)


def read_table(path: Path, wanted_text: str = "text", wanted_audio: str = "") -> list[Line]:
    """Return the clips listed in a table, one per row, unchanged.

    Args:
        path: of the table.
        wanted_text: the recipe's text_column.
        wanted_audio: the recipe's audio_column; "" takes the first of `FILE_COLUMNS`.

    Raises:
        RecipeError: a column is missing, or a row cannot be used; the message names both.
    """
    rows = label_studio.flatten(iter(_rows(path)))
    number, first = next(rows, (0, None))
    if first is None:
        return []
    where = f"{path}, line {number}"
    columns = list(first)
    if set(map(plain, columns)) >= COMMON_VOICE:
        raise RecipeError(
            f'{path} is a table of Common Voice: write dataset = "common_voice", and the folder of '
            "its language as name."
        )
    file = wanted_audio if wanted_audio in columns else find_column(columns, FILE_COLUMNS)
    if file is None or wanted_audio not in ("", file):
        missing = f'"{wanted_audio}"' if wanted_audio else f"of the file's name ({FILE_COLUMNS[0]})"
        raise NoColumns(
            f"{where}: the column {missing} is missing; it has {', '.join(columns)}. The recipe's "
            "audio_column says where the file's name is, text_column where the text is."
        )
    text = text_column(columns, wanted_text, where)
    return list(_lines(path, chain([(number, first)], rows), file, text))


def read_beside(path: Path, wanted_text: str = "text") -> list[Line]:
    """Return the clip that a JSON of its sound's name describes; none if that is not what it is."""
    try:
        rows = list(_objects(path, _json_rows(path, read_text(path))))
        if len(rows) != 1:
            return []
        number, row = rows[0]
        said = text_column(row, wanted_text, str(path))
        return list(_lines(path, iter([(number, {**row, NAME: path.stem})]), NAME, said))
    except RecipeError:
        return []


def lists_parts(path: Path, text: str) -> bool:
    """Return whether a table beside a recording lists its parts: begins and texts, and no files."""
    columns = next(read_cells(path, text.partition("\n")[0])[1], (1, []))[1]
    has_texts = find_column(columns, TEXT_COLUMNS) and not find_column(columns, PATH_COLUMNS)
    return bool(has_texts and has_start(columns))


def read_parts(path: Path, text: str) -> list[Cue]:
    """Return the parts of one recording that a table lists: Whisper's .tsv, or a person's.

    Raises:
        RecipeError: a time is none.
    """
    found = []
    for number, row in delimited(path, text):
        where, said = f"{path}, line {number}", find_column(row, TEXT_COLUMNS)
        times = time_columns({key: value for key, value in row.items() if key != said}, where)
        start, end = (math.nan if at is None else at for at in written_times(row, times, where))
        found.append(Cue(start, end, row[said], row.get(find_column(row, SPEAKER_COLUMNS), "")))
    # Whisper's and whisper.cpp's times are whole milliseconds, and no header says so.
    are_whole = all(float(at).is_integer() for cue in found for at in cue[:2])
    lengths = [cue.end - cue.start for cue in found]
    unit = 1e-3 if lengths and are_whole and median(lengths) >= LEAST_MILLISECONDS else 1.0
    return [cue._replace(start=cue.start * unit, end=cue.end * unit) for cue in found]


def _lines(path: Path, rows: Rows, file: str, text: str) -> Iterator[Line]:
    kinds = (SPLIT_COLUMNS, SPEAKER_COLUMNS, RECORDING_COLUMNS)
    known: dict[tuple[str, ...], tuple] = {}  # lines of JSON need not have the same keys
    for number, row in rows:
        where = f"{path}, line {number}"
        said = {key: "" if value is None else str(value) for key, value in row.items()}
        if (keys := tuple(said)) not in known:
            others = {key: value for key, value in said.items() if key not in (file, text)}
            known[keys] = time_columns(others, where), *(find_column(others, k) for k in kinds)
        times, *names = known[keys]
        start, end = read_times(said, times, where) if times else (None, None)
        split, speaker, recording = (as_name(row[name]) if name else "" for name in names)
        name, said_text = said.get(file, "").strip(), as_text(row.get(text), where)
        yield Line(where, name, said_text, start, end, split, speaker, recording)
