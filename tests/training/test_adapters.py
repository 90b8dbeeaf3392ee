import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperConfig, WhisperForConditionalGeneration

from benchmarks.variants import trained_share
from utils.config import RecipeError
from utils.environment.gpu import HardwareError
from utils.training.arguments import training_arguments
from utils.training.progress import read_metrics
from utils.training.run import build_trainer, train
from utils.whisper.load import load_model


def changed(recipe, run):
    """Return which parts of the saved model differ from the starting weights."""
    start = load_model(recipe)[0].state_dict()
    saved = WhisperForConditionalGeneration.from_pretrained(run.model).state_dict()
    assert saved.keys() == start.keys()
    return {
        ".".join(name.split(".")[1:2])
        for name, weight in saved.items()
        if not torch.equal(weight, start[name])
    }


@pytest.mark.parametrize(
    ("weights", "parts", "least", "most"),
    [
        ("full", {"encoder", "decoder", "weight"}, 0.9, 1.0),
        ("frozen_encoder", {"decoder", "weight"}, 0.5, 0.99),
        ("lora", {"encoder", "decoder"}, 0.001, 0.02),
        ("dora", {"encoder", "decoder"}, 0.001, 0.02),
    ],
)
def test_each_method_trains_its_weights_resumes_and_ends_as_an_ordinary_whisper(
    tiny_run, weights, parts, least, most
):
    recipe, run = tiny_run(
        training="max_steps = 4\nlearning_rate = 1e-2",
        tables=f'[method]\nweights = "{weights}"\nrank = 2',
    )
    assert least < trained_share(build_trainer(recipe, run).model) <= most
    trainer = train(recipe, run)
    assert changed(recipe, run) == parts
    losses = [row["loss"] for row in read_metrics(run.metrics) if "loss" in row]
    assert losses[-1] < losses[0]
    assert run.adapter.exists() == (weights in ("lora", "dora"))
    for name in ("adapter_config.json", "README.md") if run.adapter.exists() else ():
        told = (run.adapter / name).read_text(encoding="utf-8")
        assert "tiny" in told and str(run.folder.parent.parent) not in told, name
    assert WhisperConfig.from_pretrained(run.model).use_cache
    # What lesson 4 goes on with is what was saved.
    saved = load_file(run.model / "model.safetensors")
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, saved[name]), name


def test_an_adapted_model_writes_after_merging_what_it_wrote_before(tiny_run, base):
    recipe, run = tiny_run(
        training="max_steps = 2\nlearning_rate = 1e-2\nload_best_model_at_end = false",
        tables='[method]\nweights = "lora"\nrank = 2',
    )
    trainer = build_trainer(recipe, run)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    train(recipe, run)
    merged = WhisperForConditionalGeneration.from_pretrained(run.model)
    last = build_trainer(recipe, run)
    last._load_from_checkpoint(str(run.checkpoints / "checkpoint-2"))
    with torch.no_grad():
        trainer.model = merged
        by_merged = trainer.compute_loss(merged.eval(), dict(batch))
        by_adapter = last.compute_loss(last.model.eval(), dict(batch))
    assert torch.allclose(by_merged, by_adapter, atol=1e-4)


def test_accumulation_multiplies_nothing_through_the_adapter_either(tiny_run):
    losses = []
    for name, table in (
        ("one", "per_device_train_batch_size = 8"),
        ("many", "per_device_train_batch_size = 1\ngradient_accumulation_steps = 8"),
    ):
        recipe, run = tiny_run(
            name,
            training=f"max_steps = 1\neval_steps = 1\nsave_steps = 1\n{table}",
            tables='[method]\nweights = "lora"\n[audio_context]\nenabled = false',
        )
        train(recipe, run)
        losses.append(read_metrics(run.metrics)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ('weights = "lorra"', r'did you mean "lora"'),
        ("base_8bit = true", r'goes with weights = "lora" or "dora"'),
        ('weights = "lora"\nshard = true', 'shard goes with weights = "full" or "frozen_encoder"'),
    ],
)
def test_a_method_that_cannot_be_is_refused_by_name(tiny_run, tables, message):
    with pytest.raises(RecipeError, match=message):
        tiny_run(tables=f"[method]\n{tables}")


def test_a_sharded_optimizer_of_8_bits_is_refused(tiny_run):
    with pytest.raises(RecipeError, match="leave out one of shard and optim"):
        tiny_run(training='optim = "adamw_8bit"', tables="[method]\nshard = true")


def test_eight_bits_without_their_package_are_one_clear_sentence(tiny_run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    recipe, run = tiny_run(tables='[method]\nweights = "lora"\nbase_8bit = true')
    with pytest.raises(HardwareError, match=r"\[method\] base_8bit needs bitsandbytes"):
        build_trainer(recipe, run)
    recipe, run = tiny_run("optimizer", training='optim = "adamw_8bit"')
    with pytest.raises(HardwareError, match='optim = "adamw_8bit" needs bitsandbytes'):
        training_arguments(recipe, run)


def test_a_base_of_eight_bits_trains_and_is_merged_into_the_whole_one(tiny_run):
    recipe, run = tiny_run(
        training='max_steps = 2\nlearning_rate = 1e-2\noptim = "adamw_8bit"',
        tables='[method]\nweights = "lora"\nrank = 2\nbase_8bit = true',
    )
    held = {weight.dtype for weight in build_trainer(recipe, run).model.parameters()}
    assert torch.int8 in held
    train(recipe, run)
    assert changed(recipe, run) == {"encoder", "decoder"}
    saved = load_file(run.model / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
