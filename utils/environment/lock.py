"""One process at a time writes to a run folder; whoever only reads never waits."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from platform import node

from filelock import FileLock, Timeout

from utils.config import UserError

LOCK, WRITER = ".lock", ".writer"  # in the folder: what is locked, and who has locked it
HELD = "WHISPER_HELD"  # for the kernels that a command starts: the folders that it has locked
LACKING = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what a disk without locks answers

logger = logging.getLogger(__name__)


class InUse(UserError, OSError):
    """Another process writes to the folder; the message says which, since when and the way out."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Let no other process write to a folder while the block runs.

    The system frees the lock of a process that dies, however it does. The lock is the folder's
    own, whatever links lead there and wherever it is moved. A block within a block, a kernel that
    a lesson's command has started, and the further processes of one training pass.

    Args:
        folder: of a run; made if need be.

    Raises:
        InUse: another process writes to it.
    """
    held = os.environ.get(HELD, "").split("\n")
    place = str(folder.resolve())
    if place in held or os.environ.get("RANK", "0") != "0":
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock, writer = FileLock(folder / LOCK), folder / WRITER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InUse(_sentence(folder, writer)) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in LACKING:
            raise
        logger.warning("The disk of %s has no locks: start nothing else that writes there.", folder)
    os.environ[HELD] = "\n".join([*held, place])
    try:
        with suppress(OSError):  # of a full disk: what follows says what it needs
            writer.write_text(_this_process(), encoding="utf-8")
        yield
    finally:
        os.environ[HELD] = "\n".join(held)
        writer.unlink(missing_ok=True)
        lock.release()


def _this_process() -> str:
    words = [Path(word).name or word for word in sys.orig_argv[1:5] if "\n" not in word]
    since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} of {node()} ({' '.join(words)}), since {since}"


def _sentence(folder: Path, writer: Path) -> str:
    try:
        who = writer.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # it has begun just now, or ends just now
        who = "another process"
    return (
        f"{folder} is in use by {who}: wait until it ends, stop it, or give the recipe another "
        "name to run both at once."
    )
