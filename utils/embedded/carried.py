"""What packages contain of Whisper and of speech, as listed in carried.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "embedded/"


@dataclass(frozen=True)
class Carried:
    """A CTranslate2 Whisper inside wheels."""

    wheels: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, ...], str]]  # name -> (members to join, SHA-256 of all)
    download_mb: int
    needed_mb: int


@dataclass(frozen=True)
class Package:
    """A Debian package with recordings, or with the texts of others."""

    used: str  # a regular expression: the paths of the files that are used
    digest: str  # `packages.digest` of them
    download_mb: int
    # of recordings
    transcripts: str = ""  # the package of the texts
    reader: str = ""  # which module of this folder parses their layout: "prompts" or "dialogues"
    licence: str = ""  # it and the credit are the copyright file's
    credit: str = ""


@dataclass(frozen=True)
class Speaker:
    """One voice in those packages."""

    package: str  # of the recordings
    voice: str  # a folder of prompts; a character of the dialogues, "" for all but the leads


_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
MODELS: Mapping[str, Carried] = {
    name: Carried(
        wheels=tuple(model["wheels"]),
        files={file: (tuple(parts), sha256) for file, (parts, sha256) in model["files"].items()},
        download_mb=model["download_mb"],
        needed_mb=model["needed_mb"],
    )
    for name, model in _DATA["models"].items()
}
PACKAGES: Mapping[str, Package] = {name: Package(**one) for name, one in _DATA["packages"].items()}
SPEAKERS: Mapping[tuple[str, str], Speaker] = {
    tuple(voice.split()): Speaker(**one) for voice, one in _DATA["speech"].items()
}
