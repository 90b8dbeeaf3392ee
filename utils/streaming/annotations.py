"""Annotation files beside a long recording: subtitles, TextGrids, ELAN, Audacity's labels.

`talk.srt` belongs to `talk.mp3`, and so do `talk.mp3.srt` and `talk.it.srt`, whose track is called
`it`. Each file has one or more tiers of segments; `cues` makes clips of the segments of one.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree.ElementTree import ParseError

import pympi
from praatio.utilities import textgrid_io
from praatio.utilities.constants import INTERVAL_TIER

from utils.config import RecipeError
from utils.streaming.cues import Cue, clean
from utils.streaming.folders import Folder
from utils.streaming.program_json import list_of_segments, read_segments
from utils.streaming.subtitles import read_subtitles
from utils.streaming.tables import lists_parts, read_parts

LABELS = re.compile(r"\s*-?[\d.,]+\t-?[\d.,]+\t")  # Audacity: start, end, text
FREQUENCIES = re.compile(r"\\\t[\d.,-]+\t[\d.,-]+\s*$")  # its line for a spectral selection

# Tiers that aligners add, in the order in which they are left out while another remains: those of
# the Montreal Forced Aligner ("words", "Anna - phones") and of whisper-timestamped.
FINER = [re.compile(rf"(.* - )?{names}", re.I) for names in ("phone(me)?s?", "words?")]
OF = re.compile(" - words?$", re.I)  # after a speaker's name
EVERY = "*"  # the recipe's name for all tiers, one for each speaker

Tiers = dict[str, list[Cue]]


def _read_labels(path: Path, text: str) -> Tiers:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or FREQUENCIES.match(line):
            continue
        if not LABELS.match(line):
            raise RecipeError(
                f"{path}, line {number}, is no label of Audacity's: start, end and text, with tabs "
                "between them."
            )
        start, end, said = line.strip("\r\n").lstrip().split("\t", 2)
        try:
            found.append(Cue(float(start.replace(",", ".")), float(end.replace(",", ".")), said))
        except ValueError:
            raise RecipeError(f"{path}, line {number}: {start} to {end} are no seconds.") from None
    return {"": found}


def _read_textgrid(path: Path, text: str) -> Tiers:
    try:
        grid = textgrid_io.parseTextgridStr(text)
        # Points have no duration, and so no sound.
        return {
            tier["name"]: [
                Cue(float(start), float(end), said) for start, end, said in tier["entries"]
            ]
            for tier in grid["tiers"]
            if tier["class"] == INTERVAL_TIER
        }
    except Exception as error:  # whatever the parser fails on: it has no error of its own
        raise RecipeError(f"{path} is no TextGrid that Praat would open: {error}.") from None


def _read_elan(path: Path, text: str) -> Tiers:
    try:
        file = pympi.Elan.Eaf(path, suppress_version_warning=True)
        data = {name: file.get_annotation_data_for_tier(name) for name in file.tiers}
        speakers = {name: tier[2].get("PARTICIPANT", "") for name, tier in file.tiers.items()}
    except Exception as error:  # pympi raises bare ones
        reason = error if isinstance(error, ParseError) else f"{type(error).__name__}: {error}"
        raise RecipeError(f"{path} is no ELAN file that can be read ({reason}).") from None
    times = {None: float("nan")}  # ELAN leaves out the times within a divided annotation
    return {
        name: sorted(
            Cue(
                times.get(start, (start or 0) / 1000),
                times.get(end, (end or 0) / 1000),
                said,
                " ".join(speakers[name].split()),
            )
            for start, end, said, *_ in entries
        )
        for name, entries in data.items()
    }


SUBTITLES = (".srt", ".vtt", ".sbv", ".ttml", ".dfxp", ".ass", ".ssa")
READERS: dict[str, Callable[[Path, str], Tiers]] = {
    **dict.fromkeys(SUBTITLES, lambda path, text: {"": read_subtitles(path, text)}),
    ".textgrid": _read_textgrid,
    ".eaf": _read_elan,
    ".json": lambda path, text: {"": read_segments(path, text)},
    **dict.fromkeys((".tsv", ".csv"), lambda path, text: {"": read_parts(path, text)}),
}


def is_annotation(path: Path, text: str = "") -> bool:
    """Return whether a file has texts with times; for what may be else, `text` decides."""
    kind = path.suffix.lower()
    if kind == ".json":
        return bool(list_of_segments(text))  # diarization has no text
    if kind in (".tsv", ".csv"):
        return lists_parts(path, text)
    return kind in READERS or (kind == ".txt" and bool(LABELS.match(text) or "-->" in text))


def read_tiers(path: Path, text: str) -> Tiers:
    """Return the segments of every tier that has any text, in the order of the file.

    Args:
        path: of the file; its suffix gives the format.
        text: its contents.

    Raises:
        RecipeError: its contents do not fit its suffix; the message names the line where possible.
    """
    kind = ".srt" if "-->" in text and path.suffix.lower() == ".txt" else path.suffix.lower()
    read = READERS.get(kind, _read_labels)
    return {
        name: segments
        for name, segments in read(path, text).items()
        if any(one.text.strip() for one in segments)
    }


def beside(folder: Folder, annotations: Iterable[Path]) -> dict[Path, dict[Path, str]]:
    """Return the annotations of each sound: annotation → its track, "" if its name has none.

    They lie beside it, or in a folder of their own. An annotation without a sound is filed under
    the name that its sound would have, as a .wav.
    """
    names: dict[Path, Path] = {}
    for sound in folder.sounds:
        names |= {sound: sound, sound.with_suffix(""): sound}
    found: dict[Path, dict[Path, str]] = defaultdict(dict)
    for path in annotations:
        name = path.with_suffix("")
        shorter, track = name.with_suffix(""), name.suffix[1:]
        ways = ((names.get(name), ""), (names.get(shorter), track))
        ways += ((folder.anywhere(name.name), ""), (folder.anywhere(shorter.name), track))
        ways += ((path.with_suffix(".wav"), ""),)
        sound, track = next(way for way in ways if way[0])
        found[sound][path] = track
    return found


def read_cues(texts: dict[tuple[Path, str], str], tier: str, where: str) -> list[Cue]:
    """Return the segments of the tier that a recipe names, or of the only one; none without text.

    Tiers of phones do not count, those of words only where there is no other.

    Args:
        texts: (annotation, track) → contents of the file; all that belong to one recording.
        tier: the recipe's; "" if there is only one; "*" for all, each called after its speaker.
        where: the recording, for the message.

    Raises:
        RecipeError: no tier or several have that name; the message lists them with their segments.
    """
    # One transcript in several formats, as Whisper writes them, is one tier.
    tiers: dict[tuple[str, ...], tuple[str, Path, list[Cue]]] = {}
    for (path, track), text in texts.items():
        for name, segments in read_tiers(path, text).items():
            # WhisperX has its speakers beside the text of a .json, and within that of an .srt.
            said = (name or track, *(clean(one.text, "")[0] for one in segments))
            tiers.setdefault(said, (name or track, path, segments))
    found = list(tiers.values())
    chosen = [one for one in found if tier in ("", EVERY, one[0])]
    for finer in FINER if tier in ("", EVERY) else ():
        chosen = [one for one in chosen if not finer.fullmatch(one[0])] or chosen
    if len(chosen) == 1:
        return chosen[0][2]
    if chosen and tier == EVERY:
        cues = [(cue, name) for name, _, cues in chosen for cue in cues]
        return [cue._replace(speaker=cue.speaker or OF.sub("", name)) for cue, name in cues]
    there = ", ".join(f'"{n}" of {path.name} ({len(cues)} segments)' for n, path, cues in found)
    problem = f'no tier called "{tier}"' if tier and not chosen else "not one tier, but several"
    if not found:
        return []
    raise RecipeError(
        f'{where} has {problem}; tier = "…" in [[sources]] names one of {there}; or write '
        f'tier = "{EVERY}" for all of them, one for each speaker. If two are "", keep one file.'
    )
