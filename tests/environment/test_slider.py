"""The slider follows its value, and a page without a kernel shows several positions."""

import ipywidgets
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from utils.__main__ import write_html
from utils.environment.slider import Slider


@pytest.fixture
def slider():
    return Slider(lambda value: f"<p>twice is {2 * value}</p>", "a number", [1, 2, 3], [3, 1])


def test_the_picture_follows_the_value(slider):
    assert slider.picture.value == "<p>twice is 6</p>"
    slider.choice.value = 2
    assert slider.picture.value == "<p>twice is 4</p>"


def test_a_slider_is_shown_where_ipywidgets_is_as_old_as_colabs(slider, monkeypatch):
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")  # of ipywidgets 8
    view = slider._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]
    assert view == {
        "version_major": 2,
        "version_minor": 0,
        "model_id": slider.widget.model_id,
    }


def test_a_page_without_a_kernel_shows_several_positions_and_no_dead_widget(slider, tmp_path):
    bundle = slider._repr_mimebundle_()
    widget = "application/vnd.jupyter.widget-view+json"
    assert widget in bundle  # what Jupyter prefers
    output = new_output("display_data", data=bundle)
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("slider", outputs=[output])]), path)
    write_html(path)
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert "<b>a number 1</b>" in page
    assert "twice is 2" in page and "twice is 6" in page
    assert "twice is 4" not in page
    assert bundle[widget]["model_id"] not in page


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
