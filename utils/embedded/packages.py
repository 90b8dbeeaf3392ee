"""Debian packages: where they come from, and which of their files are kept, all verified."""

import gzip
import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from utils.embedded.cache import FetchError, cache_folder, locked, published, run_client
from utils.embedded.carried import PACKAGES, Package
from utils.embedded.deb import unpack


def unpacked(name: str) -> Path:
    """Return a folder with a package's used files and copyright file, fetched at the first call.

    Raises:
        FetchError: no way to get the package here, or its files are not the expected ones.
    """
    package = PACKAGES[name]

    def build(folder: Path) -> None:
        print(f"fetching {name} … {package.download_mb} MB", flush=True)
        downloads = folder.parent / "downloads"
        downloads.mkdir()
        archive = _archive(name, downloads)
        unpack(archive, rf"{package.used}|usr/share/doc/{re.escape(name)}/copyright", folder)
        _verify(archive, package, folder)

    return published(f"deb-{name}", 10 + 3 * package.download_mb, build)


def digest(folder: Path, used: str) -> str:
    """Return one SHA-256 over the used files below a folder: over the sorted `path digest` lines.

    For a .gz the contents count: a rebuilt package contains a different archive of them.
    """
    lines = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if re.fullmatch(used, name):
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            lines.append(f"{name} {hashlib.sha256(data).hexdigest()}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _verify(archive: Path, package: Package, folder: Path) -> None:
    got = digest(folder, package.used)
    if got != package.digest:
        raise FetchError(
            f"{archive.name} holds other recordings or texts than are known here (digest "
            f"{package.digest} expected, {got} got). Nothing was kept: take the package of Debian "
            "12 or 13 or of Ubuntu 22.04 to 26.04, put it into a folder and name that in "
            "WHISPER_SPEECH."
        )


# --- Where packages come from ----------------------------------------------------------------


def _archive(name: str, folder: Path) -> Path:
    """Return the package's file: from $WHISPER_SPEECH where that is set, else by apt."""
    given = os.environ.get("WHISPER_SPEECH", "")
    if re.match(r"\w+://", given):
        return _from_address(given, name, folder)
    if given:
        folder = Path(given).expanduser()
        return folder / _newest([path.name for path in folder.glob("*.deb")], name, given)
    if not shutil.which("apt-get"):
        raise FetchError(
            f"apt-get is not on this machine, and {name} is a Debian package. {_ways_out()}"
        )
    _apt_download(name, folder)
    files = [path.name for path in folder.iterdir()]
    return folder / _newest(files, name, "what apt-get downloaded")


def _ways_out() -> str:
    return (
        f"Fill a folder on any Debian or Ubuntu machine (`apt-get download {' '.join(PACKAGES)}`) "
        "and set WHISPER_SPEECH to it, or name a dataset of the Hub in the recipe's [[sources]]."
    )


def _newest(files: Iterable[str], name: str, where: str) -> str:
    found = sorted(file for file in files if re.fullmatch(rf"{re.escape(name)}_.*\.deb", file))
    if not found:
        raise FetchError(f"There is no {name}_….deb in {where}. {_ways_out()}")
    return found[-1]


def _from_address(address: str, name: str, folder: Path) -> Path:
    """Download a package from a folder that a web server lists (`python -m http.server`)."""
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise FetchError(
            "WHISPER_SPEECH names a user, which is not supported: fetch the packages with a "
            "program that can log in, into a folder, and set it to that."
        )
    is_own = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not is_own:
        raise FetchError(
            f"WHISPER_SPEECH is {address}: an address has to begin with https:// (http:// only on "
            "this machine itself)."
        )
    listing = f"{address.rstrip('/')}/"
    try:
        with urllib.request.urlopen(listing, timeout=60) as page:
            links = re.findall(r'href="([^"]+)"', page.read(10_000_000).decode("utf-8", "replace"))
        files = {unquote(link).rsplit("/", 1)[-1]: urljoin(listing, link) for link in links}
        chosen = _newest(files, name, address)
        target = folder / f"{name}.deb"  # not the server's name for it
        with urllib.request.urlopen(files[chosen], timeout=60) as page, target.open("wb") as file:
            shutil.copyfileobj(page, file)
    except (urllib.error.URLError, HTTPException, TimeoutError, ValueError) as error:
        raise FetchError(
            f"{name} cannot be fetched from {address} (WHISPER_SPEECH): {error}. Check that a "
            "browser shows the list of packages there."
        ) from None
    return target


def _apt_download(name: str, folder: Path) -> None:
    """Download a package without root and without touching the system's package lists."""
    state = cache_folder() / "apt"
    lists, cache = state / "lists", state / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::Lists": str(lists),
        "Dir::Cache": str(cache),
        "Acquire::Languages": "none",  # no descriptions in other languages: they are not used
        "APT::Sandbox::User": "root",  # as root, apt would become a user who can't write here
    }
    apt = ["apt-get", "-q", *(word for pair in options.items() for word in ("-o", "=".join(pair)))]
    way_out = (
        "Check the network, and that the sources in /etc/apt hold Debian's main or Ubuntu's "
        f"universe, then run this again. {_ways_out()}"
    )
    download = [*apt, "download", name]
    with locked("apt"):
        try:
            run_client(download, name, folder, way_out)
        except FetchError:  # there are no lists yet, or they are older than the archive
            try:
                run_client([*apt, "update"], name, folder, way_out)
            except FetchError as update:  # one broken source fails the update, and need not be ours
                try:
                    run_client(download, name, folder, way_out)
                except FetchError:
                    raise update from None
            else:
                run_client(download, name, folder, way_out)
