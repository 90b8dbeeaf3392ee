import copy
import dataclasses
import re
import shutil
import socket

import numpy as np
import pytest
import torch
from datasets import DatasetDict, load_from_disk
from transformers import TrainerCallback, WhisperForConditionalGeneration
from transformers.integrations import TensorBoardCallback
from transformers.trainer_pt_utils import LabelSmoother

from tests.conftest import write_recipe
from tests.examples import uneven
from utils.artifacts import MissingArtifact, open_run, save_report
from utils.config import load_recipe
from utils.preprocessing.collator import SpeechCollator
from utils.preprocessing.examples import waveform
from utils.preprocessing.prepare import prepare
from utils.training import __main__ as command
from utils.training.arguments import training_arguments
from utils.training.progress import read_metrics
from utils.training.run import build_trainer, resume, train
from utils.training.stopping import TrainingError
from utils.training.trainer import WhisperTrainer, loss_per_token
from utils.whisper.decoding import transcribe
from utils.whisper.load import load_checkpoint, load_model


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(write_recipe(tmp_path / "short.toml"))


def tiny_trainer(tiny_model, base, recipe, rows, tmp_path, **changes):
    """The real trainer around a tiny model, one step of SGD, so that gradients are comparable."""
    run = open_run(recipe, tmp_path / "runs")
    table = {**recipe.training, "max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0}
    table |= {"logging_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
    table |= {"load_best_model_at_end": False, "warmup_steps": 0, **changes}
    arguments = training_arguments(dataclasses.replace(recipe, training=table), run)
    return WhisperTrainer(
        recipe=recipe,
        model=tiny_model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=SpeechCollator(base[1], recipe.audio_context),
        processing_class=base[1],
    )


@pytest.mark.fault(7)
def test_the_gradient_is_that_of_the_update_however_it_is_divided(
    base, recipe, rows, tmp_path, tiny_model, monkeypatch
):
    """Labels of 3 to 17 tokens; short windows, alike for all, since padding makes other inputs."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # in 32 bits
    context = dataclasses.replace(recipe.audio_context, tail_seconds=0.0, step_seconds=2.0)
    recipe = dataclasses.replace(recipe, audio_context=context)
    rows = uneven(rows)
    state = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    results = {}
    for batch_size, accumulation in ((8, 1), (4, 2), (2, 4), (1, 8)):
        tiny_model.load_state_dict(state)
        trainer = tiny_trainer(
            *(tiny_model, base, recipe, rows, tmp_path),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            label_smoothing_factor=0.1,
        )
        gradients = {}

        class Watch(TrainerCallback):
            def on_pre_optimizer_step(self, *_, seen=gradients, **__):
                seen |= {
                    n: w.grad.clone() for n, w in tiny_model.named_parameters() if w.requires_grad
                }

        trainer.add_callback(Watch())
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        results[batch_size] = (losses, gradients)
    (loss, expected), *others = results.values()
    for other_loss, gradients in others:
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-7), name


def test_the_loss_is_the_models_own_per_token_and_counts_all_tokens_of_an_update():
    random = torch.Generator().manual_seed(0)
    outputs = {"logits": torch.randn(2, 5, 11, generator=random)}
    labels = torch.tensor([[1, 2, 3, -100, -100], [4, 5, 6, 7, 8]])
    flat = outputs["logits"].flatten(0, 1), labels.flatten()
    for smoothing in (0.0, 0.1):
        mean = torch.nn.functional.cross_entropy(*flat, label_smoothing=smoothing)
        assert torch.allclose(loss_per_token(outputs, labels, smoothing=smoothing), mean)
        of_update = loss_per_token(outputs, labels, torch.tensor(16), smoothing)
        assert torch.allclose(of_update, mean / 2)
    smoothed = LabelSmoother(0.1)(outputs, labels.clone())
    assert torch.allclose(loss_per_token(outputs, labels, smoothing=0.1), smoothed)


def test_weights_are_float32_though_the_file_holds_float16(base):
    assert {parameter.dtype for parameter in base[0].parameters()} == {torch.float32}


@pytest.mark.fault(8)
def test_a_loss_that_is_no_number_stops_the_run_names_the_step_and_spares_the_weights(
    base, recipe, rows, tmp_path, tiny_model
):
    trainer = tiny_trainer(tiny_model, base, recipe, rows, tmp_path, max_steps=5)
    seen = []

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            seen.append({k: v.clone() for k, v in tiny_model.state_dict().items()})
            if state.global_step == 2:
                trainer.data_collator.processor = BrokenProcessor(base[1])

    trainer.add_callback(Poison())
    with pytest.raises(TrainingError, match="no finite number at step 3"):
        trainer.train()
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(value, seen[-1][name]), name


def test_such_a_loss_is_seen_though_the_host_did_not_look_and_nothing_was_saved_after_it(
    tiny_run, base, monkeypatch
):
    table = 'max_steps = 2\nsave_strategy = "no"\neval_strategy = "no"\n'
    table += "load_best_model_at_end = false"
    trainer = build_trainer(*tiny_run(training=table))
    monkeypatch.setattr("utils.training.trainer.host_looks", lambda *_: False)  # as on a GPU
    trainer.data_collator.processor = BrokenProcessor(base[1])
    with pytest.raises(TrainingError, match="no finite number at step 1"):
        resume(trainer)


class BrokenProcessor:
    """Gives features that are no numbers, as a broken clip would."""

    def __init__(self, processor):
        self.tokenizer = processor.tokenizer
        self.feature_extractor = copy.copy(processor.feature_extractor)
        self.feature_extractor.mel_filters = processor.feature_extractor.mel_filters * np.nan


def test_the_trainer_draws_other_batches_in_every_epoch(base, recipe, rows, tmp_path, tiny_model):
    trainer = tiny_trainer(
        *(tiny_model, base, recipe, rows, tmp_path), per_device_train_batch_size=2, max_steps=8
    )
    drawn = []
    collate = trainer.data_collator.with_samples
    trainer.data_collator.with_samples = lambda batch: (
        drawn.append([r["id"] for r in batch]) or collate(batch)
    )
    trainer.train()
    assert len(drawn) >= 8
    assert drawn[:4] != drawn[4:8]
    for epoch in (drawn[:4], drawn[4:8]):
        assert sorted(row for batch in epoch for row in batch) == [str(n) for n in range(8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_drawn_for_a_clip_differs_in_every_epoch_also_one_at_a_time(tiny_run, workers):
    table = f"per_device_train_batch_size = 1\ndataloader_num_workers = {workers}"
    how = "[augmentation]\nspeed = 0.1\nnoise = 0.5\nnon_speech = 0.3"
    drawn = []
    for name in ("once", "again"):
        loader = build_trainer(*tiny_run(name, table, how)).get_train_dataloader()
        for epoch in range(3):
            loader.batch_sampler.set_epoch(epoch)
            batches = [batch["samples"] for batch in loader]
            drawn.append(sorted(float(one.abs().mean()) for one in batches))
    assert drawn[:3] == drawn[3:], "a resumed run would draw otherwise"
    assert not set(drawn[0]) & set(drawn[1]) & set(drawn[2])


@pytest.mark.parametrize(
    ("tables", "positions"),
    [
        ("", {100, 125}),
        ("[windows]\nseconds = 30", {1500}),
        ("[windows]\ntimestamps = 1", {100, 125}),
    ],
)
def test_dev_is_decoded_in_a_window_that_was_trained(tiny_run, tables, positions):
    trainer, seen = build_trainer(*tiny_run(tables=tables)), set()
    trainer.model.get_encoder().register_forward_hook(
        lambda module, inputs, output: seen.add(output.last_hidden_state.shape[1])
    )
    trainer.evaluate()
    assert seen and seen <= positions


def test_training_without_prepared_data_names_the_lesson(recipe, tmp_path):
    with pytest.raises(MissingArtifact, match=r"03_preprocessing\.ipynb first"):
        build_trainer(recipe, open_run(recipe, tmp_path / "runs"))


@pytest.mark.parametrize(
    ("name", "said"),
    [("short.toml", r"03_preprocessing\.ipynb"), ("absent.toml", r"absent\.toml is not there")],
)
def test_the_command_that_cannot_train_says_so_in_one_sentence(
    recipe, tmp_path, capsys, name, said
):
    assert command.main([str(tmp_path / name), "--runs", str(tmp_path / "runs")]) == 1
    assert re.search(said, capsys.readouterr().err)


def test_no_secret_and_no_pickle_setting_reaches_the_arguments(recipe, tmp_path):
    arguments = training_arguments(recipe, open_run(recipe, tmp_path))
    assert arguments.hub_token is None
    assert arguments.push_to_hub is False
    assert arguments.logging_nan_inf_filter is False


STEPS = """max_steps = 2
per_device_train_batch_size = 2
learning_rate = 4e-5
logging_steps = 1
eval_steps = 2
save_steps = 2"""


def few_steps(tmp_path, name, checkpoint=None):
    """A recipe of the repository, cut down to six clips a source and two steps."""
    from tests.conftest import ROOT

    text = (ROOT / f"recipes/{name}.toml").read_text(encoding="utf-8")
    head = text[: text.index("[training]")].replace("[[sources]]", "[[sources]]\nmax_clips = 6")
    path = tmp_path / f"{name}.toml"
    path.write_text(head + "[training]\n" + STEPS + "\n", encoding="utf-8")
    return load_recipe(path)


def prepared_run(recipe, tmp_path):
    run = open_run(recipe, tmp_path / "runs")
    _, processor = load_model(recipe)
    prepare(recipe, processor.tokenizer, run.prepared)
    save_report(run, "preprocessing", {})
    return run


@pytest.mark.parametrize("name", ["embedded_multilingual", "embedded_new_language"])
def test_the_other_recipes_train_save_and_load(tmp_path, name):
    recipe = few_steps(tmp_path, name)
    run = prepared_run(recipe, tmp_path)
    prefixes = {
        tuple(labels[:4]) for labels in load_from_disk(str(run.prepared))["train"]["labels"]
    }
    trainer = train(recipe, run)
    assert trainer.state.global_step == 2
    losses = [row["loss"] for row in read_metrics(run.metrics) if "loss" in row]
    assert np.isfinite(losses).all()
    assert any("eval_wer" in row for row in read_metrics(run.metrics))
    model = WhisperForConditionalGeneration.from_pretrained(run.model)
    if name == "embedded_multilingual":
        # Each language under its own token, in one stream.
        assert {prefix[1] for prefix in prefixes} == {50259, 50262, 50265, 50274, 50263, 50271}
        assert getattr(model.generation_config, "language", None) is None
    else:
        assert model.config.vocab_size == 51864
        assert all(prefix[:2] == (50257, 50362) for prefix in prefixes)


@pytest.mark.parametrize(
    ("table", "first"),
    [
        ("", [220, 50257]),
        ("[augmentation]\nnon_speech = 1.0", [220]),
        ('[augmentation]\nnon_speech = 1.0\n[method]\nweights = "lora"', [220]),
    ],
    ids=["speech alone", "all weights", "lora"],
)
def test_a_model_that_is_trained_on_non_speech_may_return_nothing(tiny_run, rows, table, first):
    steps = 40 if table.endswith("1.0") else 2
    recipe, run = tiny_run(training=f"max_steps = {steps}\nlearning_rate = 1e-2", tables=table)
    trainer = train(recipe, run)
    saved, processor = load_checkpoint(run.model)
    clips = [waveform(row) for row in rows]
    for model in (trainer.model, saved):
        assert model.generation_config.begin_suppress_tokens == first
        texts = transcribe(model, processor, clips, language="it", context=recipe.audio_context)
        assert steps == 2 or not any(texts)


def test_clips_in_which_nobody_speaks_are_non_speech_too(tiny_run, rows):
    recipe, run = tiny_run()
    silent = rows.with_format(None).map(lambda row: {"text": row["text"] * (row["id"] != "3")})
    shutil.rmtree(run.prepared)
    DatasetDict(train=silent, dev=rows).save_to_disk(str(run.prepared))
    save_report(run, "preprocessing", {})
    assert build_trainer(recipe, run).model.generation_config.begin_suppress_tokens == [220]


def test_epochs_and_shares_do_for_steps(tiny_run):
    shares = "\n".join(f"{key}_steps = 0.25" for key in ("logging", "eval", "save", "warmup"))
    recipe, run = tiny_run(training=f"max_steps = -1\nnum_train_epochs = 4\n{shares}")
    state = train(recipe, run).state
    assert state.global_step == state.max_steps == 12  # eight clips, three at a time
    rows, quarters = read_metrics(run.metrics), [3, 6, 9, 12]
    for key in ("loss", "eval_wer"):
        assert [row["step"] for row in rows if key in row] == quarters
    rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
    # Those of steps 2, 5, 8 and 11: up to 1e-3 in the first quarter, and down in the rest.
    assert rates == pytest.approx([1e-3 * n / 9 for n in (6, 7, 4, 1)])
    assert {int(path.name[11:]) for path in run.checkpoints.glob("checkpoint-*")} == set(quarters)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("max_steps = 3\nwarmup_steps = 500", "warmup_steps = 500, of 3 in all"),
        ("max_steps = -1\nnum_train_epochs = 1\nwarmup_steps = 3", "warmup_steps = 3, of 3 in all"),
        ("max_steps = 3\nwarmup_steps = 2", ""),
        ("max_steps = 1\nwarmup_steps = 0.1", ""),
        ('max_steps = 3\nwarmup_steps = 500\nlr_scheduler_type = "constant"', ""),
    ],
)
def test_a_warm_up_that_leaves_no_step_for_the_rest_is_told(tiny_run, caplog, table, said):
    plain = '\nload_best_model_at_end = false\neval_strategy = "no"\nsave_strategy = "no"'
    trainer = build_trainer(*tiny_run(training=table + plain))
    trainer.train()
    assert (said in caplog.text) if said else ("warmup" not in caplog.text)


def test_each_run_adds_up_alike_and_tensorboard_has_its_curves(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe, run = tiny_run()
    sums = set()
    train(recipe, run, lambda *_: sums.add(torch.are_deterministic_algorithms_enabled()))
    assert sums == {True}, "on a CPU threads add up in the order in which they come"
    assert not torch.are_deterministic_algorithms_enabled(), "left on for what comes after"
    board = EventAccumulator(str(run.tensorboard)).Reload()
    assert {"train/loss", "train/learning_rate", "eval/wer"} <= set(board.Tags()["scalars"])
    told = [row["loss"] for row in read_metrics(run.metrics) if "loss" in row]
    assert [one.value for one in board.Scalars("train/loss")] == pytest.approx(told, rel=1e-4)
    assert not [path for path in run.folder.rglob("*") if socket.gethostname() in path.name]
    recipe, run = tiny_run("asked", 'report_to = ["tensorboard"]')
    callbacks = build_trainer(recipe, run).callback_handler.callbacks
    (one,) = [one for one in callbacks if isinstance(one, TensorBoardCallback)]
    assert one.logging_dir == str(run.tensorboard), "its own name would tell the machine's"
    recipe, run = tiny_run("silent", 'report_to = "none"')
    handler = build_trainer(recipe, run).callback_handler
    assert "Curves" not in handler.callback_list
