"""Versions against floors, precision by hardware, and an account that never shows its token."""

import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import Requirement

from utils.environment import colab
from utils.environment import machine as environment
from utils.environment.machine import (
    OutdatedPackages,
    check_versions,
    read_floors,
    require_versions,
    training_precision,
)


def test_floors_come_from_requirements_txt_with_comments_left_out(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# all\ntorch>=2.6 # why\nfoo>=5.3,<6\n\n", encoding="utf-8")
    assert read_floors(requirements) == {"torch": ">=2.6", "foo": ">=5.3,<6"}


def test_every_package_of_requirements_txt_is_installed_here_and_within_its_range():
    rows = check_versions()
    assert {"torch", "transformers", "datasets", "gradio"} <= {row.package for row in rows}
    require_versions(rows)


def test_old_and_missing_packages_stop_with_the_pip_line_that_mends_them():
    rows = check_versions({"torch": ">=99", "no-such-package": ">=1,<2", "numpy": ">=1"})
    assert [row.ok for row in rows] == [False, False, True]
    with pytest.raises(OutdatedPackages) as stopped:
        require_versions(rows)
    message = str(stopped.value)
    assert f"torch {torch.__version__}, no-such-package (missing) will not do" in message
    wanted = '-m pip install "torch>=99" "no-such-package>=1,<2" -c constraints.txt`'
    assert wanted in message and "numpy" not in message


def test_on_colab_the_pip_line_keeps_the_preinstalled_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    with pytest.raises(OutdatedPackages) as stopped:
        require_versions(check_versions({"no-such-package": ">=1"}))
    assert "constraints" not in str(stopped.value)


def test_a_version_above_the_range_is_not_ok():
    (row,) = check_versions({"transformers": ">=5.3,<5.4"})
    assert not row.ok


@pytest.mark.parametrize(
    ("capability", "arguments"),
    [(None, {}), ((7, 5), {"fp16": True}), ((8, 0), {"bf16": True}), ((9, 0), {"bf16": True})],
)
def test_precision_follows_the_hardware_and_says_why(monkeypatch, capability, arguments):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert training_precision() == arguments
    reason = environment.precision().reason
    assert ("no CUDA GPU" in reason) if capability is None else ("a card has compute" in reason)


@pytest.mark.parametrize(("gpu", "cores", "workers"), [(False, 16, 0), (True, 2, 2), (True, 96, 8)])
def test_batches_are_made_beside_a_gpu_and_not_beside_a_cpu(monkeypatch, gpu, cores, workers):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert environment.loader_workers() == workers


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


def test_machine_and_versions_say_what_a_measurement_needs():
    facts = environment.machine()
    assert facts["cpu"] and facts["cores"] >= 1 and facts["memory_gib"] > 0
    assert (facts["gpu"] is not None) == torch.cuda.is_available()
    assert environment.versions()["torch"] == torch.__version__


TOKEN = "hf_" + "x" * 34


def refused(status):
    request = httpx2.Request("GET", "http://127.0.0.1/api/whoami-v2")
    return HfHubHTTPError(f"no {TOKEN}", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"name": "somebody"}, "You are somebody on the Hub."),
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


@pytest.mark.parametrize(
    ("package", "last_with_a_hole"),
    [
        ("torch", "2.5.1"),  # torch.load executed code by default
        ("transformers", "5.2.0"),  # CVE-2026-4372: code from a config file
        ("gradio", "6.6.0"),  # CVE-2026-28414: files of the server
        ("nbconvert", "7.17.1"),  # scripts in exported pages
    ],
)
def test_floors_leave_out_versions_with_a_known_hole(package, last_with_a_hole):
    floor = read_floors()[package]
    (row,) = check_versions({package: floor})
    assert row.ok
    assert not Requirement(f"{package}{floor}").specifier.contains(last_with_a_hole)
