"""A folder of recordings in which no texts were found: what it holds, and the way from there."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.config import RecipeError
from utils.streaming.folders import Folder
from utils.streaming.tables import TABLES, read_table

# What people have besides, by the end of its name, and the way from there.
WAYS = {
    (".xlsx", ".xls", ".ods"): "Save a spreadsheet as CSV (UTF-8).",
    (".docx", ".doc", ".odt", ".rtf", ".pdf"): "Save a document as plain text (UTF-8).",
    (".cha", ".trs"): "ELAN opens .cha and .trs (File > Import) and saves them as .eaf.",
    (".exb",): "EXMARaLDA exports .eaf.",
    (".yaml", ".yml"): "Make a table of MuST-C's .yaml and its lines: file_name, start, end, text.",
    (".jsonl.gz",): "`lhotse kaldi export` writes Lhotse's manifests as Kaldi has them.",
    (".tar", ".zip", ".tgz", ".tar.gz", ".7z", ".rar"): "Unpack an archive.",
}
TOLD = 3  # names in a sentence
LAYOUTS = (
    "a metadata.csv with the columns file_name and text, sound files each beside a .txt of its "
    "name or beside subtitles (.srt, .vtt), a TextGrid, an .eaf or Audacity's labels, or a list of "
    "ids and texts"
)


def shown(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more


def ways_from(paths: Sequence[Path]) -> str:
    """Return sentences on the files that are not read as they are, each with a space before it."""
    names = [path.name.lower() for path in paths]
    ways = (way for end, way in WAYS.items() if any(name.endswith(end) for name in names))
    return "".join(f" {way}" for way in ways)


def nothing_found(folder: Folder) -> RecipeError:
    """Return the error for a folder in which no texts were found."""
    kinds = Counter(path.suffix.lower() or path.name for path in folder.files)
    there = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(8)) or "no files"
    hint = ""
    if tables := [path for path in folder.files if path.suffix.lower() in TABLES]:
        names = shown(folder.name(path) for path in tables)
        hint = f" In {names} no column of files and texts is known, or there is no row."
        try:
            read_table(tables[0])
        except RecipeError as error:
            hint += f" {error}"
    hint += ways_from(folder.files)
    what = "no texts that are" if folder.sounds else "no recordings that are"
    return RecipeError(
        f"{folder.root} holds {what} understood; it holds {there}.{hint} What is read: {LAYOUTS}."
    )
