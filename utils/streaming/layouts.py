"""Lists and folders of corpora, besides tables: the format is detected from the contents.

LibriSpeech, MLS, AISHELL, VoxForge and CMU Arctic have lists of an id and its text, Sphinx and
NIST's sclite of a text and its id; Kaldi has a file for each property of an utterance; VCTK and
most people have a .txt for each clip.
"""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from utils.config import RecipeError
from utils.streaming.columns import FILE_COLUMNS, TEXT_COLUMNS, find_column
from utils.streaming.delimited import are_texts, is_sound
from utils.streaming.files import VCTK, Line, is_transcript, read_text, split_in_folders
from utils.streaming.folders import Folder
from utils.streaming.tables import read_nameless, read_table

LISTS = {".txt", ".lst", ".list", ".trans", ".data", ".tra", ".prompts", ""}
LISTS |= {".transcription", ".trn"}
# Between an id and its text, KsponSpeech's first; Sphinx: a text and its (id).
GAPS = (" :: ", " ", "(", ",", ";", ":")
HEAD_CHARACTERS = 2000  # in which each line must have a gap for the list to be parsed by it
LARGEST_LIST = 1 << 28  # bytes
ARCTIC = re.compile(r'\(\s*(\S+)\s+"(.*)"\s*\)')  # ( arctic_a0001 "Author of the danger trail." )
FILLER = re.compile(r"</?s>|<sil>|\+\+\w+\+\+")  # Sphinx's words for silence and noise
# AISHELL-3's texts: each character and how it is said.
PINYIN = re.compile(r"(?:[\u4e00-\u9fff]+ [a-zü]+[1-5](?: |$))+")
LIBRISPEECH = re.compile(r"(\d+)[-_](\d+)[-_]\d+")  # speaker, chapter, number


def _pairs_of(text: str, gap: str = " ") -> Iterator[tuple[int, str, str]]:
    """Yield (line number, id, text) of a list.

    Args:
        text: of the list.
        gap: between an id and its text, where it is no tab; "(" for a text before its id.
    """
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if arctic := ARCTIC.fullmatch(line):
            yield number, *arctic.groups()
        elif gap == "(" and line.endswith(")"):  # <s> ten of clubs </s> (001)
            said, _, name = line[:-1].rpartition("(")
            yield number, name, " ".join(FILLER.sub(" ", said).split())
        elif line:
            name, _, said = line.replace("\t", gap, 1).partition(gap)
            said = said.strip()
            yield number, name, "".join(said.split()[::2]) if PINYIN.fullmatch(said) else said


def _speaker(path: Path, name: str) -> tuple[str, str]:
    """Return speaker and recording if the corpus's names contain them."""
    if found := LIBRISPEECH.fullmatch(PurePosixPath(name).stem):
        return found[1], f"{found[1]}-{found[2]}"
    if path.parent.name == "etc":  # VoxForge: speaker-date-session/etc/PROMPTS
        session = path.parent.parent.name
        first = session.partition("-")[0]
        return (session if first == "anonymous" else first), session
    return "", ""


def is_list(path: Path, folder: Folder) -> bool:
    """Return whether a file may be a list, and not a clip's own text."""
    is_named = path.suffix.lower() in LISTS and is_transcript(path)
    is_one_clip_s = folder.anywhere(path.stem) or folder.anywhere(f"{path.stem}{VCTK}")
    if not is_named or is_one_clip_s or path.stat().st_size > LARGEST_LIST:
        return False
    # VoxForge has its list in capitals beside the original one.
    is_second = path.name == "PROMPTS" and path.with_name("prompts-original").is_file()
    return not is_second


