"""The loopback Hub itself; that unmodified libraries take it for one, the tests of each show."""

import subprocess
import sys
import urllib.error
import urllib.request

import pytest


@pytest.fixture
def ask(hub):
    """Return a function that asks the server plainly: (path, headers) → status, headers, body."""
    hub.publish("models", "org/file", {"ten.txt": b"0123456789"})

    def get(**headers):
        request = urllib.request.Request(
            f"{hub.address}/org/file/resolve/main/ten.txt", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    return get


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=0-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, "bytes */10", None),
    ],
)
def test_ranges(ask, asked, status, content_range, body):
    got, headers, content = ask(Range=asked)
    assert (got, headers["Content-Range"]) == (status, content_range)
    assert body is None or content == body


def test_every_fault_and_that_it_ends(hub, ask):
    for kind in ("401", "403", "404", "429", "503"):
        hub.fault(kind, "ten.txt", skip=1)
        assert [ask()[0] for _ in range(3)] == [200, int(kind), 200]
    hub.fault("429", "ten.txt")
    assert ask()[1]["Retry-After"] == "1"
    for kind, error in [("drop", OSError), ("truncate", Exception), ("hang", TimeoutError)]:
        hub.fault(kind, "ten.txt")
        with pytest.raises(error):
            ask()
        assert ask()[2] == b"0123456789"
    assert [e["fault"] for e in hub.requests()][-6:] == [
        "drop",
        None,
        "truncate",
        None,
        "hang",
        None,
    ]


def test_the_server_is_reachable_from_this_machine_alone(hub):
    assert hub.address.startswith("http://127.0.0.1:")
    listening = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/net/tcp').read())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    port = f"{int(hub.address.rsplit(':')[-1]):04X}"
    assert f"0100007F:{port}" in listening
    assert f"00000000:{port}" not in listening
