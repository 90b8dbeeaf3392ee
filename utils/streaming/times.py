"""When a part of a recording begins and ends, from the columns of a table."""

import re
from collections.abc import Iterable, Mapping

from utils.config import RecipeError
from utils.streaming.columns import plain

UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "us": 1e-6}
NAME = re.compile(
    r"(?:audio|clip|seg|segment|utt|utterance|time|t)?"
    r"(?:(?P<start>start|begin|onset|offset|xmin|tmin)|(?P<end>end|stop|xmax|tmax)"
    r"|(?P<duration>duration|dur|length|len))"
    r"(?:time|timestamp|at|offset|position)?(?:in)?"
    r"(?:(?P<ms>ms|msecs?|millis|milliseconds?)|(?P<s>s|secs?|seconds?)|(?P<min>mins?|minutes?)"
    r"|(?P<us>us|microseconds?)|(?P<other>samples?|frames?))?"
)
# Names that look like times but do not match `NAME`.
SUSPECT = re.compile(r"(^|_)(start|begin|onset|end|stop|from|until)")
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:[.,]\d+)?)")
NUMBER = re.compile(r"(\d+(?:[.,]\d*)?(?:e[+-]?\d+)?|\.\d+)\s*(s|sec|ms)?", re.IGNORECASE)

Columns = dict[str, tuple[str, float]]  # "start", "end", "duration" → column, seconds of its unit


def _is_time(value: str) -> bool:
    return bool(CLOCK.fullmatch(value) or NUMBER.fullmatch(value))


def time_columns(row: Mapping[str, str], where: str) -> Columns:
    """Return the columns of a table with a part's begin, end or duration.

    Args:
        row: the table's first row: a column with such a name may contain something else.
        where: for messages.

    Raises:
        RecipeError: a column has times, but its name does not say which, or in what unit.
    """
    found: Columns = {}
    for column, value in row.items():
        name = NAME.fullmatch(plain(column).replace("_", ""))
        holds_times = _is_time(value.strip())
        if name is None and (not SUSPECT.search(plain(column)) or not holds_times):
            continue
        use = name and next(one for one in ("start", "end", "duration") if name[one])
        if use == "duration" and not has_start(row):
            continue  # the duration of the file
        if use in found:
            raise RecipeError(
                f'{where}: the column "{column}" holds times, as "{found[use][0]}" does: rename '
                "the one to leave out."
            )
        if name is None or name["other"]:
            raise RecipeError(
                f'{where}: the column "{column}" holds times that are not understood ("{value}"): '
                "call the columns start and end (seconds or h:mm:ss.s), or start_ms and end_ms; "
                "or rename it if it is no time."
            )
        unit = next((unit for unit in UNITS if name[unit]), "s")
        found[use] = column, UNITS[unit]
    return found


def has_start(columns: Iterable[str]) -> bool:
    """Return whether one of the columns is named as the begin of a part."""
    names = (NAME.fullmatch(plain(column).replace("_", "")) for column in columns)
    return any(name and name["start"] for name in names)


def _seconds(row: Mapping[str, str], columns: Columns, use: str, where: str) -> float | None:
    column, unit = columns.get(use, ("", 1.0))
    value = row.get(column, "").strip()
    if value.lower() in ("", "nan", "none", "null"):
        return None
    if clock := CLOCK.fullmatch(value):
        hours, minutes, seconds = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    number = NUMBER.fullmatch(value)
    if number is None:
        raise RecipeError(f'{where}: {column} = "{value}" is no number of seconds, and no h:mm:ss.')
    if number[2]:
        unit = UNITS["ms" if number[2].lower() == "ms" else "s"]
    return float(number[1].replace(",", ".")) * unit


def written_times(
    row: Mapping[str, str], columns: Columns, where: str
) -> tuple[float | None, float | None]:
    """Return when a row's part begins and ends, in seconds, as its table says; None: it does not.

    Raises:
        RecipeError: it is not a time.
    """
    start, end, duration = (
        _seconds(row, columns, use, where) for use in ("start", "end", "duration")
    )
    if end is None and duration:
        end = (start or 0.0) + duration
    return start, end


def read_times(
    row: Mapping[str, str], columns: Columns, where: str
) -> tuple[float | None, float | None]:
    """Return `written_times`; None is the file's own begin or end.

    Raises:
        RecipeError: it is not a time, or it ends before it begins.
    """
    start, end = written_times(row, columns, where)
    if end is not None and end <= (start or 0.0):
        raise RecipeError(f"{where}: the clip ends at {end:g} s, before it starts.")
    return start, end
