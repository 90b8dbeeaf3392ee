"""Splits that data lack, held out of what there is."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from utils.streaming.files import Recording, say
from utils.streaming.recordings import read_recordings
from utils.streaming.splits import hold_out


@pytest.fixture(autouse=True)
def fresh():
    say.cache_clear()


def clips(count=100, **of):
    """Return clips; each keyword is a function from a clip's number to a field."""
    plain = [Recording(Path(f"c{n}.wav"), f"Frase numero {n}.", f"c{n}.wav") for n in range(count)]
    return [
        replace(one, **{key: make(n) for key, make in of.items()}) for n, one in enumerate(plain)
    ]


@pytest.mark.parametrize(
    ("there", "counts"),
    [
        (set(), {"train": 80, "dev": 10, "test": 10}),
        ({"train"}, {"train": 80, "dev": 10, "test": 10}),
        ({"train", "test"}, {"train": 45, "dev": 5, "test": 50}),
        ({"train", "dev"}, {"train": 45, "dev": 50, "test": 5}),
        ({"test"}, {"test": 100}),
    ],
)
def test_what_is_missing_is_a_tenth_of_train_and_said(there, counts, capsys):
    splits = sorted(there) or [""]
    given = clips(split=lambda n: splits[n % len(splits)])
    found = hold_out(given, "it", "mine")
    assert Counter(one.split for one in found) == counts
    for before, after in zip(given, found, strict=True):
        assert before.split in ("", "train", after.split), "a split that is there was changed"
    missing = {"dev", "test"} - there if "train" in there or not there else set()
    out = capsys.readouterr().out
    assert all(f"no {split}" in out for split in missing) and bool(missing) == bool(out)
    assert hold_out(given[::-1], "it")[::-1] == found, "the order of the rows decides"


def groups(found, key):
    return {
        split: {key(one) for one in found if one.split == split}
        for split in ("train", "dev", "test")
    }


@pytest.mark.parametrize(
    ("of", "key"),
    [
        ({"text": lambda n: f"Frase {n // 4}!"}, lambda one: one.text),
        ({"speaker": lambda n: f"s{n % 20}"}, lambda one: one.speaker),
        ({"speaker": lambda n: f"s{min(n // 30, 2)}"}, lambda one: one.speaker),
        ({"recording": lambda n: f"r{n % 8}"}, lambda one: one.recording),
        # Twelve speakers in pairs, a recording each: neither is on two sides.
        (
            {"speaker": lambda n: f"s{n % 12}", "recording": lambda n: f"r{n % 12 // 2}"},
            lambda one: one.recording,
        ),
        # Two speakers are too few to keep apart; their recordings are enough.
        (
            {"speaker": lambda n: f"s{n % 2}", "recording": lambda n: f"r{n % 10}"},
            lambda one: one.recording,
        ),
    ],
    ids=["sentences", "speakers", "three speakers", "recordings", "both", "two speakers"],
)
def test_what_belongs_together_is_on_one_side(of, key):
    found = hold_out(clips(**of), "it")
    sides = groups(found, key)
    assert all(sides.values())
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["dev"]
    assert not sides["dev"] & sides["test"]
    assert Counter(one.split for one in found)["train"] >= 40


def test_of_one_recording_the_end_is_held_out_and_that_is_said(capsys):
    given = clips(recording=lambda n: "r", start=float, end=lambda n: n + 1.0)
    given = [replace(one, path=Path("r.wav")) for one in given]
    found = hold_out(given, "it", "mine")
    assert [one.split for one in found] == ["train"] * 80 + ["dev"] * 10 + ["test"] * 10
    assert "expect to do worse on another one" in capsys.readouterr().out


def test_clips_without_speech_are_dealt_out_one_by_one():
    """They share their text, and would all be in one split."""
    found = hold_out(clips(text=lambda n: "<|nospeech|>"), "it")
    assert Counter(one.split for one in found) == {"train": 80, "dev": 10, "test": 10}


def test_a_speaker_of_very_many_recordings_takes_seconds_and_not_hours():
    """Each recording was looked up through all those before it: 20,000 of them took minutes."""
    clips = [
        Recording(Path(f"{n}.wav"), f"frase {n}", str(n), speaker=f"s{n % 2}", recording=f"r{n}")
        for n in range(20_000)
    ]
    started = time.perf_counter()
    held = hold_out(clips, "it")
    assert time.perf_counter() - started < 10
    assert {one.split for one in held} == {"train", "dev", "test"}


def test_what_cannot_be_used_is_not_held_out(tmp_path, wav):
    for number in range(8):
        (tmp_path / f"c{number}.wav").write_bytes(wav(1.0))
        (tmp_path / f"c{number}.txt").write_text(f"frase numero {number}")
    before = {one.id: one.split for one in read_recordings(str(tmp_path), "it")}
    for name in ("a", "notes", "z"):  # by their hashes, some of these would be all of a split
        (tmp_path / f"{name}.txt").write_text("un testo senza suono")
        (tmp_path / f"{name}-empty.wav").write_bytes(wav(1.0))
    after = {one.id: one.split for one in read_recordings(str(tmp_path), "it")}
    assert len(after) == 14 and before.items() <= after.items()
    assert {split for name, split in after.items() if name not in before} == {"train"}
