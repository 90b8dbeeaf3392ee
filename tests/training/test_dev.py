from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file

from utils.artifacts import open_run
from utils.config import RecipeError, load_recipe
from utils.training.dev import FILE, Selection, count_dev_errors, dev_metric, dev_slice
from utils.training.progress import training_report
from utils.training.run import build_trainer, train
from utils.training.trainer import WhisperTrainer


def errors(*wrong):
    """Errors of ten words a clip."""
    return np.array([[n, 10] for n in wrong])


BEST = errors(*[1] * 40)
LUCK = errors(*[2] * 3, *[1] * 37)  # three more errors in forty clips
WORSE = errors(*[2] * 30, *[1] * 10)


def selection(*evaluations, best=False):
    found = Selection(best)
    for number, one in enumerate(evaluations, 1):
        found.add(one, number)
    return found


def test_the_last_is_kept_though_luck_gave_another_fewer_errors():
    assert selection().verdict() == "no checkpoint was evaluated on dev"
    best = selection(WORSE, BEST, best=True).verdict()
    assert best == "errors on dev: 40 at the last evaluation, the fewest of all: the last is kept"
    found = selection(BEST, LUCK)
    assert not found.prefers_best()
    said = found.verdict()
    assert said.startswith("errors on dev: 43 at the last evaluation, 40 at the best one, p = 0.2")
    assert said.endswith("against 0.05: the last is kept")


@pytest.mark.parametrize("before", [(BEST,), (WORSE, BEST), (BEST, LUCK)])
def test_a_last_one_that_dev_shows_to_be_worse_is_not_kept(before):
    found = selection(*before, WORSE)
    assert found.prefers_best()
    assert found.fewest_step == [one is BEST for one in before].index(True) + 1
    assert found.verdict().endswith("the best is kept")


def test_the_best_of_many_is_lucky_many_times_over():
    eight_more = errors(*[2] * 8, *[1] * 32)  # p = 1/128 by itself
    assert selection(BEST, eight_more).prefers_best()
    assert not selection(*[BEST] * 8, eight_more).prefers_best()


def test_with_patience_the_best_is_kept_whatever_luck_says():
    found = selection(WORSE, BEST, LUCK, best=True)
    assert found.prefers_best() and found.fewest_step == 2
    assert found.verdict().endswith("with patience the best is kept")


@pytest.mark.parametrize("best", [True, False])
def test_where_no_checkpoint_is_gone_back_to_the_last_is_kept_and_the_verdict_says_so(best):
    found = Selection(best, loads=False)
    for step, one in enumerate((BEST, WORSE)):
        found.add(one, step)
    assert not found.prefers_best()
    assert found.verdict().endswith("without load_best_model_at_end the last is kept")


def test_one_clip_decides_nothing():
    assert not selection(errors(0), errors(9)).prefers_best()


@pytest.mark.parametrize("before", [(), (WORSE, BEST, LUCK)])
def test_a_resumed_run_compares_with_what_the_first_part_saw(tmp_path, before):
    found = selection(*before)
    found.save(tmp_path)
    again = Selection()
    again.load(tmp_path)
    for one in (found, again):
        one.add(WORSE, 9)
    assert again.verdict() == found.verdict()
    assert again.prefers_best() == bool(before)


@pytest.mark.parametrize("text", [None, "null", "[[[1, 10]], [[1, 10]]]"])
def test_a_checkpoint_from_before_the_file_had_its_form_starts_anew(tmp_path, text):
    if text:
        (tmp_path / FILE).write_text(text)
    found = Selection()
    found.load(tmp_path)
    assert not found.prefers_best()


def dev_tells(monkeypatch, *told):
    """Let the evaluations of a training find these errors, one after the other."""
    given = iter(told)
    monkeypatch.setattr(
        "utils.training.trainer.count_dev_errors",
        lambda model, processor, rows, *_: dict.fromkeys(("wer", "cer"), next(given)),
    )
    # As many dev clips as the counts above have.
    monkeypatch.setattr("utils.training.run.dev_slice", lambda dev, _: dev.select([0] * 40))


