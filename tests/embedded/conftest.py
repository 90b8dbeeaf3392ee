"""A cache folder of a test's own, programs that only seem to be there, and small packages."""

import io
import tarfile
from pathlib import Path

import pytest


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder; at the end, nothing but locks and apt's lists may be in it."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("WHISPER_CACHE", str(folder))
    yield folder
    assert [p.name for p in folder.iterdir() if p.suffix != ".lock" and p.name != "apt"] == []


@pytest.fixture
def script():
    def write(path: Path, body: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def make_deb():
    """A function that writes a .deb: `ar` archive of three members, as dpkg-deb does."""

    def write(path: Path, files: dict[str, bytes], packed: str = "xz") -> Path:
        tarred = io.BytesIO()
        with tarfile.open(fileobj=tarred, mode=f"w:{packed}") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        members = {
            "debian-binary": b"2.0\n",
            "control.tar.xz": b"odd",  # of an odd length: a padding byte follows
            f"data.tar.{packed}".rstrip("."): tarred.getvalue(),
        }
        with path.open("wb") as file:
            file.write(b"!<arch>\n")
            for name, data in members.items():
                file.write(f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
                file.write(data + b"\n" * (len(data) % 2))
        return path

    return write
