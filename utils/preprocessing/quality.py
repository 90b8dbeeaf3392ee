"""What is wrong with speech data, found before an hour of GPU is spent: checks and a report.

A clip that breaks a rule is dropped and counted under its reason. Harmless faults are only noted:
clipped sound, a sentence in several clips, text that was not NFC (it is now).
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import regex
from matplotlib.figure import Figure

from utils.config import Preprocessing, RecipeError
from utils.text import INVISIBLE, SCRIPTS, TAGS, normalize, wrong_script_share
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.captions import MARK

FRAME = SAMPLING_RATE // 10  # samples whose level is measured together
FULL_SCALE = 0.999  # of the largest sample that a file can hold
EXAMPLES = 3  # kept of each reason, to look at and to listen to
LINES = ("-", "--", ":", "-.")  # of the sources in the figure: nobody has to tell colours apart
# Values of spreadsheets and scripts for a missing transcript. Exact: "none" is a word.
PLACEHOLDERS = {"nan", "NaN", "null", "NULL", "None", "N/A", "n/a", "#N/A", "undefined", "TODO"}

plt.rcParams["text.parse_math"] = False  # a $ in a name opens no formula


class Unusable(ValueError):
    """A clip that must not be trained on; the message is its line in the report.

    Attributes:
        why: more about this one clip, where there is more to say.
    """

    def __init__(self, reason: str, why: str = ""):
        super().__init__(reason, why)  # both, so that it can be sent to another process
        self.why = why

    def __str__(self) -> str:
        """Return the reason alone."""
        return self.args[0]


def check_text(text: str, language: str, rules: Preprocessing) -> None:
    """Raise `Unusable` if there is no transcript, or it is in a script other than its language's.

    Raises:
        RecipeError: Unicode has no script with the recipe's name.
    """
    if not text:
        raise Unusable("empty transcript")
    if text in PLACEHOLDERS or not normalize(text, language):
        raise Unusable("placeholder for a transcript")
    try:
        wrong = wrong_script_share(text, language, rules.script)
    except regex.error:
        raise RecipeError(f'[preprocessing] script: Unicode has no "{rules.script}".') from None
    if wrong > rules.max_wrong_script_share:
        raise Unusable(
            "another script than the language's",
            f'in "{text[:60]}", {wrong:.0%} of the letters are not '
            f"{rules.script or SCRIPTS.get(language, 'Latin')}; where that is how the language is "
            "written, give its script in [preprocessing]",
        )


def check_seconds(seconds: float, rules: Preprocessing) -> None:
    """Raise `Unusable` if a clip is too short or too long."""
    if seconds < rules.min_seconds:
        raise Unusable(f"shorter than {rules.min_seconds:g} s")
    if seconds > rules.max_seconds:
        raise Unusable(f"longer than {rules.max_seconds:g} s")


def level_db(samples: np.ndarray) -> float:
    """Return the level of the loudest tenth of a second, in dB below full scale."""
    frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    return 10 * float(np.log10(np.square(frames).mean(axis=1).max() + 1e-12))


def check_sound(samples: np.ndarray, text: str, rules: Preprocessing) -> None:
    """Raise `Unusable` if a clip is silent, or its text does not fit its length.

    Args:
        samples: float32 in [-1, 1] at 16 kHz.
        text: its transcript.
        rules: the recipe's.
    """
    if level_db(samples) < rules.silent_below_db:
        raise Unusable("silent")
    rate = len(text) * SAMPLING_RATE / len(samples)
    if rate < rules.min_characters_per_second:
        raise Unusable(f"fewer than {rules.min_characters_per_second:g} characters a second")
    if rate > rules.max_characters_per_second:
        raise Unusable(f"more than {rules.max_characters_per_second:g} characters a second")


def clipped_share(samples: np.ndarray) -> float:
    """Return the share of int16 samples at full scale: cut-off peaks, audible as a crackle."""
    return float(np.mean(np.abs(samples.astype(np.int32)) >= FULL_SCALE * 32767))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class QualityReport:
    """The contents of a recipe's splits: clips by source, split and reason, with examples.

    Splits are reported one after the other, test splits first and `train` last: a clip that is in
    two is dropped from the second, so that it stays in the test.
    """

    def __init__(self, rules: Preprocessing):
        self.rules = rules
        # (source, split) → number of clips; the sum of `kept` and `dropped` is the total.
        self.kept: Counter = Counter()
        self.dropped: dict[tuple[str, str], Counter] = defaultdict(Counter)
        self.noted: dict[tuple[str, str], Counter] = defaultdict(Counter)
        self.examples: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.rates: dict[str, list[float]] = defaultdict(list)  # characters per second, by source
        self._sounds: dict[bytes, tuple[str, str, str]] = {}  # digest → split, source, id
        self._texts: dict[bytes, tuple[str, str]] = {}  # digest → the first split, source

    def _add_example(self, split: str, row: Mapping[str, Any], reason: str, why: str = "") -> None:
        if len(self.examples[reason]) < EXAMPLES:
            shown = {key: row[key] for key in ("source", "id", "text", "audio")}
            self.examples[reason].append({"split": split, **shown, "why": why})

    def drop(self, split: str, row: Mapping[str, Any], reason: Unusable) -> None:
        """Count a streamed row that is dropped."""
        self.dropped[row["source"], split][str(reason)] += 1
        self._add_example(split, row, str(reason), reason.why)

    def _check(
        self, split: str, row: Mapping[str, Any], example: Mapping[str, Any]
    ) -> tuple[bytes, bytes]:
        """Refuse a clip that duplicates an earlier one, else return digests of sound and text."""
        me, sound = (split, row["source"], row["id"]), _digest(example["audio"].tobytes())
        text = _digest(normalize(example["text"], row["language"]).encode())
        first = self._sounds.get(sound, me)
        if first != me:
            where = "another clip" if first[0] == split else f"a clip of {first[0]}"
            raise Unusable(f"same sound as {where}")
        first_split, _ = self._texts.get(text, ("", ""))
        tested = split == "train" and first_split not in ("", "train") and example["text"]
        if tested and self.rules.drop_tested_sentences:
            raise Unusable(f"same text as a clip of {first_split}")
        return sound, text

    def keep(self, split: str, row: Mapping[str, Any], example: Mapping[str, Any]) -> None:
        """Count a streamed row that was prepared as `example`.

        Raises:
            Unusable: its sound, or in training its sentence, is in the report already.
        """
        sound, text = self._check(split, row, example)
        is_repeated = sound in self._sounds  # the same clip again: the mix repeats small sources
        _, first_source = self._texts.get(text, ("", ""))
        self._sounds[sound] = split, row["source"], row["id"]
        self._texts.setdefault(text, (split, row["source"]))
        self.kept[row["source"], split] += 1
        if is_repeated:
            return
        self.rates[row["source"]].append(len(example["text"]) / example["seconds"])
        for note, count in {
            "clipped": clipped_share(example["audio"]) > self.rules.max_clipped_share,
            # In one source: a second speaker may have been given the same sentence.
            "same text as another clip": bool(example["text"]) and first_source == row["source"],
            "nobody speaks": not example["text"],
            "text not in NFC": not unicodedata.is_normalized("NFC", row["text"]),
            "invisible characters, now gone": bool(INVISIBLE.search(row["text"])),
            "a tag in brackets": bool(TAGS.search(MARK.sub("", row["text"]))),
            **Counter(row.get("notes") or ()),  # of a source that removes parts of the text
        }.items():
            if count:
                self.noted[row["source"], split][note] += count
                self._add_example(split, row, note)

    def parts(self, split: str = "") -> list[tuple[str, str]]:
        """Return every (source, split) in the report, or those of one split."""
        found = dict.fromkeys([*self.kept, *self.dropped])
        return [part for part in found if split in ("", part[1])]

    def table(self) -> pd.DataFrame:
        """Return a row for each reason, a column for each source and split."""
        columns = {
            part: {
                "clips": self.kept[part] + self.dropped[part].total(),
                "kept": self.kept[part],
                **{f"dropped: {reason}": n for reason, n in self.dropped[part].most_common()},
                **{f"kept, but {note}": n for note, n in self.noted[part].most_common()},
            }
            for part in self.parts()
        }
        return pd.DataFrame(columns).fillna(0).astype(int)

    def to_json(self) -> dict[str, Any]:
        """Return counts and examples for a JSON file, without sound."""
        return {
            "sources": [
                {
                    "source": source,
                    "split": split,
                    "kept": self.kept[source, split],
                    "dropped": dict(self.dropped[source, split]),
                    "noted": dict(self.noted[source, split]),
                }
                for source, split in self.parts()
            ],
            "examples": {
                reason: [{key: one[key] for key in one if key != "audio"} for one in examples]
                for reason, examples in self.examples.items()
            },
        }

    def draw(self) -> Figure:
        """Plot how fast each source speaks, and how many clips each reason affects."""
        figure, (speed, reasons) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        for line, (source, rates) in zip(cycle(LINES), self.rates.items(), strict=False):
            speed.hist(rates, bins=40, histtype="step", label=source, linestyle=line)
        if self.rates:
            speed.legend()
        speed.set(xlabel="characters per second", ylabel="clips kept")
        for found, color, meaning in (
            (self.dropped, "C3", "dropped"),
            (self.noted, "C0", "kept and noted"),
        ):
            total = sum(found.values(), Counter())
            if total:
                reasons.barh(list(total), list(total.values()), color=color, label=meaning)
        if reasons.patches:
            # Above the bars, which may be as wide as the axes.
            reasons.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        else:
            reasons.text(0.5, 0.5, "nothing found", ha="center", transform=reasons.transAxes)
        reasons.set(xlabel="clips")
        reasons.xaxis.get_major_locator().set_params(integer=True)
        plt.close(figure)
        return figure
