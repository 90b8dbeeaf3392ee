"""Several processes train as one: torchrun and gloo on CPU stand for several cards."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from utils.training import read_metrics, train


def train_with_two(recipe, run):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "utils.training", str(recipe.path), "--runs", str(run.folder.parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def weights_of(run):
    return load_file(run.model / "model.safetensors")


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates_over_two_batches(tiny_run):
    table = "max_steps = 4\nper_device_train_batch_size = 2\nuse_cpu = true\n"
    recipe, one = tiny_run("one", training=table + "gradient_accumulation_steps = 2")
    train(recipe, one)
    recipe, two = tiny_run("two", training=table + "gradient_accumulation_steps = 1")
    train_with_two(recipe, two)
    steps = [row["step"] for row in read_metrics(two.metrics) if "loss" in row]
    assert steps == [1, 2, 3, 4], "a log line is missing, or both processes wrote it"
    alone, together = weights_of(one), weights_of(two)
    for name, weight in alone.items():
        assert torch.allclose(weight, together[name], atol=1e-5), name


@pytest.mark.slow
def test_two_processes_resumed_in_a_later_pass_end_as_if_nothing_had_happened(tiny_run):
    table = "max_steps = 6\nper_device_train_batch_size = 2\nuse_cpu = true\nsave_steps = 1\n"
    recipe, run = tiny_run("two", training=table + "save_total_limit = 9\neval_steps = 1")
    train_with_two(recipe, run)
    last = run.checkpoints / "checkpoint-6/model.safetensors"  # the model is the best one on dev
    whole = load_file(last)
    # Two steps are a pass: what is left is the middle of the second one.
    for checkpoint in run.checkpoints.glob("checkpoint-[456]"):
        shutil.rmtree(checkpoint)
    shutil.rmtree(run.model)
    run.report("training").unlink(missing_ok=True)
    train_with_two(recipe, run)
    resumed = load_file(last)
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
