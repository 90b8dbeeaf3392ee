"""What leaves this machine names none of its folders, nor itself."""

import json
import socket
from pathlib import Path

import pytest

from tests.conftest import ROOT
from utils.environment.whole import Damaged
from utils.export.privacy import find_private, scrub, scrub_notebook


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ('checkpoint = "/home/alice/clients/acme/model"', 'checkpoint = "model"'),
        ('name = "~/patients/ward 7"', 'name = "ward 7"'),
        ("name = 'C:\\Users\\alice\\speech'", "name = 'speech'"),
        ("from \\\\server\\share\\speech", "from speech"),
        ("read file:///home/alice/a.wav.", "read a.wav."),
        ("It is in /mnt/data/alice/run.", "It is in run."),
        ("--runs=/scratch/alice/runs", "--runs=runs"),
        (f"See {ROOT}/runs/x/model.", "See runs/x/model."),
        (f"{Path.home()}/a/b", "a/b"),
    ],
)
def test_a_path_becomes_what_it_is_called(private, public):
    assert scrub(private) == public
    assert scrub(public) == public


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/datasets/x/y and/or [z](../z/a.md)",
        "fp16/int8, 1/2, </b> <br/> /",
        '<audio src="data:audio/wav;base64,AA/bb/cc+/dd/ee==">',
        "/etc/passwd: status 403",
    ],
)
def test_what_is_no_path_of_this_machine_stays(text):
    assert scrub(text) == text


def test_the_machine_has_no_name(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "alice-laptop")
    assert scrub("trained on alice-laptop, in alice-laptops") == (
        "trained on this-machine, in alice-laptops"
    )


@pytest.mark.parametrize("above", ["/srv/alice", '/media/alice o\'neil/My "Disk"'])
def test_a_notebook_tells_no_folder_in_outputs_parameters_and_published_code(tmp_path, above):
    place = f"{above}/patients/run"
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "outputs": []},
        {"cell_type": "code", "metadata": {}, "outputs": [{"text": [f"in {place}\n"]}]},
    ]
    for cell in cells:
        cell |= {"source": [f'RUNS = "{place}"\n'], "execution_count": 1}
    path = tmp_path / "lesson.ipynb"
    told = {"cells": cells, "metadata": {"papermill": {"output_path": f"{place}/o.ipynb"}}}
    path.write_text(json.dumps(told), encoding="utf-8")
    executed = json.loads(scrub_notebook(path, places=[Path(above, "patients")]))
    assert "alice" not in json.dumps([executed["metadata"], executed["cells"][0]])
    assert executed["cells"][1]["outputs"] == [{"text": ["in run\n"]}]
    assert "alice" not in scrub_notebook(path, True, [Path(above, "patients")])


def test_scrubbing_leaves_the_lesson_that_is_published_as_it_is():
    for cell in json.loads((ROOT / "notebooks/04_training.ipynb").read_text("utf-8"))["cells"]:
        for line in cell["source"]:
            assert scrub(line) == line


def test_every_text_of_a_folder_is_looked_through(tmp_path):
    (tmp_path / "README.md").write_text("Trained on it carlo.", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"name": "/home/alice/x"}', encoding="utf-8")
    lesson = scrub_notebook(ROOT / "notebooks/04_training.ipynb", is_published=True)
    (tmp_path / "04_training.ipynb").write_text(lesson, encoding="utf-8")
    (tmp_path / "vocab.json").write_text('{"/home/alice": 1}', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"cut off": "/home/alice/x', encoding="utf-8")
    (tmp_path / "settings.json").write_text('{"cut off', encoding="utf-8")
    names = [path.relative_to(tmp_path) for path in sorted(tmp_path.iterdir())]
    leaks = ["config.json", "tokenizer_config.json"]
    assert find_private(tmp_path, names) == [str(tmp_path / name) for name in leaks]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, "\x00" * 9])
def test_a_damaged_notebook_has_its_name_and_the_way_out(tmp_path, content):
    (tmp_path / "04.ipynb").write_text(content, encoding="utf-8")
    with pytest.raises(Damaged, match=r"04\.ipynb is damaged.*git checkout"):
        scrub_notebook(tmp_path / "04.ipynb")
