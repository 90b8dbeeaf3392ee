import numpy as np
import pytest
import torch

from utils.preprocessing.batches import EqualSpeechBatches
from utils.training import dev
from utils.training.memory import (
    Shape,
    effective_batch,
    fits,
    halving,
    largest_batch,
    largest_shapes,
    smaller_batches,
    with_batch,
)
from utils.training.progress import read_metrics
from utils.training.run import build_trainer, train
from utils.training.trainer import WhisperTrainer
from utils.whisper.audio_context import context_seconds


@pytest.fixture
def small_card(monkeypatch):
    """Return a function: training runs out of memory above so many clips; sizes tried are noted."""

    def limit(most):
        tried, compute_loss = [], WhisperTrainer.compute_loss

        def limited(self, model, inputs, *args, **kwargs):
            tried.append(len(inputs["labels"]))
            if tried[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return compute_loss(self, model, inputs, *args, **kwargs)

        monkeypatch.setattr(WhisperTrainer, "compute_loss", limited)
        return tried

    return limit


def test_smaller_batches_keep_the_effective_one():
    table = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 2}
    assert smaller_batches(table) == [8, 6, 4, 3, 2, 1]
    for clips in smaller_batches(table):
        assert effective_batch(with_batch(table, clips)) == 24
    assert smaller_batches({"per_device_train_batch_size": 1}) == []


def test_the_probe_finds_the_largest_batch_that_divides_the_effective_one(tiny_run, small_card):
    """Above the recipe's clips at once, too: two times four may be eight at once."""
    recipe, run = tiny_run(
        training="per_device_train_batch_size = 2\ngradient_accumulation_steps = 4"
    )
    trainer = build_trainer(recipe, run)
    rows = trainer.train_dataset
    assert largest_batch(trainer, rows, recipe) == 8
    assert largest_batch(trainer, rows, recipe, most=5) == 4
    small_card(3)
    assert largest_batch(trainer, rows, recipe) == 2
    assert all(weight.grad is None for weight in trainer.model.parameters())
    small_card(0)
    assert largest_batch(trainer, rows, recipe) == 0


@pytest.mark.parametrize("tables", ["", "speed = 0.1", "stock"])
def test_no_batch_of_a_training_is_larger_than_what_was_tried(tiny_run, tables):
    """Of other epochs, with their silent tails and at their slowest, too."""
    tables = {"stock": "[audio_context]\nstock_share = 0.2"}.get(
        tables, f"[augmentation]\n{tables}"
    )
    recipe, run = tiny_run(tables=tables)
    collator = build_trainer(recipe, run).data_collator
    random = np.random.default_rng(0)
    seconds = random.lognormal(1.2, 0.7, 3000).clip(0.3, 30)
    tokens = (5 + 4 * seconds).astype(int)
    shapes = largest_shapes(seconds, tokens, EqualSpeechBatches(seconds, 16, 42, 2), recipe)
    audio, decoder = (
        max(s.clips * s.frames for s in shapes),
        max(s.clips * s.tokens for s in shapes),
    )
    above = total = 0
    for epoch in range(30):
        batches = EqualSpeechBatches(seconds, 16, 42, 2)
        batches.set_epoch(epoch)
        for rows in filter(None, batches.rows()):
            key = np.random.default_rng([epoch, rows[0]])
            tail = key.uniform(0, collator.context.tail_seconds)
            length = seconds[rows].max() / (1 - collator.augmentation.speed * key.random())
            window = context_seconds(length, tail, collator.context)
            if key.random() < collator.context.stock_share:
                window = 30
            above += (
                len(rows) * window * 100 > audio * 1.1
                or len(rows) * tokens[rows].max() > decoder * 1.1
            )
            total += 1
    assert above == 0 and total > 5000


def test_the_probe_holds_what_training_holds(tiny_run, monkeypatch):
    recipe, run = tiny_run(training="activation_checkpointing = true")
    trainer = build_trainer(recipe, run)
    with_gradients, compute_loss = [], WhisperTrainer.compute_loss

    def watched(self, model, *args, **kwargs):
        assert model.is_activation_checkpointing
        with_gradients.append(any(weight.grad is not None for weight in model.parameters()))
        return compute_loss(self, model, *args, **kwargs)

    monkeypatch.setattr(WhisperTrainer, "compute_loss", watched)
    assert fits(trainer, [Shape(2, 200, 9), Shape(1, 300, 11)])
    assert with_gradients == [False, True, True, True]


@pytest.mark.parametrize("words", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED", "device mismatch"])
def test_only_a_full_card_is_answered_with_a_smaller_batch(words):
    def work(size):
        if size > 2:
            raise RuntimeError(words)
        return size

    if "ALLOC" in words:
        assert halving(work, 8) == 2
    else:
        with pytest.raises(RuntimeError, match=words):
            halving(work, 8)


@pytest.mark.fault(9)
def test_memory_that_runs_out_in_training_costs_a_smaller_batch_and_no_update(tiny_run, small_card):
    recipe, run = tiny_run(training="max_steps = 4\nper_device_train_batch_size = 8")
    tried = small_card(3)
    trainer = train(recipe, run)
    assert trainer.args.per_device_train_batch_size == 2
    assert trainer.args.gradient_accumulation_steps == 4
    assert trainer.state.global_step == 4
    assert sum(tried[-16:]) == 4 * 8, "an update saw another number of clips"
    assert [row["step"] for row in read_metrics(run.metrics) if "loss" in row] == [1, 2, 3, 4]


def test_memory_that_runs_out_in_evaluation_costs_a_smaller_batch_and_no_text(
    tiny_run, monkeypatch
):
    recipe, run = tiny_run(training="max_steps = 2")
    sizes = []

    def transcribe(*args, batch_size, **kwargs):
        sizes.append(batch_size)
        if batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return ["rumore"] * len(args[2])

    monkeypatch.setattr(dev, "transcribe", transcribe)
    train(recipe, run)
    assert sizes == [16, 8, 4]
    assert [row["eval_wer"] for row in read_metrics(run.metrics) if "eval_wer" in row] == [0.0]


def test_one_clip_that_does_not_fit_is_an_error_and_no_endless_loop():
    def work(_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        halving(work, 16)
