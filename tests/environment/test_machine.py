"""Versions against floors, precision by hardware, and an account that never shows its token."""

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError

from tests.conftest import ROOT
from utils.environment import colab
from utils.environment import machine as environment
from utils.environment.machine import training_precision
from utils.environment.packages import versions


@pytest.mark.parametrize(
    ("cpu", "arguments", "why"),
    [
        ({"avx512_bf16": True}, {"bf16": True}, "this CPU multiplies bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, {"bf16": True}, "this CPU multiplies bf16"),
        ({"avx512_bf16": False, "amx_bf16": False}, {}, "no instructions for bf16"),
        ({"architecture": "aarch64"}, {}, "no instructions for bf16"),
        (None, {}, "no instructions for bf16"),  # a PyTorch that does not say
    ],
)
def test_without_a_gpu_precision_follows_the_cpus_instructions(monkeypatch, cpu, arguments, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    if cpu is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert training_precision() == arguments
    assert why in environment.precision().reason


@pytest.mark.parametrize(
    ("capability", "arguments"),
    [((7, 5), {"fp16": True}), ((8, 0), {"bf16": True}), ((9, 0), {"bf16": True})],
)
def test_precision_follows_the_gpu_and_says_why(monkeypatch, capability, arguments):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert training_precision() == arguments
    assert "a card has compute" in environment.precision().reason


def test_attention_that_plans_each_new_shape_is_off():
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("gpu", "cores", "trainings", "workers"),
    [
        (False, 16, "", 0),
        (True, 2, "", 2),
        (True, 96, "1", 16),
        (True, 96, "8", 12),
        (True, 4, "8", 1),
    ],
)
def test_batches_are_made_beside_a_gpu_and_not_beside_a_cpu(
    monkeypatch, gpu, cores, trainings, workers
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(environment, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", trainings)
    assert environment.loader_workers() == workers


@pytest.mark.parametrize(
    ("room", "trainings", "workers"), [(64, "1", 2), (64, "2", 1), (1, "1", 0), (2**20, "1", 16)]
)
def test_fewer_processes_make_batches_where_they_share_little_memory(
    monkeypatch, caplog, room, trainings, workers
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environment, "usable_cores", lambda: 96)
    monkeypatch.setattr(
        environment.shutil, "disk_usage", lambda _: SimpleNamespace(free=room * 2**20)
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", trainings)
    environment._warn_once.cache_clear()
    assert environment.loader_workers(16 * 2**20) == workers
    assert ("--shm-size" in caplog.text) == (workers < 12)


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert environment.usable_cores() == 1


def test_peak_memory_is_in_gib_and_grows_with_what_the_process_holds():
    before = environment.peak_gib()
    status = Path("/proc/self/status")
    if status.exists():  # the kernel's own figure, in KiB
        lines = status.read_text(encoding="utf-8").splitlines()
        (peak,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        assert before == pytest.approx(peak / 2**20, rel=0.05)
    resident = before  # at most the peak: this much more must raise it
    held = bytearray(int((resident + 0.1) * 2**30))
    assert environment.peak_gib() >= before + 0.09
    del held


def test_free_disk_is_asked_of_the_nearest_folder_that_exists(tmp_path):
    assert environment.free_disk_gib(tmp_path / "not" / "yet") > 0


@pytest.mark.parametrize(("limit", "known"), [(2**30, True), ("max", False), (2**63 - 4096, False)])
def test_memory_is_what_a_container_may_use(tmp_path, monkeypatch, limit, known):
    (tmp_path / "memory.max").write_text(f"{limit}\n", encoding="utf-8")
    (tmp_path / "memory.stat").write_text(f"file 9999\nanon {2**28}\n", encoding="utf-8")
    machines = environment.memory_gib()
    monkeypatch.setattr(environment, "LIMITS", {tmp_path / "memory.max": "anon"})
    total, free = environment.memory_gib()
    assert (total, free) == (1, 0.75) if known else total == machines[0] and free > 0


def test_threads_are_no_more_than_a_containers_time_allows():
    script = """
        import joblib, torch
        torch.set_num_threads(4)
        joblib.cpu_count = lambda: 2
        import utils.environment.machine
        print(torch.get_num_threads())
    """
    script = textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr


def test_machine_and_versions_say_what_a_measurement_needs():
    facts = environment.machine()
    assert torch.backends.cpu.get_cpu_capability() in facts["cpu"].split(", ")
    assert facts["cores"] >= 1 and facts["memory_gib"] > 0
    assert (facts["gpu"] is not None) == torch.cuda.is_available()
    assert versions()["torch"] == torch.__version__


TOKEN = "hf_" + "x" * 34


def refused(status):
    request = httpx2.Request("GET", "http://127.0.0.1/api/whoami-v2")
    return HfHubHTTPError(f"no {TOKEN}", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"name": "somebody"}, "You are logged in to the Hub."),
        (refused(401), "A token is set, but the Hub refuses it"),
        (refused(503), "A token is set, but the Hub answers with status 503"),
        (httpx2.ConnectError(f"no network {TOKEN}"), "the Hub cannot be reached (ConnectError)"),
    ],
)
def test_the_account_is_one_sentence_without_the_token(monkeypatch, answer, sentence):
    def whoami(token):
        assert token == TOKEN
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(huggingface_hub, "whoami", whoami)
    said = environment.hub_account()
    assert sentence in said
    assert TOKEN not in said and "\n" not in said


def test_a_token_with_what_was_copied_along_is_no_fault_of_the_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: f"{TOKEN}…")
    said = environment.hub_account()
    assert "no token has such characters: log in" in said and TOKEN not in said


def test_without_a_token_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(huggingface_hub, "whoami", lambda token: pytest.fail("asked the Hub"))
    assert environment.hub_account().startswith("No token is set")


def test_drive_is_mounted_only_on_colab_and_only_for_a_folder_in_it(monkeypatch):
    mounted = []
    theirs = SimpleNamespace(drive=SimpleNamespace(mount=mounted.append))
    colab.mount_drive("/content/drive/MyDrive/runs")
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=theirs))
    monkeypatch.setitem(sys.modules, "google.colab", theirs)
    colab.mount_drive("recipes/mine.toml", "runs")
    assert mounted == []
    colab.mount_drive("recipes/mine.toml", "/content/drive/MyDrive/runs")
    assert mounted == ["/content/drive"]
    for place in ("drive/MyDrive/runs", "/content/gdrive/MyDrive/runs"):
        with pytest.raises(OSError, match=r"not in Google Drive.*/content/drive/MyDrive"):
            colab.mount_drive("recipes/mine.toml", place)


def test_a_drive_that_is_not_mounted_is_a_sentence(monkeypatch):
    def mount(_):
        raise ValueError("mount failed")

    theirs = SimpleNamespace(drive=SimpleNamespace(mount=mount))
    monkeypatch.setitem(sys.modules, "google", SimpleNamespace(colab=theirs))
    monkeypatch.setitem(sys.modules, "google.colab", theirs)
    with pytest.raises(OSError, match=r"not mounted \(mount failed\).*allow access"):
        colab.mount_drive("/content/drive/MyDrive/runs")
