"""Whole or not: what files were when they were finished, and whether they still are."""

import errno
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from utils.config import UserError

SLACK = 2**20  # bytes of small files beside what was counted


class Damaged(UserError, OSError):
    """What an earlier lesson made is no longer whole; the message names the file and the lesson."""


@functools.cache
def _digest(path: Path, size: int, changed_ns: int, inode: int) -> str:
    """Return the XXH3 of a file; a process computes it again only where the file has changed.

    It guards against bad disks and broken copies, not against an attacker, and is as quick as a
    disk: 2.5 GB/s on one core where SHA-256 takes 0.3.
    """
    total = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(2**22):
            total.update(block)
    return total.hexdigest()


def files_below(path: Path) -> list[Path]:
    """Return a file as a list, or every file below a folder, sorted; none where nothing is."""
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return [one for one in found if one.is_file()]


def sealed(files: Iterable[Path], folder: Path, flush: bool = False) -> dict[str, list]:
    """Return the size and digest of files by their name in a folder.

    Args:
        files: below `folder`.
        folder: where they are now; it may be moved.
        flush: force them to disk first.
    """
    found = {}
    for path in files:
        if flush:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        stat = path.stat()
        # A file may be written twice within one tick of its clock: what is as young is not known.
        is_young = abs(time.time_ns() - stat.st_mtime_ns) < 1e9
        digest = (_digest.__wrapped__ if is_young else _digest)(
            path.absolute(), stat.st_size, stat.st_mtime_ns, stat.st_ino
        )
        found[path.relative_to(folder).as_posix()] = [stat.st_size, digest]
    return found


def damage(folder: Path, seal: Mapping[str, Any]) -> str:
    """Return which file of a folder is no more what it was sealed as, and how; "" if none."""
    for name, told in seal.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        size, digest = told if isinstance(told, list) and len(told) == 2 else (told, None)
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes and not {size}"
        if sealed([path], folder)[name][1] != digest:
            return f"{path} has other content than when it was written"
    return ""


class DiskFull(UserError, OSError):
    """Something does not fit; the message says what is needed, what is free and what to do."""


def _is_full(error: BaseException | None, folder: Path) -> bool:
    """Tell whether an error, or one that led to it, comes from a full disk or a quota."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        # Errors without a number: of safetensors, and of torch.save, which hides the system's.
        if re.search("No space left|quota exceeded|File too large|inline_container", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return shutil.disk_usage(folder).free < SLACK


@contextmanager
def fits(path: Path, needed: int | None = None, then: str = "") -> Iterator[None]:
    """Let a block write to `path`, and say in bytes what is missing if it does not fit.

    Args:
        path: a file or folder that is being written; what there is of it stays.
        needed: bytes, if they are known before; where less is free, it is refused at once.
        then: what is not lost, and goes on when there is room.

    Raises:
        DiskFull: the disk is full, or a quota, which the system does not show as such.
    """
    place = next(one for one in (path, *path.parents) if one.is_dir())
    try:
        if needed is not None and shutil.disk_usage(place).free < needed + min(needed, SLACK):
            raise OSError(errno.ENOSPC, f"No space left for {path}")
        yield
    except Exception as error:
        if isinstance(error, UserError) or not _is_full(error, place):
            raise
        written = sum(one.stat().st_size for one in files_below(path))
        at_least = f"more than {written:,} bytes are" if needed is None else f"{needed:,} bytes are"
        free = shutil.disk_usage(place).free
        raise DiskFull(
            f"{path} does not fit: {at_least} needed, {free:,} are free on its disk, of which a "
            f"quota may allow you less. {then or 'Free space and run the same again.'}"
        ) from error


def read_json(path: Path, way_out: str, text: str | None = None) -> dict[str, Any]:
    """Return the JSON object in a file, or in one line of it.

    Raises:
        Damaged: it holds something else; with the file and the way out.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8") if text is None else text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Damaged(f"{path} is damaged, it holds no JSON object: {way_out}.")
    return found


def read_json_lines(path: Path, way_out: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line; see `read_json`."""
    # Not splitlines(): it also breaks at U+2028 and U+0085, which a transcript may hold.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [read_json(path, way_out, line) for line in lines if line]
