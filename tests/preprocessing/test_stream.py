"""Training on clips that are read from their source and never stored."""

import dataclasses
from itertools import chain, islice

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import write_recipe
from utils.config import RecipeError, Windows, load_recipe
from utils.preprocessing import stream as speech_stream
from utils.preprocessing.prepare import PreprocessingError, prepare
from utils.preprocessing.stream import SpeechStream
from utils.streaming.sources import training_stream
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
def small_pools(monkeypatch):
    """Pools of three batches, so that a pass has several."""
    monkeypatch.setattr(speech_stream, "POOL_BATCHES", 3)


@pytest.fixture
def streamed(tiny_run):
    """Return a function: a recipe of few clips in two languages, not stored, and its run."""

    def make(name="streamed", training="", tables=""):
        recipe, run = tiny_run(name, training, STREAMED + tables)
        few = dataclasses.replace(recipe.sources[0], max_clips=CLIPS)
        return dataclasses.replace(recipe, sources=(few, recipe.sources[1])), run

    return make


@pytest.fixture
def open_stream(base):
    """Return a function: a recipe → its stream, two clips a batch, each batch as its ids."""

    def make(recipe, held_out=None, **processes):
        tokenizer = base[1].tokenizer
        return SpeechStream(
            recipe,
            tokenizer,
            held_out or {},
            2,
            lambda rows: [one["id"] for one in rows],
            **processes,
        )

    return make


def first(batches, count):
    return list(islice(batches, count))


def clips(batches):
    return list(chain.from_iterable(batches))


def source_ids(recipe):
    return [row["id"] for row in training_stream(recipe.sources, 42, recipe.mixing)]


def test_every_pass_reads_every_clip_once_in_new_batches(streamed, open_stream):
    recipe, _ = streamed()
    # 14 clips: pools of 6, 6 and 2, that is 3, 3 and 1 batches.
    batches = first(open_stream(recipe), 14)
    one, other = batches[:7], batches[7:]
    for batches in (one, other):
        assert sorted(clips(batches)) == sorted(source_ids(recipe))
    assert one != other


@pytest.mark.parametrize("taken", [1, 3, 4, 7, 12])
def test_a_stream_goes_on_after_any_batch_as_if_nothing_had_happened(
    streamed, open_stream, tmp_path, taken
):
    recipe, _ = streamed()
    stream = open_stream(recipe)
    batches = iter(stream)
    for _ in range(taken + 1):  # a loader reads one batch ahead of training
        next(batches)
    stream.taken = taken
    stream.save(tmp_path)
    again = open_stream(recipe)
    again.go_on_from(tmp_path)
    assert first(again, 9) == first(open_stream(recipe), taken + 9)[taken:]


def test_a_stream_that_goes_on_with_another_batch_passes_over_as_many_clips(
    streamed, open_stream, tmp_path
):
    recipe, _ = streamed()
    stream = open_stream(recipe)
    next(iter(stream))
    stream.taken = 2
    stream.save(tmp_path)
    again = open_stream(recipe)
    again.accumulation = 2  # half as many clips at once
    again.go_on_from(tmp_path)
    assert again.place["batch"] == 2 * 2


def test_a_stream_that_goes_on_decodes_no_pool_that_training_has_left(
    streamed, open_stream, tmp_path, monkeypatch
):
    recipe, _ = streamed()
    stream = open_stream(recipe)
    batches = iter(stream)
    for _ in range(5):
        next(batches)
    stream.taken = 5  # in the second pool
    stream.save(tmp_path)
    decoded, usable = [], speech_stream.usable

    def watched(rows, *arguments):
        return usable((decoded.append(row["id"]) or row for row in rows), *arguments)

    monkeypatch.setattr(speech_stream, "usable", watched)
    again = open_stream(recipe)
    again.go_on_from(tmp_path)
    next(iter(again))
    assert decoded[0] == source_ids(recipe)[6]


def test_a_run_that_breaks_off_ends_bit_for_bit_the_same(streamed):
    def weights(run):
        return load_file(run.model / "model.safetensors")

    recipe, whole = streamed("whole", "max_steps = 9\ngradient_accumulation_steps = 2")
    train(recipe, whole)
    recipe, broken = streamed("broken", "max_steps = 9\ngradient_accumulation_steps = 2")

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
    seen = set(clips(first(stream, 6)))
    assert seen == set(source_ids(recipe)) - set(held_out["id"][:])
    for drops in stream.report.dropped.values():
        assert set(drops) == {"same sound as a clip of test"}


def test_a_source_of_which_nothing_is_left_ends_training_with_a_reason(streamed, open_stream):
    recipe, _ = streamed()
    rules = dataclasses.replace(recipe.preprocessing, min_seconds=29.0)
    recipe = dataclasses.replace(recipe, preprocessing=rules)
    with pytest.raises(PreprocessingError, match="shorter than 29 s"):
        next(iter(open_stream(recipe)))


def test_joined_clips_are_streamed_too(streamed, open_stream):
    recipe, _ = streamed()
    recipe = dataclasses.replace(recipe, windows=Windows(seconds=30.0))
    stream = open_stream(recipe)
    stream.collate = list
    window = next(iter(stream))[0]
    assert len(window["cut_samples"]) > 1
    assert len(window["audio"]) == round(window["seconds"] * SAMPLING_RATE)


def test_two_processes_share_the_clips_of_one_source(streamed, open_stream):
    recipe, _ = streamed()
    recipe = dataclasses.replace(recipe, sources=recipe.sources[:1])
    parts = [
        set(clips(first(open_stream(recipe, processes=2, process=number), 2))) for number in (0, 1)
    ]
    assert parts[0] | parts[1] == set(source_ids(recipe))
    assert not parts[0] & parts[1]


def test_a_checkpoint_of_other_processes_is_refused(streamed, open_stream, tmp_path):
    recipe, _ = streamed()
    stream = open_stream(recipe)
    next(iter(stream))
    stream.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="stream-0-of-2"):
        open_stream(recipe, processes=2).go_on_from(tmp_path)


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
