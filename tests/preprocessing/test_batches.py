from itertools import chain

import numpy as np
import pytest

from utils.preprocessing.batches import EqualSpeechBatches, Passes


def test_batches_hold_like_lengths_and_equal_speech_in_mixed_order_and_every_row_once():
    random = np.random.default_rng(0)
    seconds = random.uniform(0.5, 10, 203)
    batches = EqualSpeechBatches(seconds, clips=4, seed=1)
    drawn = list(batches.rows())
    assert sorted(row for batch in drawn for row in batch) == list(range(203))
    assert len(drawn) == len(batches) == 51
    assert np.mean([np.ptp(seconds[batch]) for batch in drawn]) < 0.5
    batches.set_epoch(1)
    again = {tuple(sorted(batch)) for batch in batches.rows()}
    assert len(again & {tuple(sorted(batch)) for batch in drawn}) < 15, "batches come back"
    speech = [seconds[batch].sum() for batch in drawn[:-1]]
    assert np.std(speech) / np.mean(speech) < 0.25
    assert max(map(len, drawn)) >= 10, "short clips come in larger batches"
    means = [seconds[batch].mean() for batch in drawn]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5, "batches are sorted by length"


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 801])
@pytest.mark.parametrize("clips", [1, 2, 8])
def test_one_endless_clip_among_short_ones_leaves_no_batch_empty(rows, clips):
    batches = EqualSpeechBatches([0.3] * (rows - 1) + [30.0], clips, seed=1)
    drawn = list(batches.rows())
    assert len(drawn) == len(batches)
    assert all(drawn)
    assert sorted(row for batch in drawn for row in batch) == list(range(rows))


def test_the_order_follows_from_seed_and_epoch_alone():
    seconds = [1.0, 2.0, 3.0, 4.0] * 5
    batches = EqualSpeechBatches(seconds, 2, seed=1)
    first = list(batches.rows())
    assert list(batches.rows()) == first
    batches.set_epoch(1)
    second = list(batches.rows())
    assert second != first
    other = EqualSpeechBatches(seconds, 2, seed=1)
    other.set_epoch(1)
    assert list(other.rows()) == second


def test_the_rows_of_a_batch_say_in_which_pass_they_are(rows):
    passes = Passes(rows)
    for epoch in (0, 2):
        batches = EqualSpeechBatches(rows["seconds"][:], 3, seed=1)
        batches.set_epoch(epoch)
        for places, numbers in zip(batches, batches.rows(), strict=True):
            found = passes.__getitems__(places)
            assert [(int(row["id"]), row["epoch"]) for row in found] == [
                (number, epoch) for number in numbers
            ]
    assert passes.__getitems__([]) == []


@pytest.mark.parametrize("epoch", [0, 3])
def test_each_update_has_the_same_clips_whatever_a_card_holds_at_once(epoch):
    seconds = np.random.default_rng(0).lognormal(1, 0.8, 1003).clip(0.3, 30)
    found = {}
    for clips, accumulation, processes in [(16, 1, 1), (8, 2, 1), (4, 4, 1), (1, 16, 1), (4, 2, 2)]:
        each = []
        for process in range(processes):
            batches = EqualSpeechBatches(seconds, 16, 42, accumulation, processes, process)
            batches.set_epoch(epoch)
            drawn = list(batches.rows())
            assert len(drawn) == len(batches)
            assert max(map(len, drawn)) < 6 * clips
            each.append(np.array(drawn, dtype=object).reshape(-1, accumulation))
        updates = [sorted(chain(*parts.flatten())) for parts in np.stack(each, 1)]
        found[clips, processes] = updates
    expected = found[16, 1]
    assert len(expected) == 63 and sorted(chain(*expected)) == list(range(1003))
    assert all(updates == expected for updates in found.values())