def read_list(path: Path, folder: Folder) -> list[Line]:
    """Return the lines of a list, the id of a sound and its text; none if it is not a list."""
    try:
        text = read_text(path)
    except RecipeError:
        return []  # not a list in UTF-8
    first, knows = text.partition("\n")[0], partial(folder.knows, beside=path.parent)
    with suppress(RecipeError):
        header = re.split("[,;|\t]", first)
        named = find_column(header, FILE_COLUMNS) and find_column(header, TEXT_COLUMNS)
        if named or first.startswith("{"):
            return read_table(path)
    if "|" in first or first.count("\t") > 1:
        return read_nameless(path, knows)
    some = list(filter(str.strip, text[:HEAD_CHARACTERS].split("\n")))
    for gap in GAPS:
        if gap != " " and not all(gap in line for line in some):
            continue
        pairs = list(_pairs_of(text, gap))
        if knows([name for _, name, _ in pairs]):
            break
    else:
        return []
    if not any(said and not is_sound(said) for _, _, said in pairs):
        return []  # a list of files
    return [
        Line(f"{path}, line {n}", name, said, None, None, "", *_speaker(path, name))
        for n, name, said in pairs
    ]


def read_lists(folder: Folder, of_labels: bool = False) -> list[tuple[Path, list[Line]]]:
    """Return the lists of a folder, each with its lines.

    Args:
        folder: whose files they are.
        of_labels: those in which values recur or are numbers: speakers, seconds, or short commands.
    """
    lists = [(path, read_list(path, folder)) for path in folder.files if is_list(path, folder)]
    return [
        (path, lines)
        for path, lines in lists
        if lines and are_texts([line.text for line in lines]) != of_labels
    ]


def _table(path: Path, columns: int) -> dict[str, tuple[int, list[str]]]:
    """Return one of Kaldi's files: id → line number and the rest, split into so many columns."""
    rows = {}
    for number, line in enumerate(read_text(path).split("\n") if path.is_file() else (), 1):
        if cells := line.split(None, columns):
            rows[cells[0]] = number, [*cells[1:], *[""] * (columns + 1 - len(cells))]
    return rows


def _texts_of(sounds: Path) -> list[Path]:
    """Return what the texts beside a list of ids and files may be called; none: it is no such list.

    Kaldi's are wav.scp and text, FunASR's train_wav.scp and train_text.txt, and a script of many
    Whisper recipes takes audio_paths and text.
    """
    if sounds.name == "audio_paths":
        return [sounds.with_name("text")]
    first, found, rest = sounds.name.partition("wav.scp")
    return [sounds.with_name(f"{first}text{kind}") for kind in ("", ".txt") if found and not rest]


def read_kaldi(folder: Folder) -> list[tuple[Path, list[Line]]]:
    """Return the texts of Kaldi's data folders, each with its lines.

    Raises:
        RecipeError: wav.scp has commands, which are not run; a segment has no times.
    """
    there = set(folder.files)
    pairs = [(sounds, text) for sounds in folder.files for text in _texts_of(sounds)]
    return [
        # Kaldi's dev may be cut from a corpus's train: its own folder says so, not the sound's.
        (text, list(_read_kaldi(text, sounds, split_in_folders(folder.name(text)))))
        for sounds, text in pairs
        if text in there
    ]


def _read_kaldi(path: Path, files: Path, split: str) -> Iterator[Line]:
    sounds = _table(files, 1)
    segments = _table(path.with_name("segments"), 3)
    speakers = _table(path.with_name("utt2spk"), 1)
    for utterance, (number, (said,)) in _table(path, 1).items():
        where, start, end = f"{path}, line {number}", None, None
        recording, at = utterance, number
        if utterance in segments:
            at, (recording, first, last) = segments[utterance]
            try:
                start, end = float(first), float(last)
            except ValueError:
                start, end = 0.0, 0.0
            if end == -1:  # Kaldi's way to say "to the end of the recording"
                end = None
            if not 0 <= start < (math.inf if end is None else end):
                raise RecipeError(
                    f"{path.with_name('segments')}, line {at}: {first} to {last} are no seconds of "
                    "a part."
                )
        at, (name,) = sounds.get(recording, (number, [recording]))
        if name.rstrip().endswith("|"):
            raise RecipeError(
                f"{files}, line {at}, is a command ({name[:60]}), and commands "
                "in data are not run: write the file's path."
            )
        speaker = speakers.get(utterance, (0, [""]))[1][0]
        whole = "" if start is None else recording
        yield Line(where, name, said, start, end, split, speaker, whole)
