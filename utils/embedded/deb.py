"""The contents of a .deb, unpacked here so that it needs no dpkg and nothing is executed."""

import io
import lzma
import re
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from utils.embedded.cache import FetchError

MAX_BYTES = 200_000_000  # the used files of the largest package have 60 MB; more is something else


def unpack(archive: Path, kept: str, folder: Path) -> None:
    """Write the files of a package whose paths match the pattern `kept` below `folder`.

    Raises:
        FetchError: an incomplete package, one with paths that lead out of the folder, or one
            compressed in a way that this machine cannot unpack.
    """
    total = 0
    try:
        with tarfile.open(fileobj=_tar(archive)) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise FetchError(
                        f"{archive.name} is refused: its file {member.name!r} would lie outside "
                        "the folder it is unpacked to. Nothing was kept."
                    )
                if not member.isreg() or not re.fullmatch(kept, path.as_posix()):
                    continue  # links are skipped, too
                total += member.size
                if total > MAX_BYTES:
                    raise FetchError(
                        f"{archive.name} is refused: it unpacks to more than "
                        f"{MAX_BYTES // 1_000_000} MB. Nothing was kept."
                    )
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)
    except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
        raise FetchError(f"{archive.name} is damaged ({error}): fetch it again.") from None


def _tar(archive: Path) -> io.BytesIO:
    """Return the tar of a package's files, compressed or not.

    A .deb is an `ar` archive: 8 bytes of magic, then for each member 60 bytes of header (name in
    the first 16, size in decimal from 48 to 58) and the data, padded to an even length.
    """
    with archive.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise ValueError("no Debian package")
        while len(header := file.read(60)) == 60:
            name, size = header[:16].decode("ascii").strip(" /"), int(header[48:58])
            if name == "data.tar.zst" and "zst" not in tarfile.TarFile.OPEN_METH:
                return _unpacked_by_dpkg(archive)
            if name.startswith("data.tar"):
                return io.BytesIO(file.read(size))
            file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it ends before its files")


def _unpacked_by_dpkg(archive: Path) -> io.BytesIO:
    """Return the unpacked tar. Ubuntu compresses with zstd, which Python has from 3.14 on."""
    if not shutil.which("dpkg-deb"):
        raise FetchError(
            f"{archive.name} is packed with zstd, as Ubuntu does, which Python unpacks from 3.14 "
            "on: take the package from a Debian machine."
        )
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], capture_output=True)
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip())
    return io.BytesIO(done.stdout)
