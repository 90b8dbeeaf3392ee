"""Missing splits are held out of the data, the same ones for the same data."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from utils.config import RecipeError
from utils.streaming.files import Line, Recording, read_text, say, split_in_name
from utils.streaming.folders import Folder
from utils.streaming.layouts import is_list
from utils.text import normalize
from utils.whisper.labels import NO_SPEECH

SHARE = 10  # one in so many clips is for test, a different one for dev
HELD_OUT = ("test", "dev")


def split_of_key(key: str, missing: Sequence[str]) -> str:
    """Return the split of a row of a stream, whose other rows are not known, by the hash of a key.

    Args:
        key: a speaker or a normalised sentence; rows with the same key are in the same split.
        missing: the splits that are held out, each a tenth.
    """
    tenth = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") * SHARE >> 64
    return missing[tenth] if tenth < len(missing) else "train"


def with_listed_splits(recordings: Sequence[Recording], folder: Folder) -> list[Recording]:
    """Return clips with the splits that lists of names alone give: test.txt, dev.lst."""
    found: dict[Path, str] = {}
    lists = set()
    for path in folder.files:
        split = split_in_name(path)
        if not split or not is_list(path, folder):
            continue
        with suppress(RecipeError):  # not in UTF-8, and so no list of ours
            names = list(filter(None, map(str.strip, read_text(path).split("\n"))))
            if not any(" " in name for name in names) and folder.knows(names, path.parent):
                lines = [Line(str(path), name, "") for name in names]
                found |= dict.fromkeys(filter(None, folder.locate(lines, path.parent)), split)
                lists.add(path.with_suffix(".wav"))  # what it would be the text of
    return [
        replace(one, split=one.split or found.get(one.path, ""))
        for one in recordings
        if one.path not in lists
    ]


def _together(recordings: Sequence[Recording]) -> list[str]:
    """Return a key for each clip, equal where clips share a speaker or a recording."""
    root: dict[str, str] = {}

    def top(key: str) -> str:
        while root.setdefault(key, key) != key:
            # Shorter each time: one speaker's many recordings would make a chain of them all.
            key = root[key] = root[root[key]]
        return key

    keys = []
    for one in recordings:
        named = [f"recording {one.recording}"] if one.recording else []
        named += [f"speaker {one.speaker}"] if one.speaker else []
        tops = [top(name) for name in named or [f"clip {one.id}"]]
        for other in tops[1:]:
            root[other] = tops[0]
        keys.append(tops[0])
    return [top(key) for key in keys]


def _keys(recordings: Sequence[Recording], language: str, needed: int) -> tuple[list[str], str]:
    """Return a key for each clip, equal if they stay together, and its meaning in words."""
    named = [one for one in recordings if one.speaker]
    if len(named) == len(recordings):
        keys = _together(recordings)
        if len(set(keys)) > needed:
            return keys, "speaker"
    if any(one.recording for one in recordings):
        keys = [one.recording or one.id for one in recordings]
        if len(set(keys)) > needed:
            return keys, "recording"
        return [], ""
    said = [
        one.id if one.text.strip() == NO_SPEECH else normalize(one.text, language)
        for one in recordings
    ]
    return said, "sentence"


def _choose(keys: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Return the split of each clip: whole groups by the order of their hashes, a tenth a split."""
    sizes, chosen = Counter(keys), dict.fromkeys(keys, "train")
    order = sorted(sizes, key=lambda key: hashlib.sha256(key.encode()).digest())
    most = max(1, round(len(keys) / SHARE))
    for split in splits:
        left = [key for key in order if chosen[key] == "train"]
        if len(left) < 2:
            break
        taken = 0
        for key in left:
            if taken + sizes[key] <= most:
                chosen[key], taken = split, taken + sizes[key]
        if not taken:  # all are larger than a tenth
            chosen[min(left, key=lambda key: sizes[key])] = split
    return [chosen[key] for key in keys]


def _by_time(recordings: Sequence[Recording], splits: Sequence[str]) -> list[str]:
    """Return splits by time if there are too few recordings: the last parts are held out."""
    order = sorted(
        range(len(recordings)), key=lambda n: (recordings[n].path, recordings[n].start or 0)
    )
    most = max(1, round(len(order) / SHARE))
    chosen = ["train"] * len(order)
    for number, split in enumerate(splits):
        for at in order[len(order) - (number + 1) * most : len(order) - number * most]:
            chosen[at] = split
    return chosen


def hold_out(recordings: list[Recording], language: str, name: str = "") -> list[Recording]:
    """Assign the missing splits, out of the recordings for training.

    All clips of a speaker stay together if every clip names its speaker, parts of a recording
    always; else a sentence is in one split whoever says it. The same folder always gives the same
    splits.

    Args:
        recordings: with their own splits; "" is for training.
        language: Whisper's code.
        name: of the folder, for the sentence about what was done.
    """
    splits = {one.split or "train" for one in recordings}
    missing = [split for split in HELD_OUT if split not in splits]
    # What the report will drop is not held out: with few clips it could be all that a test has.
    is_usable = [bool(one.text.strip()) and not one.fault for one in recordings]
    rest = [n for n, one in enumerate(recordings) if one.split in ("", "train") and is_usable[n]]
    found = [replace(one, split=one.split or "train") for one in recordings]
    if not missing or not rest:
        return found
    trained = [recordings[number] for number in rest]
    keys, what = _keys(trained, language, len(missing))
    chosen = _choose(keys, missing) if keys else _by_time(trained, missing)
    for number, split in zip(rest, chosen, strict=True):
        found[number] = replace(found[number], split=split)
    way = f"by the hash of the {what}, no {what} in two splits"
    if not keys:
        way = "the end of a recording that is trained on, too: expect to do worse on another one"
    say(f"{name} has no {' and no '.join(missing)} split: a tenth is held out of train, {way}.")
    return found
