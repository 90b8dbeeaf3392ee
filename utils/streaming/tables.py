"""Tables of clips: CSV, TSV, JSON and Parquet from people and programs."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from utils.config import RecipeError
from utils.streaming import label_studio
from utils.streaming.columns import (
    FILE_COLUMNS,
    RECORDING_COLUMNS,
    SPEAKER_COLUMNS,
    SPLIT_COLUMNS,
    TEXT_COLUMNS,
    NoColumns,
    as_text,
    find_column,
    plain,
    text_column,
)
from utils.streaming.files import SUFFIXES, Line, read_text
from utils.streaming.times import read_times, time_columns

JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv", *JSON_LINES, ".parquet")
# The columns of a table without a header: those of LJSpeech on the Hub.
NAMELESS = ("file_name", "text", "normalized_text")
COMMON_VOICE = {"client_id", "path", "sentence", "up_votes"}

Rows = Iterator[tuple[int, dict[str, Any]]]


def _unquoted(cell: str) -> str:
    """Return a cell as pandas and Excel mean it: quoted as a whole, inner quotes doubled.

    Common Voice's lone quotes stay: they belong to the sentence.
    """
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _is_sound(cell: str) -> bool:
    return Path(cell.strip()).suffix.lower() in SUFFIXES


def _quoted_cells(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of a CSV.

    Raises:
        RecipeError: a quote opens a cell and does not close it, so that rows are swallowed.
    """
    csv.field_size_limit(1 << 24)
    reader, first = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    try:
        for cells in reader:
            for cell in cells if reader.line_num > first else ():
                inside = cell.split("\n")[1:]
                if any(_is_sound(one) for line in inside for one in line.split(delimiter)):
                    raise csv.Error("it swallows the rows that follow")
            yield first, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise RecipeError(
            f'{path}, line {first}: a quote (") opens a cell there and is not closed ({error}): '
            'write it twice within a quoted cell (""), or take it out.'
        ) from None


def _delimiter(path: Path, header: str) -> str:
    """Return the delimiter with which the header has the most known names."""
    likely = "\t" if path.suffix.lower() == ".tsv" else ","
    known = {*FILE_COLUMNS, "text", "sentence", "transcription", "transcript"}

    def names(delimiter: str) -> tuple[int, bool, int]:
        cells = header.split(delimiter)
        # Spreadsheets in half of Europe use semicolons, LJSpeech and Coqui bars.
        return sum(plain(c) in known for c in cells[:50]), "|" == delimiter in header, len(cells)

    return max((likely, *("\t|;,".replace(likely, ""))), key=names)


def _delimited(path: Path, text: str) -> Rows:
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # Excel's own line
        text, first = rest, rest.partition("\n")[0]
    delimiter = _delimiter(path, first)
    if delimiter in "\t|":
        lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
        table = ((n, [_unquoted(c) for c in line.split(delimiter)]) for n, line in lines if line)
    else:
        table = ((n, cells) for n, cells in _quoted_cells(path, text, delimiter) if any(cells))
    number, header = next(table, (1, []))
    if any(map(_is_sound, header)) or (delimiter == "|" and not find_column(header, FILE_COLUMNS)):
        table = chain([(number, header)], table)
        header = _names(header, table := list(table))
    header = [cell.strip() for cell in header]
    known = [name for name in header if plain(name) in (*FILE_COLUMNS, *TEXT_COLUMNS)]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise RecipeError(f'{path} has two columns called "{twice}": rename the one to leave out.')
    for number, cells in table:
        if any(cells[len(header) :]):
            raise RecipeError(
                f"{path}, line {number}, has more cells than the header: in a .csv, put a text "
                'with a comma in it between quotes ("); in a .tsv, take tabs out of it.'
            )
        cells += [""] * (len(header) - len(cells))
        # pandas' index has no name.
        yield number, {key: v for key, v in zip(header, cells, strict=False) if key}


def _names(first: Sequence[str], table: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Return names for the columns of a table without a header.

    The file comes first. With three columns, the one with few distinct values is the speaker
    (Piper: file, speaker, text; VITS: file, text, speaker); else they are LJSpeech's.
    """
    names = list(NAMELESS) + [f"column {n}" for n in range(4, len(first) + 1)]
    rows = [cells for _, cells in table if len(cells) == len(first)]
    for column in range(1, len(first)) if len(first) > 2 else ():
        values = [row[column] for row in rows]
        if not any(" " in value.strip() for value in values) and len(set(values)) < len(rows) / 2:
            names = ["file_name", "text", "normalized_text"][: len(first) - 1]
            names.insert(column, "speaker")
            break
    return names[: len(first)]


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
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
            data = lists[0]
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
            raise RecipeError(f"{path} is no Parquet file that can be read: {reason}.") from None
        return _objects(path, enumerate(found, 1))
    text = read_text(path)
    if kind in JSON_LINES:
        return _objects(path, _json_rows(path, text))
    return _delimited(path, text)


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
        split, speaker, recording = (said[name].strip() if name else "" for name in names)
        name, said_text = said.get(file, "").strip(), as_text(row.get(text), where)
        yield Line(where, name, said_text, start, end, split, speaker, recording)
