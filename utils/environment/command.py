"""What all commands share: any terminal works, one sentence for an error, one for Ctrl+C."""

import atexit
import errno
import functools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from utils.config import UserError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl+C has ended
TERMINATED = 128 + signal.SIGTERM
# Bytes of the temporary folder's name. A socket's has at most 107, and 32 come on top: of a kernel,
# of the processes that decode and of those that make batches.
LONGEST_TEMPORARY = 70


def shorten_temporary() -> None:
    """Give the temporary folder a short name, if its own is too long for the sockets in it.

    On clusters it often is. What is written there stays on the disk that was chosen: the short name
    is a link. Processes that this one starts get it from the environment.
    """
    chosen = tempfile.gettempdir()
    if len(os.fsencode(chosen)) <= LONGEST_TEMPORARY:
        return
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        with suppress(OSError):  # of a place that is not there, or full
            folder = Path(tempfile.mkdtemp(prefix="whisper-", dir=place))
            atexit.register(
                shutil.rmtree, folder, ignore_errors=True
            )  # the link, not what it names
            (folder / "t").symlink_to(Path(chosen).absolute())
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "t")
            return
    raise UserError(f"TMPDIR={chosen} is too long a name for sockets: set it to a shorter one.")


def _full_disk(problem: OSError) -> str:
    """Return what a system's error about a full disk or a quota leaves out; "" for others."""
    if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ""
    places = {"the working folder": ".", "temporary files": tempfile.gettempdir()}
    free = (f"{shutil.disk_usage(p).free:,} bytes for {name}" for name, p in places.items())
    return f". Free are {' and '.join(free)}, of which a quota may allow you less: make room."


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Make a `main` safe to call from a shell: its errors become a sentence and an exit code.

    0: done. 1: a UserError or a fault of the system (a full disk, a port that is taken), whose
    sentence goes to stderr. 130: Ctrl+C. 143: SIGTERM, after which folders that were temporary are
    gone. A fault of ours keeps its traceback.
    """

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a test's is another kind
                # A terminal in latin-1, or LC_ALL=C, lacks "…" and most of what people say.
                stream.reconfigure(errors="replace")
        # By default SIGTERM ends a program at once and leaves its temporary folders.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        try:
            return main(arguments) or 0
        except KeyboardInterrupt:
            print(
                "\nInterrupted: the same command goes on where this one stopped.", file=sys.stderr
            )
            return INTERRUPTED
        except UnicodeEncodeError as problem:  # of a path: what is printed is replaced above
            print(
                f"This system's locale has no {problem.object[problem.start]!a}, which a file's "
                "name needs: set LC_ALL=C.UTF-8.",
                file=sys.stderr,
            )
            return 1
        except (UserError, OSError) as problem:
            full = "" if isinstance(problem, UserError) else _full_disk(problem)
            print(f"{problem}{full}", file=sys.stderr)
            return getattr(problem, "exit_code", UserError.exit_code)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run
