"""Reading clips: what is streamed is what was prepared, and an interruption costs one group."""

import json

import numpy as np
import pytest

from tests.conftest import write_recipe
from utils.config import AudioContext, load_recipe
from utils.evaluation.readers import (
    Reader,
    prepared_clips,
    read_clips,
    read_journal,
    streamed_clips,
)
from utils.preprocessing.prepare import prepare
from utils.whisper.hypotheses import Hypotheses

MADE_FROM = {"recipe": "a", "checkpoint": "b", "weights": "c"}


@pytest.fixture
def recipe(tmp_path):
    changes = {
        "max_clips = 24 # in each split": "max_clips = 3",
        "max_clips = 6\n": "max_clips = 2\n",
        "\nbatch_size = 8": "\nbatch_size = 1",
        # Of three clips, one may be too short.
        "[evaluation]": "[preprocessing]\nmax_dropped_share = 0.9\n\n[evaluation]",
    }
    path = write_recipe(tmp_path / "few.toml", **changes)
    return load_recipe(path)


@pytest.fixture
def readers(tiny_model, base, monkeypatch):
    monkeypatch.setattr(
        "utils.whisper.decoding.EXTRA_TOKENS", 2
    )  # random weights write until the limit
    tiny_model.generation_config = base[0].generation_config
    reader = Reader(tiny_model, base[1], AudioContext())
    return {"before": reader, "after": reader, "after_30s": reader._replace(context=None)}


def clips(count):
    random = np.random.default_rng(0)
    for number in range(count):
        yield {
            "id": f"clip{number}",
            "source": "it x",
            "language": "it",
            "seconds": 0.5,
            "split": "test" if number % 3 else "untrained",
            "reference": "uno due",
            "samples": random.normal(0, 0.1, 8000).astype(np.float32),
        }


def test_streamed_clips_are_the_prepared_ones(recipe, base, tmp_path):
    prepared, _ = prepare(recipe, base[1].tokenizer, tmp_path / "prepared")
    streamed = list(streamed_clips(recipe, base[1]))
    stored = list(prepared_clips(prepared, recipe))
    assert {clip["split"] for clip in stored} == {"test", "unseen", "untrained"}
    by_id = {clip["id"]: clip for clip in streamed}
    assert set(by_id) == {clip["id"] for clip in stored}
    for clip in stored:
        other = by_id[clip["id"]]
        assert (clip["samples"] == other["samples"]).all()
        for key in ("reference", "language", "split", "source"):
            assert clip[key] == other[key]


def test_an_interrupted_reading_goes_on_where_it_stopped(recipe, readers, tmp_path):
    def interrupted():
        yield from list(clips(9))[:6]
        raise KeyboardInterrupt

    journal = tmp_path / "journal"
    with pytest.raises(KeyboardInterrupt):
        read_clips(interrupted(), readers, recipe, journal, MADE_FROM)
    groups = read_journal(journal, MADE_FROM)
    done = [row["id"] for group in groups for row in group["rows"]]
    assert done == ["clip0", "clip1", "clip2", "clip3"]  # one group of 4 × batch size
    journal.write_text(journal.read_text(encoding="utf-8") + '{"rows": [{"id', encoding="utf-8")
    rows, speed = read_clips(clips(9), readers, recipe, journal, MADE_FROM)
    fresh, _ = read_clips(clips(9), readers, recipe, tmp_path / "other", MADE_FROM)
    assert rows == fresh
    assert speed["after"]["speech_seconds"] == 4.5
    assert speed["after_30s"]["speech_seconds"] == 4.5


def test_rows_hold_what_each_reader_was_asked_for(recipe, readers, tmp_path):
    rows, _ = read_clips(clips(3), readers, recipe, tmp_path / "journal", MADE_FROM)
    assert all("samples" not in row for row in rows)
    assert json.loads(json.dumps(rows)) == rows
    assert all(isinstance(row["after_30s"], str) for row in rows)
    assert rows[0]["before"] == rows[0]["after"]


def test_only_what_is_decoded_now_is_timed(recipe, readers, tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path / "cache"))
    before = readers["before"]._replace(context=None)
    expected, _ = read_clips(clips(5), {"before": before}, recipe, tmp_path / "0", MADE_FROM)
    for journal, count, seconds in (("1", 3, 1.5), ("2", 5, 1.0), ("3", 5, None)):
        kept = before._replace(kept=Hypotheses(before.model, before.processor))
        found = read_clips(clips(count), {"before": kept}, recipe, tmp_path / journal, MADE_FROM)
        assert found[0] == expected[:count]
        assert found[1].get("before", {}).get("speech_seconds") == seconds


def test_a_journal_of_something_else_is_not_used(recipe, readers, tmp_path):
    journal = tmp_path / "journal"
    read_clips(clips(3), readers, recipe, journal, MADE_FROM)
    assert read_journal(journal, MADE_FROM)
    assert read_journal(journal, MADE_FROM | {"weights": "d"}) == []
