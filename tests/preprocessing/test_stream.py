"""Training on clips that are read from their source and never stored."""

import dataclasses
import json
from itertools import chain, islice

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import write_recipe
from utils.config import RecipeError, Windows, load_recipe
from utils.preprocessing import stream as speech_stream
from utils.preprocessing.prepare import PreprocessingError, prepare
from utils.preprocessing.stream import SpeechStream
from utils.preprocessing.stream_loader import StreamLoader
from utils.streaming.mixing import training_stream
from utils.training.run import train
from utils.whisper.audio_context import SAMPLING_RATE

CLIPS = 7
STREAMED = f"""
[[sources]]
dataset = "embedded"
language = "es"
name = "allison"
max_clips = {CLIPS}
[preprocessing]
stored = false
min_seconds = 0.0
"""


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    """Buffers of three updates, so that a pass does not fit into one."""
    monkeypatch.setattr(speech_stream, "POOL_BATCHES", 3)
    monkeypatch.setattr(speech_stream, "FEWEST_UPDATES", 3)
    monkeypatch.setattr(speech_stream, "ROWS_AT_ONCE", 2)


@pytest.fixture
def streamed(tiny_run):
    """Return a function: a recipe of few clips in two languages, not stored, and its run."""

    def make(name="streamed", training="", tables=""):
        recipe, run = tiny_run(name, training, STREAMED + tables)
        few = dataclasses.replace(recipe.sources[0], max_clips=CLIPS)
        return dataclasses.replace(recipe, sources=(few, recipe.sources[1])), run

    return make


def ids_of(rows):
    return [one["id"] for one in rows]


@pytest.fixture
def open_stream(base):
    """Return a function: a recipe → its stream, two clips an update, each batch as its ids."""

    def make(recipe, held_out=None, collate=ids_of, **processes):
        return SpeechStream(recipe, base[1].tokenizer, held_out or {}, 2, collate, **processes)

    return make


def first(batches, count):
    return list(islice(batches, count))


def updates_of(stream, count, workers=0):
    """Return so many updates of a stream, each with the clips of all its batches."""
    loader = StreamLoader(stream, workers)
    found = first(loader, count * stream.accumulation)
    return [
        clips(found[n : n + stream.accumulation]) for n in range(0, len(found), stream.accumulation)
    ]


def clips(batches):
    return list(chain.from_iterable(batches))


def source_ids(recipe):
    return [row["id"] for row in training_stream(recipe.sources, 42, recipe.mixing)]


def one_pass(stream):
    """Return the updates up to the end of a pass."""
    found = []
    for update in stream:
        if found and stream.state_dict()["updates"] == 1:
            return found
        found.append(clips(update))


def test_every_pass_reads_every_clip_once_in_new_updates(streamed, open_stream):
    recipe, _ = streamed()
    updates, once = updates_of(open_stream(recipe), 40), sorted(source_ids(recipe))
    whole = len(one_pass(open_stream(recipe)))
    one, other = updates[:whole], None
    for last in range(whole + 1, 40):
        if sorted(clips(updates[whole:last])) == once:
            other = updates[whole:last]
    assert sorted(clips(one)) == once
    assert other and one != other


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("joined", [0.0, 4.0], ids=["alone", "joined"])
def test_a_stream_goes_on_after_any_update_as_if_nothing_had_happened(
    streamed, open_stream, tmp_path, workers, joined
):
    recipe, _ = streamed()
    recipe = dataclasses.replace(recipe, windows=Windows(seconds=joined))
    expected = updates_of(open_stream(recipe), 24, workers)
    loader = StreamLoader(open_stream(recipe), workers)
    for taken, update in enumerate(islice(loader, 16), 1):
        assert update == expected[taken - 1]
        if taken in (1, 2, 5, 9, 15, 16):
            loader.save(tmp_path)
            again = StreamLoader(open_stream(recipe))
            again.go_on_from(tmp_path)
            assert first(again, 8) == expected[taken : taken + 8], f"after {taken}"


def test_a_place_is_kept_also_before_a_resumed_worker_has_given_anything(
    streamed, open_stream, tmp_path
):
    recipe, _ = streamed()
    expected = updates_of(open_stream(recipe), 12, 2)
    for taken in range(8):  # one update from each start: the other worker gives none
        loader = StreamLoader(open_stream(recipe), 2)
        if taken:
            loader.go_on_from(tmp_path)
        assert first(loader, 1) == [expected[taken]]
        loader.save(tmp_path)


def test_the_updates_are_the_same_however_many_batches_they_are_cut_into(
    streamed, open_stream, tmp_path
):
    recipe, _ = streamed()
    whole = StreamLoader(open_stream(recipe))
    expected = updates_of(open_stream(recipe), 8)
    assert first(whole, 3) == expected[:3]
    whole.save(tmp_path)
    halves = StreamLoader(open_stream(recipe, accumulation=2))  # half as many clips at once
    halves.go_on_from(tmp_path)
    found = first(halves, 10)
    assert [clips(found[n : n + 2]) for n in range(0, 10, 2)] == expected[3:]


