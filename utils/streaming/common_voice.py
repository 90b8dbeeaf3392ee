"""Common Voice as Mozilla distributes it: an archive on disk, read without being unpacked.

Scripted speech is LANG/{train,dev,test,…}.tsv, clip_durations.tsv and clips/*.mp3; spontaneous
speech is ss-corpus-LANG.tsv with a split column, and audios/*.mp3. The layouts were read in
github.com/common-voice/cv-dataset (datasets/*/README.md) for releases 27.0 and 5.0, November 2026.
"""

import os
import platform
import re
import tarfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from utils.config import RecipeError
from utils.streaming.recordings import read_unquoted, safe_path

DURATIONS = "clip_durations.tsv"
TABLES = {"train.tsv", "dev.tsv", "test.tsv", DURATIONS}
SPONTANEOUS = "ss-corpus-"
SITE = "https://mozilladatacollective.com"
# What transcribers of spontaneous speech mark: [disfluency], [noise]. Nobody says these words.
TAGS = re.compile(r"\[[a-z _-]+\]")


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, tarfile.ExFileObject]]:
    """Yield (path, content) of an archive's files in one pass; nothing is unpacked."""
    try:
        with tarfile.open(archive, mode="r|*") as tar:
            while (member := tar.next()) is not None:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise RecipeError(
                        f'{archive} holds the path "{member.name}", which leads out of it: it is '
                        "not what Mozilla published."
                    )
                if member.isfile():
                    yield path, tar.extractfile(member)
                # tarfile remembers every member: 1 KB a clip, gigabytes in a large archive.
                tar.members.clear()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise RecipeError(
            f"{archive} cannot be read to its end ({error}): download it again, or go on with the "
            "download if it was cut off."
        ) from None


@lru_cache(maxsize=4)  # an archive is passed through once for its tables, not once for each split
def _tables(path: Path, modified: int, wanted: str) -> dict[str, str]:
    """Return text by file name of the tables in use and of `wanted`, "" for all others."""
    if path.is_dir():
        files = ((PurePosixPath(p), p) for p in sorted(path.rglob("*.tsv")))
    else:
        files = _members(path)  # the tables lie anywhere among the clips
    tables: dict[str, str] = {}
    for inner, content in files:
        if inner.name in {*TABLES, wanted} or inner.name.startswith(SPONTANEOUS):
            data = content.read_bytes() if isinstance(content, Path) else content.read()
            tables[inner.name] = data.decode("utf-8")
            if wanted in tables and tables.keys() >= TABLES:
                break
        elif inner.suffix == ".tsv":  # hundreds of megabytes in a large language
            tables[inner.name] = ""
    return tables


def read_split(path: Path, split: str) -> dict[str, dict]:
    """Return what the tables say of a split: file name → `text`, `seconds` (or None), `speaker`.

    Args:
        path: an archive or an unpacked folder.
        split: "train", "dev", "test", or another table: "validated", "other".

    Raises:
        RecipeError: it is no Common Voice, or it has no such split.
    """
    wanted = f"{split}.tsv"
    tables = _tables(path, path.stat().st_mtime_ns, "train.tsv" if wanted in TABLES else wanted)
    found, known = {}, {name[:-4] for name, text in tables.items() if name != DURATIONS}
    spontaneous = next((text for name, text in tables.items() if name.startswith(SPONTANEOUS)), "")
    if spontaneous:
        rows = list(read_unquoted(spontaneous))
        known = {row["split"] for row in rows}
        for row in rows:
            if row["split"] == split:
                milliseconds = row.get("duration_ms", "")
                found[row["audio_file"]] = {
                    "text": TAGS.sub(" ", row["transcription"]),
                    "seconds": float(milliseconds) / 1000 if milliseconds else None,
                    "speaker": row.get("client_id", ""),
                }
    else:
        durations = (line.split("\t") for line in tables.get(DURATIONS, "").splitlines()[1:])
        seconds = {row[0]: float(row[1]) / 1000 for row in durations if len(row) > 1}
        for row in read_unquoted(tables.get(wanted, "")):
            name = row["path"]
            found[name] = {
                "text": row["sentence"],
                "seconds": seconds.get(name),
                "speaker": row.get("client_id", ""),
            }
    if not found and known == {"unassigned"}:
        raise RecipeError(
            f"{path} has no splits: Mozilla has assigned none of its {len(rows)} clips. Take "
            'train = "unassigned" in the recipe, with dev and test from another source.'
        )
    if not found:
        raise RecipeError(
            f'{path} has no clips in the split "{split}"; '
            + (f"it has {', '.join(sorted(known))}." if known else "is it Common Voice?")
        )
    for name in found:
        safe_path(path.parent, name, f"{path}, {split}")
    return found


