"""Retries of requests to the Hub, and the messages to people when it does not answer."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx
from huggingface_hub.utils._http import default_client_factory

from utils.config import RecipeError, Source, UserError

LONGEST_PAUSE_SECONDS = 8.0  # the longest wait of huggingface_hub between two tries


class HubError(UserError, OSError):
    """The Hub does not answer a request as needed; the message says why and how to continue."""


class _Silence(Exception):
    """A request has failed for longer than a source's patience.

    Not an OSError or a network error: the libraries retry those, for ten minutes and more.
    """


# What the libraries raise when something cannot be opened or read.
FAILURES = (
    *(OSError, ValueError, RuntimeError, TypeError, ImportError),
    *(httpx.TransportError, httpx.InvalidURL, _Silence),
)
# Faults of this machine's settings, which no other data set and no patience would help.
SETTINGS: dict[type[Exception], str] = {
    httpx.InvalidURL: "HF_ENDPOINT or a proxy's address (HTTPS_PROXY) is none: in a password write "
    "%23 for #, %40 for @ and %2F for /.",
    httpx.UnsupportedProtocol: "HF_ENDPOINT, or a proxy's address (HTTPS_PROXY), does not begin "
    "with http:// or https://.",
    UnicodeEncodeError: "The token holds a character that no token has: log in again with "
    "`hf auth login --force`, or set HF_TOKEN anew.",
}


class _Patience:
    """Ends the retries of huggingface_hub when the same request has failed for too long."""

    def __init__(self) -> None:
        self.deadline_seconds, self.first_tries = 0.0, None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Limit the time of every request in the block, all its tries together."""
        # A pause may be under way when the time is up: it is part of the time.
        self.deadline_seconds = max(seconds - LONGEST_PAUSE_SECONDS, 1.0)
        self.first_tries = {}
        try:
            yield
        finally:
            self.first_tries = None

    def before_request(self, request: Any) -> None:
        """Stop a request that has been tried for too long, else shorten its own timeouts."""
        if self.first_tries is None:
            return
        now = time.monotonic()
        left = self.first_tries.setdefault(_key(request), now) + self.deadline_seconds - now
        if left <= 0:
            raise _Silence
        limits = request.extensions["timeout"]
        request.extensions["timeout"] = {
            name: left if limit is None else min(limit, left) for name, limit in limits.items()
        }

    def after_response(self, response: Any) -> None:
        """Forget the tries of an answered request: if it is sent again, it counts as new."""
        if self.first_tries and response.status_code < 500 and response.status_code != 429:
            self.first_tries.pop(_key(response.request), None)


def _key(request: Any) -> tuple[str, str, str | None]:
    return request.method, str(request.url), request.headers.get("range")


PATIENCE = _Patience()


@lru_cache(maxsize=1)
def make_patient() -> None:
    """Let `PATIENCE` watch the requests of every client that huggingface_hub makes."""

    def client() -> httpx.Client:
        made = default_client_factory()
        made.event_hooks["request"].append(PATIENCE.before_request)
        made.event_hooks["response"].append(PATIENCE.after_response)
        return made

    set_client_factory(client)


def is_on_hub(source: Source) -> bool:
    """Return whether a source's `dataset` is a Hub id: `owner/name`, and not a local folder."""
    return source.dataset.count("/") == 1 and not Path(source.dataset).exists()


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error of huggingface_hub, if it has one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def explained(error: Exception, source: Source, place: str) -> Exception:
    """Return the error for a person instead of one from the libraries: one sentence."""
    if isinstance(error, (HubError, RecipeError)):
        return error  # explained already
    if fault := next((SETTINGS[kind] for kind in SETTINGS if isinstance(error, kind)), ""):
        return HubError(f"{place} cannot be asked for: {fault}")
    page = f"{constants.ENDPOINT}/datasets/{source.dataset}"
    status = _status(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return HubError(
            f"{place} does not fit on the disk: make room for {constants.HF_HUB_CACHE}, or set "
            "HF_HOME to a folder on another disk."
        )
    if isinstance(error, GatedRepoError) or "gated dataset" in str(error):
        return HubError(
            f"{source.dataset} is gated: accept its terms on {page}, log in with `hf auth login` "
            "(in Colab: the secret HF_TOKEN), and run this cell again."
        )
    if isinstance(error, RevisionNotFoundError):
        return RecipeError(
            f'{source.dataset} has no revision "{source.revision}": correct revision in the '
            f"recipe; {page}/tree/main lists them."
        )
    if isinstance(error, (RepositoryNotFoundError, DatasetNotFoundError)):
        return RecipeError(
            f"{source.dataset} cannot be opened: there is no such data set on the Hub, or it is "
            "private. Check dataset in the recipe, or log in with `hf auth login`."
        )
    if status in (401, 403):
        return HubError(
            f"The Hub refuses your token ({status}) for {place}: log in again with "
            "`hf auth login`, or unset HF_TOKEN if the data set is public."
        )
    if isinstance(error, (_Silence, HfHubHTTPError, httpx.TransportError, ConnectionError)):
        what = f"answers {status}" if status else "does not answer"
        if isinstance(error, _Silence):
            what = f"has not answered for {source.patience_seconds:g} s (patience_seconds)"
        if isinstance(error, OfflineModeIsEnabled):
            what = "may not be asked, because HF_HUB_OFFLINE is set"
        return HubError(
            f"The Hub at {constants.ENDPOINT} {what}: {place} is needed. What lessons have saved "
            "is still there; run this cell again when the Hub can be reached."
        )
    reason = " ".join(str(error).split()).rstrip(".")
    return RecipeError(
        f"{place}, cannot be opened: {reason}. {_way_out(error, reason)} in the recipe."
    )


def _way_out(error: Exception, reason: str) -> str:
    if isinstance(error, RuntimeError):  # a loading script, which would have to be executed
        return 'Try revision = "refs/convert/parquet", the Hub\'s own conversion,'
    if "magic bytes" in reason:  # of Parquet
        return "If git brought the files, run `git lfs pull`; else check dataset, name and split"
    if isinstance(error, ImportError):
        return "Install it, or take another dataset"
    return "Check dataset, name and split"


def _may_pass(error: Exception) -> bool:
    """Return whether to retry: there was no answer, or the server is busy."""
    if isinstance(error, (OfflineModeIsEnabled, *SETTINGS)):
        return False
    if status := _status(error):
        return status == 429 or status >= 500
    # load_dataset raises a plain FileNotFoundError for a server that it cannot reach.
    passing = (httpx.TransportError, ConnectionError, LocalEntryNotFoundError)
    return isinstance(error, passing) or type(error) is FileNotFoundError


def patiently(source: Source, place: str, ask: Callable[[], Any]) -> Any:
    """Return the result of `ask`, retrying temporary errors; reads retry by themselves.

    Raises:
        RecipeError, HubError: with a message of one sentence.
    """
    given_up = time.monotonic() + source.patience_seconds
    for pause in chain((1.0, 2.0, 4.0), repeat(LONGEST_PAUSE_SECONDS)):
        try:
            with PATIENCE.limit(given_up - time.monotonic()):
                return ask()
        except FAILURES as error:
            out_of_time = time.monotonic() + pause > given_up
            if out_of_time or not is_on_hub(source) or not _may_pass(error):
                raise explained(error, source, place) from None
        time.sleep(pause)
