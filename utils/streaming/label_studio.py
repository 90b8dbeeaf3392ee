"""Exports of Label Studio: JSON, JSON_MIN and CSV, with texts for whole files or for regions."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from utils.streaming.columns import TEXT_COLUMNS, find_column

# Columns that only its exports have.
MARKS = {"annotation_id", "annotator", "lead_time", "annotations", "completed_by"}
UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # prefix of the name of an uploaded file


def _file(value: str) -> str:
    """Return a file's name from its address in Label Studio."""
    address = urlsplit(value)
    inner = parse_qs(address.query).get("d")  # local storage: /data/local-files/?d=a/b.wav
    if inner:
        return inner[0]
    name = PurePosixPath(unquote(address.path)).name
    return UPLOAD.sub("", name)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _regions(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the regions of a task that have a text; a region's parts share its id."""
    annotations = [one for one in task["annotations"] if not one.get("was_cancelled")]
    parts: dict[str, dict[str, Any]] = {}
    for number, result in enumerate(annotations[-1].get("result", []) if annotations else []):
        value = result.get("value", {})
        region = parts.setdefault(str(result.get("id", number)), {})
        region |= {key: value[key] for key in ("start", "end") if key in value}
        if "text" in value:
            region["text"] = _text(value["text"])
        if value.get("labels"):
            region["speaker"] = _text(value["labels"])
    yield from (region for region in parts.values() if "text" in region)


def _listed(value: Any) -> list[Any] | None:
    """Return a list from a cell, decoded from JSON if the cell is from a CSV."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, dict):
        value = value.get("text", value)
    return value if isinstance(value, list) else None


def _of_row(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the clips of a row of JSON_MIN or CSV: regions are in one cell, texts in another."""
    regions = next(
        (found for v in row.values() if (found := _listed(v)) and _is_region(found[0])), None
    )
    texts = next((f for v in row.values() if (f := _listed(v)) and isinstance(f[0], str)), None)
    plain = {key: value for key, value in row.items() if _listed(value) is None}
    # A task without a text lacks its key, and the first one's keys are those of the table.
    texts = texts or [plain.get(find_column(plain, TEXT_COLUMNS), "")]
    if regions is None:
        yield plain | {"text": _text(texts)}
        return
    for number, region in enumerate(regions):
        text = region["text"] if "text" in region else texts[number] if number < len(texts) else ""
        clip = {"audio": row["audio"], "start": region["start"], "end": region["end"]}
        yield clip | {"text": _text(text), "speaker": _text(region.get("labels"))}


def _is_region(value: Any) -> bool:
    return isinstance(value, dict) and "start" in value and "end" in value


def flatten(rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table unchanged, those of Label Studio's exports one per clip.

    Args:
        rows: (line number, columns) of any table.
    """
    number, first = next(rows, (0, {}))
    rows = chain([(number, first)] if first else [], rows)
    if not MARKS & first.keys():
        yield from rows
        return
    for number, row in rows:
        data = row.get("data", row)
        audio = next((data[key] for key in ("audio", "url", "sound") if data.get(key)), None)
        audio = audio or next(
            (v for v in data.values() if isinstance(v, str) and "/data/" in v), ""
        )
        clips = _regions(row) if isinstance(row.get("annotations"), list) else _of_row(row)
        for clip in clips:
            yield number, {**clip, "audio": _file(audio)}
