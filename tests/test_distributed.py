"""Several processes train as one: torchrun and gloo on CPU stand for several cards."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from utils.training import read_metrics, train


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates_over_two_batches(tiny_run):
    table = "max_steps = 4\nper_device_train_batch_size = 2\nuse_cpu = true\n"
    recipe, one = tiny_run("one", training=table + "gradient_accumulation_steps = 2")
    train(recipe, one)
    recipe, two = tiny_run("two", training=table + "gradient_accumulation_steps = 1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "utils.training", str(recipe.path), "--runs", str(two.folder.parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [row["step"] for row in read_metrics(two.metrics) if "loss" in row]
    assert steps == [1, 2, 3, 4], "a log line is missing, or both processes wrote it"
    alone, together = (load_file(run.model / "model.safetensors") for run in (one, two))
    for name, weight in alone.items():
        assert torch.allclose(weight, together[name], atol=1e-5), name
