"""Training that is killed, stopped, starved of disk or moved ends as if nothing had happened.

Everything is real but the model's size: processes that die, signals, a file system that is full.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import DatasetDict, load_from_disk
from safetensors.torch import load_file

from tests.conftest import ROOT
from utils.artifacts import RunMismatch, open_run, save_report
from utils.config import load_recipe
from utils.environment import colab
from utils.environment.whole import DiskFull
from utils.preprocessing.collator import SpeechCollator
from utils.training import __main__ as command
from utils.training import checkpoints, trainer
from utils.training.checkpoints import find_valid_checkpoint
from utils.training.progress import read_metrics, training_report
from utils.training.run import Stopped, train
from utils.training.trainer import WhisperTrainer

# Imports once, so that a process to be killed costs no more than its training.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["utils.training.run"])


def die_at(step, fault, path, runs):
    """Train in this process, which is told to die by `fault` at a step."""
    os.chdir(ROOT)
    torch.set_num_threads(1)

    def watch(rows, _):
        if rows[-1]["step"] == step and fault == "training":
            os.kill(os.getpid(), signal.SIGKILL)
        if rows[-1]["step"] == step and fault == "asked":
            os.kill(os.getpid(), signal.SIGTERM)

    def kill_before_the_marker(folder):
        if folder.name == f"checkpoint-{step}":
            os.kill(os.getpid(), signal.SIGKILL)
        mark(folder)

    if fault == "saving":
        mark, checkpoints.mark_complete = checkpoints.mark_complete, kill_before_the_marker
    recipe = load_recipe(path)
    try:
        train(recipe, open_run(recipe, runs), watch)
    except Stopped:
        sys.exit(128 + signal.SIGTERM)


def weights(run):
    return load_file(run.model / "model.safetensors")


def assert_same_weights(run, expected):
    found = weights(run)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight, expected[name]), name


@pytest.fixture(autouse=True)
def one_thread():
    """Sums come out the same to the last bit only where the same number of threads add them up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


WHOLE = {}


@pytest.fixture
def whole(tiny_run):
    """The weights of the run that nothing interrupts; trained once, for it is always the same."""
    if not WHOLE:
        recipe, run = tiny_run("whole")
        train(recipe, run)
        WHOLE.update(weights(run))
    return WHOLE


@pytest.mark.parametrize(
    ("step", "fault", "code", "goes_on_after"),
    [
        (1, "training", -signal.SIGKILL, 0),  # nothing is saved yet
        (3, "training", -signal.SIGKILL, 2),  # in the first pass over the data, which has 3 steps
        (5, "training", -signal.SIGKILL, 4),  # in the second
        (6, "saving", -signal.SIGKILL, 4),  # while the newest checkpoint is being written
        (4, "asked", 128 + signal.SIGTERM, 5),  # SIGTERM: the step that runs is the last, and saved
    ],
)
@pytest.mark.fault(1, 2)
def test_a_process_that_dies_loses_little_reads_nothing_twice_and_ends_bit_for_bit_the_same(
    tiny_run, whole, monkeypatch, step, fault, code, goes_on_after
):
    recipe, run = tiny_run("killed")
    child = PROCESSES.Process(target=die_at, args=(step, fault, recipe.path, run.folder.parent))
    child.start()
    child.join()
    assert child.exitcode == code
    found = find_valid_checkpoint(run.checkpoints)
    assert (int(found.name.split("-")[1]) if found else 0) == goes_on_after

    batches, collate = [], SpeechCollator.with_samples

    def counted(self, rows):
        batches.append([row["id"] for row in rows])
        return collate(self, rows)

    monkeypatch.setattr(SpeechCollator, "with_samples", counted)
    steps = []
    trainer = train(recipe, run, lambda rows, _: steps.append(rows[-1]["step"]))
    assert min(steps) == goes_on_after + 1
    assert trainer.state.global_step == 8
    # accelerate reads one batch ahead.
    assert 8 - goes_on_after <= len(batches) <= 8 - goes_on_after + 1
    logged = [row["step"] for row in read_metrics(run.metrics) if "loss" in row]
    assert logged == list(range(1, 9)), "a step is missing in the log, or there twice"
    assert_same_weights(run, whole)


@pytest.mark.fault(2)
def test_sigterm_ends_the_command_with_the_code_of_the_signal(tiny_run, monkeypatch, capsys):
    recipe, run = tiny_run("asked", training="eval_steps = 8\nsave_steps = 8")
    monkeypatch.setattr(
        "utils.training.progress.progress_line", lambda rows, _: os.kill(os.getpid(), 15) or ""
    )
    assert command.main([str(recipe.path), "--runs", str(run.folder.parent)]) == 143
    assert "SIGTERM came: step 2 is saved" in capsys.readouterr().err
    assert find_valid_checkpoint(run.checkpoints).name == "checkpoint-2"
    assert not run.model.exists(), "half-trained weights were saved as the result"


