"""The slider shows one position at a time, and needs no kernel; a lesson's page has no set-up."""

import shutil
import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from utils.__main__ import write_html
from utils.environment.slider import draw_slider


@pytest.fixture
def slider():
    return draw_slider(lambda value: f"<p>twice is {2 * value}</p>", "a <number>", [1, 2, 3], 2)


def test_every_position_is_in_the_page_and_the_first_is_shown(slider):
    assert [f"twice is {n}" in slider.data for n in (2, 4, 6)] == [True] * 3
    assert slider.data.count(" hidden>") == 2
    assert 'data-at="1"><b>a &lt;number&gt; 2</b>' in slider.data
    assert 'min="0" max="2" value="1" aria-label="a &lt;number&gt;"' in slider.data


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_browser_shows_the_position_that_it_is_moved_to(slider, tmp_path):
    moved = "const box = document.querySelector('input'); box.value = 2; box.oninput();"
    page = tmp_path / "page.html"
    page.write_text(f"{slider.data}<script>{moved}</script>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    shown = subprocess.run(
        ["chromium", *options, "--dump-dom", page.as_uri()], capture_output=True, text=True
    ).stdout
    for at, hidden in enumerate([' hidden=""', ' hidden=""', ""]):
        assert f'data-at="{at}"{hidden}><b>' in shown


def test_a_page_leaves_out_the_code_of_the_set_up(tmp_path):
    cells = [
        new_code_cell("SET_UP = 1", metadata={"tags": ["bootstrap"]}),
        new_code_cell("SHOWN = 2"),
    ]
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    write_html(path)
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "SHOWN" in page
    assert "SET_UP" not in page