def test_a_stream_that_goes_on_decodes_nothing_from_before_the_buffer(
    streamed, open_stream, monkeypatch
):
    recipe, _ = streamed()
    stream = open_stream(recipe)
    updates = iter(stream)
    for _ in range(5):
        next(updates)
    decoded, usable = [], speech_stream.usable

    def watched(rows, *arguments):
        return usable((decoded.append(row["id"]) or row for row in rows), *arguments)

    monkeypatch.setattr(speech_stream, "usable", watched)
    again = open_stream(recipe)
    again.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    next(iter(again))
    assert 0 < len(decoded) < len(source_ids(recipe))


def test_neither_the_first_batch_nor_the_end_waits_for_a_full_buffer(
    streamed, open_stream, monkeypatch
):
    monkeypatch.setattr(speech_stream, "POOL_BATCHES", 50)
    recipe, _ = streamed()
    stream, read = open_stream(recipe), []
    watched = stream._watched
    monkeypatch.setattr(
        stream, "_watched", lambda rows, *a: watched((read.append(row) or row for row in rows), *a)
    )
    updates = iter(stream)
    next(updates)
    assert len(read) == 2 * stream.clips
    stream.closing.set()
    left = list(updates)  # of the buffer
    assert len(read) <= 2 * stream.clips + 1
    assert len(clips(chain.from_iterable(left))) <= 2 * stream.clips


def test_two_workers_share_every_clip_and_none_comes_twice(streamed, open_stream):
    recipe, _ = streamed()
    stream = open_stream(recipe)
    parts = []
    for number in (0, 1):
        alone = open_stream(recipe, processes=2, process=number)
        parts.append(sorted(clips(one_pass(alone))))
    assert sorted(clips(parts)) == sorted(source_ids(recipe))
    assert parts[0] and parts[1]
    assert set(clips(updates_of(stream, 14, workers=2))) == set(source_ids(recipe))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_breaks_off_ends_bit_for_bit_the_same(streamed, workers):
    def weights(run):
        return load_file(run.model / "model.safetensors")

    training = "max_steps = 9\ngradient_accumulation_steps = 2\n"
    training += f"dataloader_num_workers = {workers}"
    recipe, whole = streamed("whole", training)
    train(recipe, whole)
    recipe, broken = streamed("broken", training)

    def break_off(rows, _):
        if rows[-1]["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, broken, break_off)
    steps = []
    train(recipe, broken, lambda rows, _: steps.append(rows[-1]["step"]))
    assert min(steps) == 5, "the checkpoint of step 4 was not gone on from"
    expected = weights(whole)
    for name, weight in weights(broken).items():
        assert torch.equal(weight, expected[name]), name


def test_clips_that_are_tested_on_are_not_trained_on(streamed, open_stream, base, tmp_path):
    recipe, _ = streamed()
    stored = dataclasses.replace(
        recipe, preprocessing=dataclasses.replace(recipe.preprocessing, stored=True)
    )
    splits, _ = prepare(stored, base[1].tokenizer, tmp_path / "prepared")
    held_out = splits["train"].select(range(2))
    stream = open_stream(recipe, {"test": held_out})
    seen = set(clips(updates_of(stream, 8)))
    assert seen == set(source_ids(recipe)) - set(held_out["id"][:])
    for drops in stream.report.dropped.values():
        assert set(drops) == {"same sound as a clip of test"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_of_which_nothing_is_left_ends_training_with_a_reason(
    streamed, open_stream, workers
):
    recipe, _ = streamed()
    rules = dataclasses.replace(recipe.preprocessing, min_seconds=29.0)
    recipe = dataclasses.replace(recipe, preprocessing=rules)
    with pytest.raises(PreprocessingError, match="shorter than 29 s"):
        next(iter(StreamLoader(open_stream(recipe), workers)))


def test_joined_clips_are_streamed_too(streamed, open_stream):
    recipe, _ = streamed()
    recipe = dataclasses.replace(recipe, windows=Windows(seconds=30.0))
    window = next(iter(open_stream(recipe, collate=list)))[0][0]
    assert len(window["cut_samples"]) > 1
    assert len(window["audio"]) == round(window["seconds"] * SAMPLING_RATE)


def test_a_checkpoint_of_other_processes_is_refused(streamed, open_stream, tmp_path):
    recipe, _ = streamed()
    loader = StreamLoader(open_stream(recipe))
    first(loader, 1)
    loader.save(tmp_path)
    with pytest.raises(PreprocessingError, match="another number of processes than 2"):
        StreamLoader(open_stream(recipe, processes=2)).go_on_from(tmp_path)


def test_only_a_sample_of_the_training_split_is_stored(streamed, base, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.preprocessing.prepare.SAMPLE_CLIPS", 3)
    recipe, _ = streamed()
    splits, _ = prepare(recipe, base[1].tokenizer, tmp_path / "prepared")
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 3,
        "dev": 2 * CLIPS,
        "test": 2 * CLIPS,
    }


def test_a_stream_needs_to_be_told_when_to_stop(tmp_path):
    path = write_recipe(tmp_path / "endless.toml")
    text = path.read_text(encoding="utf-8").replace("max_steps", "num_train_epochs")
    path.write_text(text + "\n[preprocessing]\nstored = false\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="needs max_steps"):
        load_recipe(path)
