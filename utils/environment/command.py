"""What all commands share: any terminal works, one sentence for an error, one for Ctrl+C."""

import functools
import signal
import sys
from collections.abc import Callable, Sequence

from utils.config import UserError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl+C has ended
TERMINATED = 128 + signal.SIGTERM


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
            print(problem, file=sys.stderr)
            return getattr(problem, "exit_code", UserError.exit_code)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run
