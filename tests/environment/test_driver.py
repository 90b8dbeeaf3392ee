"""A GPU with an old driver, an old card, or none: which PyTorch `make` takes, and what is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.environment import driver, machine
from utils.environment.driver import CPU, CUDA_12_6, CUDA_12_8, CUDA_13, fitting_wheel
from utils.environment.gpu import HardwareError, has_kernels

ROOT = Path(__file__).resolve().parents[2]
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 19 01:15:15 UTC 2023\nGCC:\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs@ci)\n"
SMI = """\
#!/bin/sh
case "$*" in
*driver_version*) echo {driver} ;;
*compute_cap*) echo {card} ;;
esac
"""
LOST = "#!/bin/sh\necho NVIDIA-SMI has failed because it could not reach the driver.\nexit 9\n"
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a driver on this machine: the file of its kernel module, and its program."""
    monkeypatch.setattr(driver, "PROC", tmp_path / "version")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def install(proc="", smi=""):
        if proc:
            (tmp_path / "version").write_text(proc, encoding="utf-8")
        if smi:
            (tmp_path / "nvidia-smi").write_text(smi, encoding="utf-8")
            (tmp_path / "nvidia-smi").chmod(0o755)

    return install


@pytest.mark.parametrize(
    ("proc", "smi", "version"),
    [
        ("", "", ""),
        (CLOSED.format("535.104.05"), "", "535.104.05"),
        (OPEN.format("570.86.15"), "", "570.86.15"),
        (OPEN.format("580.95"), LOST, "580.95"),  # a container that was given no GPU
        ("", SMI.format(driver="550.54.15", card="8.0"), "550.54.15"),
        ("", LOST, ""),
        ("what is this", LOST, ""),
    ],
)
def test_the_version_of_the_driver_is_found(fake, proc, smi, version):
    fake(proc, smi)
    assert driver.driver_version() == version


@pytest.mark.parametrize(
    ("version", "cards", "wheel"),
    [
        ("", [], CPU),
        ("595.45.04", [(9, 0)], CUDA_13),
        ("580.65.06", [], CUDA_13),
        ("575.57", [(9, 0)], CUDA_12_6),  # H100, RunPod
        ("550.54.15", [(8, 0)], CUDA_12_6),
        ("525.60", [(7, 5)], CUDA_12_6),
        ("580.95", [(7, 0)], CUDA_12_6),  # V100
        ("570.195", [(12, 0)], CUDA_12_8),  # RTX 5090
        ("560.35", [(12, 0)], None),
        ("470.256", [(7, 0)], None),
    ],
)
def test_the_wheel_fits_driver_and_card(version, cards, wheel):
    assert fitting_wheel(version, cards) == wheel


@pytest.mark.parametrize(
    ("built", "card", "served"),
    [
        (CU130, (7, 0), False),
        (CU130, (7, 5), True),
        (CU130, (8, 9), True),  # by sm_86
        (CU130, (10, 3), True),
        (CU130, (13, 0), True),  # by compute_120
        (CU126, (7, 0), True),
        (CU126, (12, 0), False),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_80", "compute_90a"], (12, 0), False),
    ],
)
def test_a_card_is_served_by_its_generation_or_by_what_is_compiled_for_it(built, card, served):
    assert has_kernels(built, card) == served