def assert_saved(run, step):
    trained = run.adapter / "adapter_model.safetensors"
    trained = trained if trained.exists() else run.model / "model.safetensors"
    saved = load_file(trained)
    checkpoint = load_file(run.checkpoints / f"checkpoint-{step}" / trained.name)
    assert all(torch.equal(weight, saved[name]) for name, weight in checkpoint.items())


@pytest.mark.parametrize(
    ("told", "method", "kept"),
    [
        ((WORSE, BEST, LUCK), "", 6),
        ((WORSE, BEST, WORSE), "", 4),
        ((WORSE, BEST, LUCK, WORSE), "patience = 2", 4),
        ((BEST, WORSE, WORSE), 'weights = "lora"\nrank = 2', 2),
    ],
)
def test_training_keeps_the_checkpoint_that_dev_chose(tiny_run, monkeypatch, told, method, kept):
    dev_tells(monkeypatch, *told)
    recipe, run = tiny_run(
        training=f"max_steps = {2 * len(told)}\nsave_total_limit = 2\nlearning_rate = 1e-3",
        tables=f"[method]\n{method}",
    )
    trainer = train(recipe, run)
    assert trainer.kept_step() == kept
    assert training_report(trainer, run, 1.0)["best_step"] == kept
    assert_saved(run, kept)


def test_checkpoints_of_the_best_alone_are_written_and_compared(tiny_run, monkeypatch):
    dev_tells(monkeypatch, WORSE, BEST, WORSE)
    table = 'max_steps = 6\nsave_strategy = "best"\nlearning_rate = 1e-3'
    recipe, run = tiny_run(training=table)
    assert train(recipe, run).kept_step() == 4
    assert {path.name for path in run.checkpoints.iterdir()} == {"checkpoint-2", "checkpoint-4"}
    assert_saved(run, 4)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_run_that_has_ended_keeps_the_same_one_again_also_where_it_was_moved(
    tiny_run, monkeypatch, tmp_path, limit
):
    dev_tells(monkeypatch, BEST, WORSE, WORSE)
    table = f"max_steps = 6\nsave_total_limit = {limit}\nlearning_rate = 1e-3"
    recipe, run = tiny_run(training=table)
    train(recipe, run)
    assert_saved(run, 2)
    run.folder.parent.rename(tmp_path / "moved")
    run = open_run(recipe, tmp_path / "moved")
    monkeypatch.setattr(WhisperTrainer, "training_step", lambda *_: pytest.fail("a step more"))
    assert train(recipe, run).kept_step() == 2
    assert_saved(run, 2)


def test_in_a_language_without_spaces_characters_decide(base, tmp_path):
    """Each text has a wrong character in it: by words all are wrong from the start to the end."""
    random = np.random.default_rng(0)
    texts = ["".join(map(chr, 0x4E00 + random.integers(0, 3000, 20))) for _ in range(40)]
    rows = Dataset.from_dict(
        {"text": texts, "language": ["zh"] * 40, "audio": [[n] for n in range(40)]}
    )
    recipe = load_recipe("recipes/smoke.toml")
    (source, *_) = recipe.sources
    recipe = replace(recipe, sources=(replace(source, language="zh"),))
    assert dev_metric(recipe) == "cer"
    kept = selection()
    for wrong, step in ((1, 1), (10, 2)):
        hypotheses = [text[:-wrong] + "的" * wrong for text in texts]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("utils.training.dev.transcribe", lambda *_, h=hypotheses, **__: h)
            counts = count_dev_errors(*base, rows, recipe, None)
            patch.setattr("utils.whisper.hypotheses.transcribe", lambda *_, h=hypotheses, **__: h)
            patch.setenv("WHISPER_CACHE", str(tmp_path / str(step)))
            kept_counts = count_dev_errors(*base, rows, recipe, None, unmodified=True)
        assert all((kept_counts[name] == counts[name]).all() for name in counts)
        assert list(counts) == ["cer", "wer"]
        assert counts["wer"][:, 0].sum() == 40
        kept.add(counts["cer"], step)
    assert kept.prefers_best() and kept.fewest_step == 1


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
