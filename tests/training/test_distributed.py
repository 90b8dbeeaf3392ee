"""Several processes train as one: torchrun and gloo on CPU stand for several cards."""

import shutil
import socket
import subprocess
import sys
import time

import psutil
import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file

from tests.examples import uneven
from utils.artifacts import require, save_report
from utils.training.dev import FILE
from utils.training.progress import read_metrics
from utils.training.run import train


def start(recipe, run, *options, script=("-m", "utils.training")):
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    command += [*map(str, script), str(recipe.path), "--runs", str(run.folder.parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*started):
    for process in started:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said[-3000:]


def train_with_two(recipe, run, **how):
    finish(start(recipe, run, "--standalone", "--nproc-per-node=2", **how))


def kill_a_worker_and_train_again(recipe, run):
    job = start(recipe, run, "--standalone", "--nproc-per-node=2")
    while not (run.checkpoints / "checkpoint-3/complete.json").exists():
        time.sleep(0.01)
    psutil.Process(job.pid).children()[-1].kill()
    job.communicate(timeout=600)
    assert job.returncode != 0
    train_with_two(recipe, run)  # the same again, as Slurm's requeue does


def weights_of(run):
    return load_file(run.model / "model.safetensors")


@pytest.fixture
def in_32_bits(tmp_path, monkeypatch):
    """Train in 32 bits, where sums in another order are equal; a CPU with bf16 takes it else.

    Returns the script that does so in each of several processes.
    """
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    script = tmp_path / "in_32_bits.py"
    script.write_text(
        "import os, sys\nsys.path.insert(0, os.getcwd())\nimport torch\n"
        "torch.cpu.get_capabilities = dict\n"
        "from utils.training.__main__ import main\nmain()\n"
    )
    return [script]


@pytest.mark.slow
@pytest.mark.fault(7)
def test_two_processes_train_as_one_that_accumulates_over_two_batches(tiny_run, in_32_bits):
    table = "max_steps = 4\nper_device_train_batch_size = 2\n"
    recipe, one = tiny_run("one", training=table + "gradient_accumulation_steps = 2")
    train(recipe, one)
    recipe, two = tiny_run("two", training=table + "gradient_accumulation_steps = 1")
    train_with_two(recipe, two, script=in_32_bits)
    steps = [row["step"] for row in read_metrics(two.metrics) if "loss" in row]
    assert steps == [1, 2, 3, 4], "a log line is missing, or both processes wrote it"
    assert require(two, "training")["steps"] == 4  # the later lessons ask for it
    alone, together = weights_of(one), weights_of(two)
    for name, weight in alone.items():
        assert torch.allclose(weight, together[name], atol=1e-5), name
    # Each process has transcribed one of the two dev clips: the counts are those of both.
    counts = [(run.checkpoints / "checkpoint-4" / FILE).read_text() for run in (one, two)]
    assert counts[0] == counts[1]


def test_one_step_is_the_same_for_a_batch_two_halves_and_two_processes(tiny_run, rows, in_32_bits):
    """The gradient, since with SGD at a rate of 1 it is what the weights moved by."""
    table = 'max_steps = 1\noptim = "sgd"\nmax_grad_norm = 0\nlearning_rate = 1.0\n'
    table += 'lr_scheduler_type = "constant"\nwarmup_steps = 0\nload_best_model_at_end = false\n'
    windows = "[audio_context]\ntail_seconds = 0.0\nstep_seconds = 2.0"  # short, alike for all
    found = []
    for name, clips, accumulation in (("8x1", 8, 1), ("4x2", 4, 2), ("two times 4", 4, 1)):
        batch = f"per_device_train_batch_size = {clips}\n"
        batch += f"gradient_accumulation_steps = {accumulation}"
        recipe, run = tiny_run(name.replace(" ", "_"), training=table + batch, tables=windows)
        shutil.rmtree(run.prepared)
        DatasetDict(train=uneven(rows), dev=rows.select(range(2))).save_to_disk(str(run.prepared))
        save_report(run, "preprocessing", {})
        if "two" in name:
            train_with_two(recipe, run, script=in_32_bits)
        else:
            train(recipe, run)
        found.append(weights_of(run))
    for other in found[1:]:
        for name, weight in found[0].items():
            assert torch.allclose(weight, other[name], rtol=1e-4, atol=1e-6), name


FAULTY = """
import os, sys
sys.path.insert(0, os.getcwd())
import numpy as np, torch
from utils.training import trainer
from utils.training.__main__ import main

rank, fault = int(os.environ["RANK"]), sys.argv.pop(1)
if fault == "full":
    compute_loss = trainer.WhisperTrainer.compute_loss

    def limited(self, model, inputs, *args, **kwargs):
        if rank == 1 and len(inputs["labels"]) > 2 and self.state.global_step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute_loss(self, model, inputs, *args, **kwargs)

    trainer.WhisperTrainer.compute_loss = limited
else:
    asked = []

    def count(model, processor, rows, *_):
        asked.append(1)  # of the one clip more and more are wrong, of the other fewer
        wrong = len(asked) if rank else 9 - len(asked)
        return dict.fromkeys(("wer", "cer"), np.array([[wrong, 10]] * len(rows)))

    trainer.count_dev_errors = count
main()
"""


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process_ends_all_and_the_next_start_takes_less(
    tiny_run, tmp_path
):
    (tmp_path / "faulty.py").write_text(FAULTY)
    table = "max_steps = 4\nper_device_train_batch_size = 4"
    recipe, run = tiny_run("full", training=table)
    script = (tmp_path / "faulty.py", "full")
    job = start(recipe, run, "--standalone", "--nproc-per-node=2", script=script)
    said, _ = job.communicate(timeout=300)
    assert job.returncode != 0
    assert "Process 1 ran out of memory. Run the same again" in said
    train_with_two(recipe, run, script=script)
    report = require(run, "training")
    assert (report["clips_at_once"], report["accumulation"]) == (2, 2)
    recipe, whole = tiny_run("whole", training=table)
    train_with_two(recipe, whole)
    losses = [
        [row["loss"] for row in read_metrics(one.metrics) if "loss" in row] for one in (run, whole)
    ]
    assert losses[0][:2] == losses[1][:2] and len(losses[0]) == 4


@pytest.mark.slow
def test_processes_that_transcribe_differently_decide_alike(tiny_run, tmp_path):
    """One would stop for want of patience and the other go on, and wait for it for ever."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    table = "max_steps = 8\nper_device_train_batch_size = 2"
    recipe, run = tiny_run("patient", training=table, tables="[method]\npatience = 2")
    train_with_two(recipe, run, script=(tmp_path / "faulty.py", "dev"))
    rates = [row["eval_wer"] for row in read_metrics(run.metrics) if "eval_wer" in row]
    assert rates == [pytest.approx(9 / 20)] * 3, "not the errors of both processes"


@pytest.mark.slow
@pytest.mark.fault(6)
def test_two_processes_resumed_in_a_later_pass_end_as_if_nothing_had_happened(tiny_run):
    table = "max_steps = 6\nper_device_train_batch_size = 2\nsave_steps = 1\n"
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


@pytest.mark.slow
def test_two_nodes_on_loopback_train_as_one(tiny_run):
    table = "max_steps = 4\nper_device_train_batch_size = 2"
    recipe, one = tiny_run("one", training=table)
    train_with_two(recipe, one)
    recipe, two = tiny_run("two", training=table)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"
    options = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=test", meeting)
    finish(*(start(recipe, two, *options) for _ in range(2)))
    alone, together = weights_of(one), weights_of(two)
    assert all(torch.allclose(weight, together[name], atol=1e-5) for name, weight in alone.items())


@pytest.mark.slow
@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("workers", "tables"),
    [(0, ""), (2, "[preprocessing]\nstored = false\nmin_seconds = 0.0")],
    ids=["stored", "streamed by two processes of two workers each"],
)
def test_a_job_of_which_a_worker_is_killed_goes_on_and_ends_bit_for_bit_the_same(
    tiny_run, workers, tables
):
    table = "max_steps = 8\nper_device_train_batch_size = 2\nsave_steps = 1\n"
    table += f"save_total_limit = 9\neval_steps = 1\ndataloader_num_workers = {workers}"
    recipe, whole = tiny_run("whole", training=table, tables=tables)
    train_with_two(recipe, whole)
    recipe, run = tiny_run("killed", training=table, tables=tables)
    kill_a_worker_and_train_again(recipe, run)
    assert len([row for row in read_metrics(run.metrics) if "loss" in row]) == 8
    expected = weights_of(whole)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(run).items())


SHARDED = "[method]\nshard = true\n"


@pytest.mark.slow
def test_two_processes_that_divide_the_weights_train_as_two_that_do_not(tiny_run, in_32_bits):
    table = "max_steps = 4\nper_device_train_batch_size = 2"
    recipe, plain = tiny_run("plain", training=table)
    train_with_two(recipe, plain, script=in_32_bits)
    recipe, run = tiny_run("sharded", training=table, tables=SHARDED)
    train_with_two(recipe, run, script=in_32_bits)
    for row, expected in zip(*(read_metrics(one.metrics) for one in (run, plain)), strict=True):
        for key in ("step", "loss", "grad_norm", "eval_wer"):
            assert row.get(key, 0) == pytest.approx(expected.get(key, 0), rel=1e-4), key
    expected = weights_of(plain)
    for name, weight in weights_of(run).items():
        assert torch.allclose(weight, expected[name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.fault(29)
def test_a_sharded_job_of_which_a_worker_is_killed_ends_bit_for_bit_the_same(tiny_run):
    table = "max_steps = 6\nper_device_train_batch_size = 2\nsave_steps = 1\n"
    table += "save_total_limit = 9\neval_steps = 1\nactivation_checkpointing = true"
    method = SHARDED + 'weights = "frozen_encoder"\n'
    recipe, whole = tiny_run("whole", training=table, tables=method)
    train_with_two(recipe, whole)
    recipe, run = tiny_run("killed", training=table, tables=method)
    kill_a_worker_and_train_again(recipe, run)
    expected = weights_of(whole)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(run).items())


@pytest.mark.slow
def test_a_sharded_job_goes_on_with_more_processes_and_with_fewer(tiny_run, in_32_bits):
    table = "max_steps = 4\nper_device_train_batch_size = 2\ngradient_accumulation_steps = "
    runs = {}
    for name, processes in (("one", 1), ("two", 2), ("to_one", 1), ("to_two", 2)):
        # The same updates: what is missing in processes is made up for by accumulation.
        recipe, run = tiny_run(name, training=f"{table}{2 // processes}", tables=SHARDED)
        if name.startswith("to_"):
            before = runs["one" if processes == 2 else "two"].checkpoints
            shutil.copytree(before / "checkpoint-2", run.checkpoints / "checkpoint-2")
        if processes == 2:
            train_with_two(recipe, run, script=in_32_bits)
        else:
            train(recipe, run)
        runs[name] = run
    expected, *others = (
        load_file(run.checkpoints / "checkpoint-4/model.safetensors") for run in runs.values()
    )
    for other in others:
        for name, weight in expected.items():
            assert torch.allclose(weight, other[name], atol=1e-5), name