def stop(monkeypatch, cuda):
    """Return what the lesson says where PyTorch was built for this CUDA."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130" if cuda else "2.13.0+cpu")
    with pytest.raises(HardwareError) as stopped:
        machine.device()
    said = str(stopped.value)
    assert "WHISPER_CPU=1" in said and "\n" not in said
    return said


@pytest.mark.parametrize(
    ("proc", "smi", "cuda", "parts"),
    [
        (
            *("", SMI.format(driver="550.54.15", card="8.0"), "13.0"),
            [
                *("driver 550.54.15, but", "built for CUDA 13.0, needs driver 580 or newer"),
                *("pip uninstall --yes torch && ", "'torch==2.13.0' --index-url", "/whl/cu126"),
            ],
        ),
        (
            *(CLOSED.format("535.104.05"), "", "13.0"),
            ["driver 535.104.05, but", "needs driver 580", "/whl/cu126"],
        ),
        (
            *("", SMI.format(driver="570.195", card="12.0"), "13.0"),
            ["'torch==2.11.*' --index-url", "/whl/cu128"],
        ),
        (
            *("", SMI.format(driver="470.256.02", card="7.0"), "13.0"),
            ["needs driver 580", "no current PyTorch serves driver 470.256.02: update it"],
        ),
        (
            *("", SMI.format(driver="580.95.05", card="9.0"), None),
            ["is a build without CUDA", "install 'torch==2.13.0'`"],
        ),
        (
            *(OPEN.format("580.95.05"), LOST, "13.0"),
            ["sees no GPU, although they fit", "docker run --gpus all"],
        ),
        (
            *("", SMI.format(driver="580.95.05", card="9.0"), "12.6"),
            ["sees no GPU, although they fit", "Slurm"],
        ),
    ],
)
def test_a_driver_that_pytorch_cannot_use_stops_with_the_commands_that_help(
    fake, monkeypatch, proc, smi, cuda, parts
):
    fake(proc, smi)
    said = stop(monkeypatch, cuda)
    for part in parts:
        assert part in said, (part, said)


def test_on_a_hosted_runtime_another_gpu_is_taken_and_not_another_torch(fake, monkeypatch):
    fake(CLOSED.format("535.104.05"))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert "pip" not in stop(monkeypatch, "13.0")


def test_a_card_that_pytorch_has_no_code_for_stops(fake, monkeypatch):
    fake("", SMI.format(driver="580.95.05", card="7.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: CU130)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    said = stop(monkeypatch, "13.0")
    assert "Tesla V100 has compute capability 7.0" in said and "/whl/cu126" in said
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert machine.device().type == "cuda"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_on_purpose_stops_nobody(fake, monkeypatch, hidden):
    fake(CLOSED.format("535.104.05"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert machine.device().type == "cpu"


def test_training_stops_before_it_loads_anything_and_the_switch_goes_on(fake, tmp_path):
    """As a reader meets it: the command, its last line, and the same with WHISPER_CPU."""
    fake("", SMI.format(driver="550.54.15", card="8.0"))
    code = "from utils.environment.machine import device; print(device())"
    asked = [sys.executable, "-c", code]
    hides = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    stopped = subprocess.run(
        asked, cwd=ROOT, env=hides, capture_output=True, text=True, check=False
    )
    assert "HardwareError: There is an NVIDIA driver 550.54.15" in stopped.stderr
    goes_on = hides | {"WHISPER_CPU": "1"}
    done = subprocess.run(asked, cwd=ROOT, env=goes_on, capture_output=True, text=True, check=True)
    assert done.stdout == "cpu\n"


@pytest.fixture
def set_up(tmp_path):
    """Run the set-up of `make first` with a Python of our own."""
    (tmp_path / "utils/environment").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), encoding="utf-8")
    file = "utils/environment/driver.py"
    (tmp_path / file).write_text((ROOT / file).read_text("utf-8"), encoding="utf-8")

    def run(python, **environment):
        command = ["make", "-s", f"PYTHON={python}", ".venv/ready"]
        env = os.environ | {"MAKEFLAGS": ""} | environment
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize(
    ("version", "lacks", "said"),
    [
        ("3.10.12", "", "is 3.10.12: name another one, make PYTHON=python3.12"),
        ("3.11.0rc1", "", "no pre-release, and"),
        ("3.15.0", "", "Python 3.11 to 3.14 is needed"),
        ("", "", "is missing"),
        ("3.12.3", "venv*|*ensurepip", "apt-get install python3.12-venv"),  # Debian's
        ("3.12.3", "venv", "for the reason above: if .venv is a link that leads nowhere"),
    ],
)
def test_the_set_up_names_the_python_it_found_and_what_is_missing(
    set_up, tmp_path, version, lacks, said
):
    numbers = version.replace("rc1", "").split(".")
    good = "3.11" <= version[:4] < "3.15" and "rc" not in version and numbers[0]
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *platform*) echo {version} ;; *{lacks or "!"}*) exit 1 ;;'
        f" *version_info*) exit {0 if good else 1} ;; esac\n",
        encoding="utf-8",
    )
    fake.chmod(0o755)
    done = set_up(fake)
    assert done.returncode != 0 and said in done.stdout
    assert not (tmp_path / ".venv/ready").exists()


@pytest.mark.parametrize(
    ("release", "good"),
    [
        *(((3, 10, 14, "final"), False), ((3, 11, 2, "final"), True)),
        *(((3, 11, 0, "candidate"), False), ((3, 14, 8, "final"), True)),
        *(((3, 15, 0, "final"), False), ((2, 7, 18, "final"), False)),
    ],
)
def test_the_set_up_takes_released_pythons_that_pytorch_is_built_for(release, good):
    (line,) = (x for x in (ROOT / "Makefile").read_text("utf-8").splitlines() if "GOOD = " in x)
    check = line.partition(" = ")[2].replace("import sys; ", "").replace("sys.exit", "result")
    found = []
    scope = {"sys": type("", (), {"version_info": release}), "result": found.append}
    exec(check, scope)
    assert found == [not good]


FAKE_PIP = (
    "import os, sys; open(os.environ['PIP_LOG'], 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
)


@pytest.mark.parametrize(
    ("smi", "reachable", "asked", "installs"),
    [
        ("", True, "", "torch --index-url {index}/cpu -c constraints.txt"),
        ("", False, "", ""),
        (("550.54", "8.0"), True, "", "torch --index-url {index}/cu126 -c constraints.txt"),
        (("570.195", "12.0"), True, "", "torch==2.11.* --index-url {index}/cu128"),
        (("580.95", "9.0"), True, "", ""),
        (("470.82", "7.0"), True, "", "torch --index-url {index}/cpu -c constraints.txt"),
        (("550.54", "8.0"), True, "http://my.index/x", "torch --index-url http://my.index/x -c"),
    ],
)
def test_make_takes_the_wheel_that_fits_where_its_index_answers(
    fake, tmp_path, monkeypatch, smi, reachable, asked, installs
):
    if smi:
        fake("", SMI.format(driver=smi[0], card=smi[1]))
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__main__.py").write_text(FAKE_PIP, encoding="utf-8")
    (tmp_path / "pip/__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    monkeypatch.setenv("TORCH_INDEX", asked)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(driver, "installed_torch", lambda: "")
    monkeypatch.setattr(driver, "is_reachable", lambda _: reachable)
    assert driver.main() == 0
    log = tmp_path / "pip.log"
    called = log.read_text("utf-8") if log.exists() else ""
    assert installs.format(index=driver.INDEX) in called and bool(called) == bool(installs)


def test_the_constraints_keep_the_pytorch_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(driver, "installed_torch", lambda: "2.11.0+cu128")
    monkeypatch.setattr(driver, "choose", lambda: pytest.fail("there is a PyTorch already"))
    assert driver.main() == 0
    lines = (tmp_path / "constraints.txt").read_text("utf-8").splitlines()
    assert "torch==2.11.0" in lines
    others = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert set(others) - set(lines) == {"torch==2.13.0"}


def test_an_index_that_does_not_answer_is_given_up_at_once():
    assert not driver.is_reachable("http://127.0.0.1:9/whl")
    assert not driver.is_reachable("no address")