def read_clips(path: Path, split: str) -> Iterator[tuple[str, dict, bytes]]:
    """Yield (file name, `read_split`'s entry, MP3 bytes) in the order of the archive.

    Clips that the table names and the archive lacks come last, with b"": nothing to decode, so that
    the report counts them.

    Raises:
        RecipeError: see `read_split`; or the archive is cut off or not what Mozilla published.
    """
    left = read_split(path, split)
    if path.is_dir():
        files = ((PurePosixPath(p), p) for p in sorted(path.rglob("*")) if p.is_file())
    else:
        files = _members(path)
    for inner, content in files:
        # By name and folder: a table lists file names, and other folders may hold the same ones.
        if inner.parent.name in ("clips", "audios") and inner.name in left:
            data = content.read_bytes() if isinstance(content, Path) else content.read()
            yield inner.name, left.pop(inner.name), data
        if not left:
            return
    for name, entry in left.items():
        yield name, entry, b""


def find(name: str) -> Path:
    """Return where Common Voice is on disk, downloaded first if `name` is a locale.

    Args:
        name: an archive (.tar.gz), an unpacked folder, or a locale such as "es"; "spontaneous/es"
            for the spontaneous speech.

    Raises:
        RecipeError: it is not there, or it cannot be downloaded; the message says what to do.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    kind, _, locale = name.rpartition("/")
    if kind not in ("", "spontaneous") or not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z]+)*", locale):
        raise RecipeError(
            f"{path} is not there: name of the [[sources]] table is an archive of Common Voice, an "
            'unpacked one, or the locale to download ("es").'
        )
    return download(locale, "spontaneous speech" if kind else "scripted speech")


def download(locale: str, kind: str = "scripted speech") -> Path:
    """Download the newest release of a locale from the Mozilla Data Collective; resumes.

    Needs an account, the data set's terms accepted on its page, and the account's key in
    `MDC_API_KEY`. `MDC_DOWNLOAD_PATH` says where to (~/.mozdata/datasets).

    Raises:
        RecipeError: one of these is missing, there is no such locale, or the download broke off.
    """
    ways_out = f"Or download the archive from {SITE} by hand and name it in the recipe."
    try:
        # Here: it is needed for this alone, and brings a client for HTTP with it.
        import datacollective
        from datacollective.errors import DownloadError
        from requests import RequestException
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"Downloading Common Voice needs the package {error.name}, which wants Python 3.11.4 "
            f"or newer (this is {platform.python_version()}). {ways_out}"
        ) from None
    if not os.environ.get("MDC_API_KEY"):
        raise RecipeError(
            f"Common Voice is downloaded with a key: make an account at {SITE}, accept the data "
            f"set's terms, and put the key into the environment as MDC_API_KEY. {ways_out}"
        )
    try:
        # Ids change with every release, and only the latest stay: so the locale is looked up.
        listed = datacollective.list_datasets(f"Common Voice {kind}", locale=locale)
        offered = [one for one in listed if kind in (one.name or "").lower()]
        if offered:
            # By number: 9.0 is older than 27.0.
            newest = max(offered, key=lambda one: [int(n) for n in re.findall(r"\d+", one.name)])
            print(f"{newest.name}: {(newest.sizeBytes or 0) / 1e9:.1f} GB, {newest.datasetUrl}")
            return Path(datacollective.download_dataset(newest.id))
    # No network, terms not accepted or no such file, a wrong key or too many requests, an answer
    # of another shape, a download that broke off.
    except (RequestException, OSError, RuntimeError, ValueError, DownloadError) as error:
        raise RecipeError(f"{error} Run again to resume. {ways_out}") from None
    raise RecipeError(
        f'The Mozilla Data Collective has no Common Voice {kind} for "{locale}". {ways_out}'
    )
