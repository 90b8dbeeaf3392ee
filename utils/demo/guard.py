"""What stands between a page and whoever asks it: hosts, origins, sizes, log-ins and patience.

It imports nothing of `utils`: lesson 7 puts a copy of this file into the Space.
"""

import asyncio
import atexit
import contextlib
import functools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A notebook in the browser frames the page; other sites could lay theirs over its buttons.
FRAMED_BY = (
    "'self' http://127.0.0.1:* http://localhost:* https://127.0.0.1:* https://localhost:* "
    "vscode-webview:"
)
MAX_BODY = 4 * 2**20  # bytes of what is no upload: Gradio reads that into memory whole
MAX_KEPT = 2 * 2**30  # bytes of all uploads together, each of which is kept for an hour
PATIENCE = 20  # seconds for a request's head, and between two pieces of its body
TRIES, TRIES_SECONDS = 10, 60  # wrong passwords, and how long they count
PREFIX = "whisper-demo-"  # of folders with what visitors record
UPLOAD, LOGIN = "/gradio_api/upload", "/login"


class Guard:
    """ASGI middleware that refuses what no visitor's browser sends.

    A page on 127.0.0.1 is reached by every site that its user has open: by a form that posts to it
    (the Origin tells), or by a name that was made to point to 127.0.0.1 (the Host tells).
    """

    def __init__(
        self,
        app: Any,
        hosts: list[str],
        max_upload: int,
        framed_by: str = FRAMED_BY,
        is_host_checked: bool = True,
    ):
        """Guard an app.

        Args:
            app: what answers.
            hosts: names that the page goes by; ".x.org" stands for all below it, and names may be
                added later.
            max_upload: bytes of one request that uploads files.
            framed_by: what may frame the page, as `frame-ancestors` of a
                Content-Security-Policy names it.
            is_host_checked: False where a proxy in front does it, and asks by other names.
        """
        self.app, self.hosts, self.framed_by = app, hosts, framed_by
        self.is_host_checked = is_host_checked
        self.max_upload = max_upload + MAX_BODY
        self.wrong: list[float] = []  # when a password was
        self.coming = 0  # bytes of the uploads that are under way, at most

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fault = self.fault(scope)
        if fault:
            await refuse(send, *fault)
            return
        path, left = scope["path"].rstrip("/"), self.limit(scope)

        async def receive_some() -> dict:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            # It gave no length, and goes on and on: as if it had hung up.
            return message if left >= 0 else {"type": "http.disconnect"}

        async def send_guarded(message: dict) -> None:
            if message["type"] == "http.response.start":
                if path.endswith(LOGIN) and message["status"] == 400:
                    self.wrong.append(time.monotonic())
                policy = f"frame-ancestors {self.framed_by}".encode()
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", policy),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"same-origin"),
                ]
            await send(message)

        coming = int(dict(scope["headers"]).get(b"content-length", left)) if is_upload(path) else 0
        self.coming += coming
        try:
            await self.app(scope, receive_some, send_guarded)
        finally:
            self.coming -= coming

    def limit(self, scope: dict) -> int:
        """Return how many bytes a request may have."""
        return self.max_upload if is_upload(scope["path"]) else MAX_BODY

    def fault(self, scope: dict) -> tuple[int, str] | None:
        """Return the status and the sentence for a request that is refused."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.is_host_checked and not is_one_of(host, self.hosts):
            return 403, "This page does not go by that name."
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            # Behind a proxy the Host may be the proxy's own name for this machine.
            beyond = [name for name in self.hosts if name not in LOOPBACK]
            if not is_one_of(urlsplit(origin).netloc, beyond):
                return 403, "Another site may not use this page."
        path, size = scope["path"].rstrip("/"), headers.get("content-length", "0")
        if not (size.isdigit() and int(size) <= self.limit(scope)):
            return 413, "This request is too large."
        if is_upload(path):
            size = int(headers.get("content-length", self.max_upload)) + self.coming
            if size > room_left():
                return 507, "This page holds as much as it may: try again in an hour."
        if path.endswith(LOGIN) and scope["method"] == "POST":
            self.wrong = [at for at in self.wrong if time.monotonic() - at < TRIES_SECONDS]
            if len(self.wrong) >= TRIES:
                return 429, "Too many wrong passwords: wait a minute, and try again."
        return None


def is_upload(path: str) -> bool:
    """Tell whether a request for this path sends files."""
    return path.rstrip("/").endswith(UPLOAD)


def room_left() -> int:
    """Return how many bytes more may be uploaded: of `MAX_KEPT`, and half of what is free."""
    folder = private_folder()
    kept = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it was deleted just now
            kept += path.stat().st_size
    return min(MAX_KEPT - kept, shutil.disk_usage(folder).free // 2)


def is_one_of(netloc: str, hosts: Iterable[str]) -> bool:
    """Tell whether a Host header, or an Origin's part of it, is one of these names."""
    try:
        name = urlsplit(f"//{netloc}").hostname or ""
    except ValueError:  # no address, as "[::1"
        return False
    return any(name == host or (host.startswith(".") and name.endswith(host)) for host in hosts)


async def refuse(send: Callable, status: int, sentence: str) -> None:
    """Answer with a sentence, and close the connection: what it still sends is not read."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})


def patient(protocol: type) -> type:
    """Return uvicorn's protocol with an end to its patience.

    uvicorn (0.54) waits for ever for the rest of a request; so many half-open sockets, and no file
    is left to open. Bytes of a head buy no time, else one byte a minute would; bytes of a body do:
    an upload over a slow line takes minutes.
    """

    class Patient(protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.since = self.loop.time()
            self.look()

        def data_received(self, data: bytes) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self.since = self.loop.time()
            super().data_received(data)

        def look(self) -> None:
            """Close a connection that has said nothing for too long, or look again later."""
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering and not self.cycle.more_body:
                self.since = self.loop.time()  # it is our turn
            if self.loop.time() - self.since > PATIENCE:
                self.transport.abort()
                return
            self.loop.call_later(PATIENCE / 4, self.look)

    return Patient


def ask_without_proxy() -> None:
    """Let no program of this process ask a network's proxy for a page of this machine.

    Gradio looks whether its own page answers, and refuses to serve it where a proxy says no.
    """
    for name in ("NO_PROXY", "no_proxy"):
        told = [one for one in os.environ.get(name, "").split(",") if one]
        os.environ[name] = ",".join(dict.fromkeys([*told, *LOOPBACK]))


@functools.cache
def private_folder() -> Path:
    """Return the folder for Gradio's files, open to this user alone; call it before Gradio.

    It goes when Python ends, also by SIGTERM or a closed terminal (`end_on_signals`); what a kill
    has left goes at the next start. Gradio's default, /tmp/gradio, belongs to whoever on a shared
    machine started Gradio first. It is one for all pages of a process because parts of Gradio keep
    the first that they were given (6.31): a page opened after it was deleted would make it again,
    open to all.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        if path.lstat().st_uid == getattr(os, "getuid", lambda: 0)():
            with contextlib.suppress(OSError, Timeout), FileLock(path, timeout=0):  # else in use
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = FileLock(folder.with_suffix(".lock"))
    lock.acquire()  # held as long as the process lives, however it ends
    atexit.register(_remove, folder, lock)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return folder


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def end_on_signals() -> None:
    """Let SIGTERM and a closed terminal end a page as Ctrl+C does: with its recordings deleted."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