def stop_at(step):
    def watch(rows, _):
        if rows[-1]["step"] == step:
            raise KeyboardInterrupt

    return watch


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB, which holds one checkpoint of the tiny model and not two."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.fault(5)
def test_a_full_disk_keeps_the_last_checkpoint_says_how_much_is_missing_and_goes_on_later(
    tiny_run, whole, small_disk, monkeypatch, announced
):
    recipe, run = tiny_run("full")
    run.checkpoints.symlink_to(small_disk)
    with monkeypatch.context() as patch:
        if not announced:  # another process takes the space while the checkpoint is written
            patch.setattr(trainer, "stored_bytes", lambda *_: 0)
        with pytest.raises(DiskFull) as full:
            train(recipe, run)
    kept = run.checkpoints / "checkpoint-2"
    for part in ("checkpoint-4 does not fit", "bytes are needed", "are free", f"{kept} is whole"):
        assert part in str(full.value)
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-2"]
    assert find_valid_checkpoint(run.checkpoints) == kept
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    train(recipe, run)
    assert_same_weights(run, whole)


@pytest.mark.parametrize(
    ("schedule", "method"),
    [("constant", ""), ("linear", "[method]\npatience = 1\n")],
    ids=["to the last step", "until dev falls no more"],
)
def test_a_run_that_has_ended_and_is_called_again_takes_no_step(
    tiny_run, monkeypatch, schedule, method
):
    training = f'max_steps = 8\nlr_scheduler_type = "{schedule}"'
    recipe, run = tiny_run("ended", training=training, tables=method)
    steps = train(recipe, run).state.global_step
    expected = weights(run)
    monkeypatch.setattr(WhisperTrainer, "training_step", lambda *_: pytest.fail("a step more"))
    assert train(recipe, run).state.global_step == steps
    assert_same_weights(run, expected)


def test_a_training_that_logged_no_loss_is_reported_all_the_same(tiny_run):
    recipe, run = tiny_run("brief", training="max_steps = 2\nlogging_steps = 100")
    report = training_report(train(recipe, run), run, 1.0)
    assert (report["steps"], report["loss_first"], report["loss_last"]) == (2, None, None)


def test_checkpoints_of_other_clips_are_not_gone_on_from(tiny_run):
    recipe, run = tiny_run("grows")
    train(recipe, run)
    splits = load_from_disk(str(run.prepared))
    fewer = DatasetDict(train=splits["train"].select(range(5)), dev=splits["dev"])
    fewer.save_to_disk(str(run.folder / "fewer"))
    shutil.rmtree(run.prepared)
    (run.folder / "fewer").rename(run.prepared)
    save_report(run, "preprocessing", {})
    with pytest.raises(RunMismatch, match="recordings added, changed or removed"):
        train(recipe, run)


def test_in_colab_a_lost_runtime_goes_on_from_the_copies_in_drive(
    tiny_run, whole, tmp_path, monkeypatch
):
    drive, disk = tmp_path / "drive", tmp_path / "disk"
    (drive / "MyDrive").mkdir(parents=True)
    monkeypatch.setattr(colab, "in_colab", lambda: True)
    monkeypatch.setattr(colab, "DRIVE", drive)
    monkeypatch.setattr(colab, "COLAB_DISK", disk)
    recipe, run = tiny_run("colab", training="save_total_limit = 2", runs=drive / "MyDrive/runs")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, stop_at(5))
    local = colab.quick_disk(run.checkpoints)
    assert disk in local.parents
    assert find_valid_checkpoint(local).name == "checkpoint-4"
    names = {path.name for path in run.checkpoints.iterdir()}
    assert names == {path.name for path in local.iterdir()} == {"checkpoint-2", "checkpoint-4"}
    shutil.rmtree(disk)  # the runtime is gone
    steps = []
    train(recipe, run, lambda rows, _: steps.append(rows[-1]["step"]))
    assert min(steps) == 5
    assert_same_weights(run, whole)


@pytest.mark.fault(6)
def test_batches_that_other_processes_make_are_the_same(tiny_run, whole):
    recipe, run = tiny_run("workers", training="dataloader_num_workers = 2")
    assert train(recipe, run).args.dataloader_persistent_workers
    assert_same_weights(run, whole)


def test_patience_that_ends_training_is_not_forgotten_when_it_resumes(tiny_run, monkeypatch):
    # The dev WER never falls below the first one: with patience 2 the third evaluation is the last.
    same = np.array([[1, 1]] * 2)
    monkeypatch.setattr(trainer, "count_dev_errors", lambda *_: {"wer": same, "cer": same})
    recipe, run = tiny_run("patient", tables="[method]\npatience = 2")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, stop_at(5))
    assert train(recipe, run).state.global_step == 6


@pytest.mark.parametrize(
    "table",
    [
        "label_smoothing_factor = 0.1",
        "activation_checkpointing = true",
        'lr_scheduler_type = "cosine"\ngradient_accumulation_steps = 2',
    ],
)
def test_a_setting_of_the_training_table_trains_and_resumes_bit_for_bit(tiny_run, table):
    runs = []
    for name, interrupted in (("once", False), ("twice", True)):
        recipe, run = tiny_run(name, training=f"max_steps = 4\nlearning_rate = 1e-2\n{table}")
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                train(recipe, run, stop_at(3))
        train(recipe, run)
        runs.append(run)
    losses = [row["loss"] for row in read_metrics(runs[0].metrics) if "loss" in row]
    assert losses[-1] < losses[0]
    assert_same_weights(runs[0], weights(runs[1]))
