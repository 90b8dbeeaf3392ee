"""Versions against requirements.txt, the set-up's installation, and Colab's list of August 2026."""

import re
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from colab_list import read_list
from packaging.requirements import Requirement

from utils.environment import packages
from utils.environment.packages import (
    OutdatedPackages,
    Package,
    check_versions,
    install_missing,
    read_floors,
    require_versions,
)


def test_floors_come_from_requirements_txt_with_comments_left_out(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# all\ntorch>=2.6 # why\nfoo>=5.3,<6\n\n", encoding="utf-8")
    assert read_floors(requirements) == {"torch": ">=2.6", "foo": ">=5.3,<6"}


def test_every_package_of_requirements_txt_is_installed_here_and_within_its_range():
    rows = check_versions()
    assert {"torch", "transformers", "datasets", "gradio"} <= {row.package for row in rows}
    require_versions(rows)


@pytest.mark.fault(32)
def test_old_and_missing_packages_stop_with_the_pip_line_that_mends_them():
    rows = check_versions({"torch": ">=99", "no-such-package": ">=1,<2", "numpy": ">=1"})
    assert [row.ok for row in rows] == [False, False, True]
    with pytest.raises(OutdatedPackages) as stopped:
        require_versions(rows)
    message = str(stopped.value)
    assert f"torch {torch.__version__}, no-such-package (missing) will not do" in message
    wanted = '-m pip install "torch>=99" "no-such-package>=1,<2" -c constraints.txt`'
    assert wanted in message and "numpy" not in message


@pytest.fixture(params=["colab", "kaggle"])
def hosted(request, monkeypatch):
    """A runtime that comes with packages of its own."""
    if request.param == "colab":
        monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    else:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")


def test_on_a_hosted_runtime_the_pip_line_keeps_the_preinstalled_torch(hosted):
    with pytest.raises(OutdatedPackages) as stopped:
        require_versions(check_versions({"no-such-package": ">=1"}))
    assert "constraints" not in str(stopped.value)


def test_a_version_above_the_range_is_not_ok():
    (row,) = check_versions({"transformers": ">=5.3,<5.4"})
    assert not row.ok


def test_a_runtime_that_is_too_old_is_exchanged_and_not_its_torch(hosted):
    with pytest.raises(OutdatedPackages, match="take a newer runtime") as stopped:
        require_versions([Package("torch", "2.5.1", ">=2.6", ok=False)])
    assert "pip" not in str(stopped.value)


def test_a_requirement_for_another_python_is_not_asked_for(tmp_path):
    lines = ['old>=1; python_version < "3"', 'new>=1; python_full_version >= "3.11" # why']
    (tmp_path / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
    assert read_floors(tmp_path / "requirements.txt") == {"new": ">=1"}


@pytest.fixture
def colab(monkeypatch):
    """Colab's packages instead of this machine's; returns what the set-up asks pip for."""
    installed, asked = read_list(), []
    monkeypatch.setattr(
        packages,
        "installed_version",
        lambda name: installed.get(packages.canonicalize_name(name), ""),
    )
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())

    def pip(_, *arguments):
        *needs, flag, path = arguments
        assert flag == "-c"
        with open(path, encoding="utf-8") as file:
            asked.append((needs, file.read().split()))

    monkeypatch.setattr(packages, "_pip", pip)
    return asked


def test_colabs_packages_do_or_are_installed_and_nothing_that_is_kept_is_refused(colab):
    lacking = [row for row in check_versions() if not row.ok]
    assert {"faster-whisper", "papermill", "transformers"} <= {row.package for row in lacking}
    assert [row for row in lacking if packages.is_kept(row.package)] == []
    install_missing()
    ((needs, kept),) = colab
    assert needs == [f"{row.package}{row.floor}" for row in lacking]
    assert {"torch==2.11.0+cu128", "ipykernel==6.17.1", "numpy==2.1.3"} <= set(kept)


def test_colabs_list_says_from_when_it_is_and_how_to_renew_it():
    text = (packages.REQUIREMENTS.parent / "tests/colab.txt").read_text(encoding="utf-8")
    assert re.match(r"# Colab's GPU runtime of \d{4}-\d\d-\d\d, Python 3\.\d+\.\d+", text)
    assert "tests/colab_list.py" in text


def test_without_room_nothing_is_installed(colab, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**10, 10**10, 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutdatedPackages, match=r"1\.0 GB are free"):
        install_missing()
    assert colab == []


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
