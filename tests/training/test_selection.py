import numpy as np
import pytest
from datasets import Dataset, load_from_disk

from utils.config import RecipeError
from utils.training.dev import dev_slice
from utils.training.run import build_trainer, train
from utils.training.selection import FILE, Selection


def errors(*wrong):
    """Errors of ten words a clip."""
    return np.array([[n, 10] for n in wrong])


BEST = errors(*[1] * 40)
LUCK = errors(*[2] * 3, *[1] * 37)  # three more errors in forty clips
WORSE = errors(*[2] * 30, *[1] * 10)


def test_the_newest_is_kept_though_luck_gave_another_fewer_errors():
    selection = Selection()
    assert selection.verdict() == "dev was not read"
    assert selection.accepts(BEST)
    assert selection.accepts(LUCK)
    said = selection.verdict()
    assert said.startswith(
        "errors on dev: 43 in the newest evaluation, 40 in the best one, p = 0.2"
    )
    assert said.endswith("the newest is kept")


def test_one_that_dev_shows_to_be_worse_is_not_kept():
    selection = Selection()
    assert selection.accepts(BEST)
    assert not selection.accepts(WORSE)
    assert selection.verdict().endswith("the newest is not kept")


def test_small_losses_do_not_add_up_unseen():
    """Each is compared with the best and not with the one before."""
    selection = Selection()
    steps = [errors(*[2] * n, *[1] * (40 - n)) for n in range(0, 40, 4)]
    accepted = [selection.accepts(step) for step in steps]
    assert accepted[:2] == [True, True]
    assert accepted[-1] is False


def test_a_better_one_becomes_the_measure():
    selection = Selection()
    assert selection.accepts(WORSE)
    assert selection.accepts(BEST)
    assert not selection.accepts(WORSE)


def test_one_clip_decides_nothing():
    selection = Selection()
    assert selection.accepts(errors(0))
    assert selection.accepts(errors(9))


@pytest.mark.parametrize("before", [None, BEST])
def test_a_resumed_run_compares_with_what_the_first_part_saw(tmp_path, before):
    selection = Selection()
    if before is not None:
        selection.accepts(before)
    selection.save(tmp_path)
    again = Selection()
    again.load(tmp_path)
    assert again.verdict() == selection.verdict()
    assert again.accepts(WORSE) == (before is None)


def test_a_checkpoint_without_the_file_starts_anew(tmp_path):
    selection = Selection()
    selection.load(tmp_path)
    assert selection.fewest is None


def test_training_keeps_the_checkpoint_that_dev_chose(tiny_run, monkeypatch):
    """Of three evaluations the second is luckier than the third, and the first is worse."""
    told = iter([WORSE, BEST, LUCK])
    monkeypatch.setattr("utils.training.trainer.count_dev_errors", lambda *_: next(told))
    recipe, run = tiny_run(training="max_steps = 6\nsave_total_limit = 3")
    assert train(recipe, run).state.best_global_step == 6
    told = iter([WORSE, BEST, WORSE])
    recipe, run = tiny_run("other", training="max_steps = 6\nsave_total_limit = 3")
    assert train(recipe, run).state.best_global_step == 4
    assert (run.checkpoints / "checkpoint-6" / FILE).exists()


@pytest.mark.parametrize(("minutes", "ids"), [(30, range(10)), (0.5, [0, 2, 4, 6, 9]), (0.01, [0])])
def test_of_a_large_dev_split_the_same_clips_are_read_each_time(minutes, ids):
    dev = Dataset.from_dict({"id": list(range(10)), "seconds": [6.0] * 10})
    assert dev_slice(dev, minutes)["id"][:] == list(ids)


def test_a_run_reads_no_more_of_dev_than_its_recipe_says(tiny_run):
    recipe, run = tiny_run(tables="[evaluation]\ndev_minutes = 0.02")
    assert len(load_from_disk(str(run.prepared))["dev"]) == 2
    assert len(build_trainer(recipe, run).eval_dataset) == 1
    with pytest.raises(RecipeError, match="dev_minutes = 0 must be at least"):
        tiny_run("none", tables="[evaluation]\ndev_minutes = 0")
