"""Tables of cells: CSV and TSV with or without a header, and STM.

Without one are those of OpenSLR, FLEURS, CSS10, LJSpeech and Tatoeba.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.config import RecipeError
from utils.streaming.columns import FILE_COLUMNS, TEXT_COLUMNS, UNSCORED, find_column, plain
from utils.streaming.files import SUFFIXES

Rows = Iterator[tuple[int, dict[str, Any]]]
Cells = Iterator[tuple[int, list[str]]]

TEXTS = ("text", "normalized_text")  # the first one is as it was written
NUMBER = re.compile(r"\d+(\.\d*)?")  # FLEURS' samples, CSS10's seconds
# TED-LIUM's and NIST's: recording, channel, speaker, start, end, a label, text.
STM = re.compile(r"(\S+)\s+\S+\s+(\S+)\s+([\d.]+)\s+([\d.]+)(?:\s+<[^>\s]*>)?(?:\s+(.*))?")


def is_sound(cell: str) -> bool:
    """Return whether a cell is the name of a sound file."""
    return Path(cell.strip()).suffix.lower() in SUFFIXES


def _unquoted(cell: str) -> str:
    """Return a cell as pandas and Excel mean it: quoted as a whole, inner quotes doubled.

    Common Voice's lone quotes stay: they belong to the sentence.
    """
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _quoted_cells(path: Path, text: str, delimiter: str) -> Cells:
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
                if any(is_sound(one) for line in inside for one in line.split(delimiter)):
                    raise csv.Error("it swallows the rows that follow")
            yield first, cells
            first = reader.line_num + 1
    except csv.Error as error:
        raise RecipeError(
            f'{path}, line {first}: a quote (") opens a cell there and is not closed ({error}): '
            'write it twice within a quoted cell (""), or take it out.'
        ) from None


def _delimiter(path: Path, header: str) -> str:
    """Return a .tsv's tab, or the delimiter with which the header has the most known names."""
    likely = "\t" if path.suffix.lower() == ".tsv" else ","
    if likely == "\t" and likely in header:
        return likely  # a sentence has commas
    known = {*FILE_COLUMNS, "text", "sentence", "transcription", "transcript"}

    def names(delimiter: str) -> tuple[int, bool, int]:
        cells = header.split(delimiter)
        # Spreadsheets in half of Europe use semicolons, LJSpeech and Coqui bars.
        return sum(plain(c) in known for c in cells[:50]), "|" == delimiter in header, len(cells)

    return max((likely, *("\t|;,".replace(likely, ""))), key=names)


def read_cells(path: Path, text: str) -> tuple[str, Cells]:
    """Return the delimiter of a table, and (line number, cells) of its rows, the header's first."""
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # Excel's own line
        text, first = rest, rest.partition("\n")[0]
    delimiter = _delimiter(path, first)
    if delimiter in "\t|":
        lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
        return delimiter, (
            (n, [_unquoted(c) for c in line.split(delimiter)]) for n, line in lines if line
        )
    quoted = _quoted_cells(path, text, delimiter)
    return delimiter, ((n, cells) for n, cells in quoted if any(cells))


def delimited(path: Path, text: str) -> Rows:
    """Yield (line number, columns) of a CSV or TSV, with or without a header.

    Raises:
        RecipeError: a row cannot be read, or two columns have one name.
    """
    delimiter, table = read_cells(path, text)
    number, header = next(table, (1, []))
    if any(map(is_sound, header)) or (delimiter == "|" and not find_column(header, FILE_COLUMNS)):
        rows = [(number, header), *table]
        return by_name(path, name_columns([cells for _, cells in rows]), iter(rows))
    header = [cell.strip() for cell in header]
    known = [name for name in header if plain(name) in (*FILE_COLUMNS, *TEXT_COLUMNS)]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise RecipeError(f'{path} has two columns called "{twice}": rename the one to leave out.')
    return by_name(path, header, table)


def by_name(path: Path, header: Sequence[str], table: Cells) -> Rows:
    """Yield (line number, columns) of rows whose columns are named.

    Raises:
        RecipeError: a row has more cells than there are names.
    """
    for number, cells in table:
        if any(cells[len(header) :]):
            raise RecipeError(
                f"{path}, line {number}, has more cells than the header: in a .csv, put a text "
                'with a comma in it between quotes ("); in a .tsv, take tabs out of it.'
            )
        cells += [""] * (len(header) - len(cells))
        # pandas' index has no name.
        yield number, {key: v for key, v in zip(header, cells, strict=False) if key}


def name_columns(rows: Sequence[Sequence[str]], file: int | None = None) -> list[str]:
    """Return names for the columns of a table without a header.

    The file's is the first whose cells are names of sound files, or else the first one. Texts are
    the columns whose values neither recur nor are numbers. If a third column of three is no text,
    it is the speaker (Piper, VITS, OpenSLR).

    Args:
        rows: of cells.
        file: the column of the files, if it is known.
    """
    width = max(map(len, rows), default=0)
    columns = [[row[n].strip() for row in rows if n < len(row)] for n in range(width)]
    if file is None:
        sounds = (n for n in range(width) if 2 * sum(map(is_sound, columns[n])) > len(rows))
        file = next(sounds, 0)
    others = [n for n in range(width) if n != file and not any(map(is_sound, columns[n]))]
    few = [n for n in others if _recur(columns[n])]
    texts = [n for n in others if are_texts(columns[n])]
    if not texts:  # commands of one word, which recur as speakers do
        texts = (
            others[-1:] if width == 3 else sorted(others, key=lambda n: -len("".join(columns[n])))
        )
    names = [f"column {n}" for n in range(1, width + 1)]
    names[file] = "file_name"
    for column, name in zip(texts, TEXTS, strict=False):
        names[column] = name
    for column in few if width == 3 else ():
        if column not in texts:
            names[column] = "speaker"
    return names


def are_texts(values: Sequence[str]) -> bool:
    """Return whether a column's values may be texts: they neither recur nor are all numbers."""
    return not _recur(values) and not all(NUMBER.fullmatch(value.strip()) for value in values)


def _recur(values: Sequence[str]) -> bool:
    """Return whether values are few, as those of speakers."""
    return len(set(values)) < len(values) / 2 and not any(" " in value for value in values)


def stm_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, columns) of the segments in an STM file.

    Raises:
        RecipeError: a line has no times.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        if not (found := STM.fullmatch(line.strip())):
            raise RecipeError(
                f"{path}, line {number}, is no segment of an STM file: recording, channel, "
                "speaker, start, end and text, with spaces between them."
            )
        name, speaker, start, end, said = found.groups()
        said = said or ""
        if said.strip() != UNSCORED:
            row = {"file_name": name, "text": said, "speaker": speaker, "recording": name}
            yield number, row | {"start": start, "end": end}
