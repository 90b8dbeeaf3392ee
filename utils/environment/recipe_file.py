"""A recipe's file: TOML, read strictly into the tables of `utils.config`; one sentence a fault."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from utils.environment.recipe_keys import NEEDED, nearest, shown, unknown_key
from utils.environment.training_table import check_training

MAX_BYTES = 1_000_000  # more is no recipe
SOURCES, TRAINING = "[[sources]]", "[training]"
LIMITS = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "below {lt:g}",
    "multiple_of": "a multiple of {multiple_of:g}",
}


def read_recipe(path: Path, tables: Mapping[str, type]) -> dict[str, Any]:
    """Return what a recipe's file says: each table's dataclass, `[training]` unchanged.

    Args:
        path: a TOML file.
        tables: its tables but `[training]`, by their names with brackets.

    Raises:
        ValueError: a sentence on the first fault; it begins after the file's name.
    """
    written = _read_toml(path)
    keys = {name: [one.name for one in fields(cls)] for name, cls in tables.items()}
    known = {name.strip("[]"): name for name in (*tables, TRAINING)}
    for key in written:
        if key not in known:
            raise ValueError(unknown_key(key, "", {"": known, **keys}))
    for key in ("model", "sources", "training"):
        if not written.get(key):
            raise ValueError(f"needs {known[key]}.")
    made = {}
    for key, value in written.items():
        name = known[key]
        if not isinstance(value, list if name == SOURCES else dict):
            raise ValueError(
                f"has {key} in another form: write {name}"
                + (" with double brackets, once for each source." if name == SOURCES else ".")
            )
        if name == SOURCES:
            made[key] = tuple(
                _table(tables[name], name, f"{name} {number}", one, keys)
                for number, one in enumerate(value, 1)
            )
        elif name == TRAINING:
            made[key] = _training(value, keys)
        else:
            made[key] = _table(tables[name], name, name, value, keys)
    return made


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES or not path.is_file():
            raise ValueError("is no recipe: give a .toml file, such as recipes/embedded.toml.")
        # utf-8-sig: Windows' editor puts a mark in front.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        there = ", ".join(sorted(str(p) for p in path.parent.glob("*.toml"))) or "none"
        raise ValueError(f"is not there; recipes beside it: {there}.") from None
    except OSError as error:
        raise ValueError(f"cannot be opened: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8: give a .toml file, saved as UTF-8.") from None
    except RecursionError:
        raise ValueError("is not a recipe: it is nested too deep.") from None
    except tomllib.TOMLDecodeError as error:
        escape = "hex value" in str(error) or "'\\\\'" in str(error)
        hint = "; in a path write / for \\, or put it between ' and '" if escape else ""
        raise ValueError(f"is not TOML: {error}{hint}.") from None
    except ValueError as error:  # a NUL in the path, a number of thousands of digits
        raise ValueError(f"cannot be used: {error}.") from None


def _table(cls: type, name: str, place: str, values: Any, keys: Mapping[str, list[str]]) -> Any:
    """Build the dataclass of one table."""
    if not isinstance(values, dict):
        raise ValueError(f"{place} must be a table.")
    for key in values:
        if key not in keys[name]:
            raise ValueError(f"{place} {unknown_key(key, name, keys)}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise ValueError(f"{place} {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """Return the first fault of a table as a sentence that begins after its name."""
    first = error.errors(include_url=False)[0]
    kind, limits, key = first["type"], first.get("ctx", {}), first["loc"][0]
    if kind.startswith("missing"):
        return f'needs the key "{key}".'
    said = f"{key} = {shown(first['input'])}"
    if kind in LIMITS:
        return f"{said} must be {LIMITS[kind].format(**limits)}."
    if kind == "literal_error" and isinstance(first["input"], str):
        known = [name.strip("'") for name in limits["expected"].replace(" or ", ", ").split(", ")]
        return f"{said} is not known{nearest(first['input'], filter(None, known))}"
    return f"{said} must be {NEEDED.get(kind.split('_')[0], 'one of ' + str(limits))}."


def _training(values: Any, keys: Mapping[str, list[str]]) -> dict[str, Any]:
    try:
        check_training(values, keys)
    except ValueError as problem:
        raise ValueError(f"{TRAINING} {problem}") from None
    return values
