"""How the lessons teach: a sentence under each output, pictures, sliders that a page can show."""

import ast
import re
from types import SimpleNamespace

import numpy as np
import pytest
from test_notebooks import LESSONS, NOTEBOOKS, code_cells, read
from transformers import WhisperConfig, WhisperFeatureExtractor

from utils.config import AudioContext
from utils.environment.diagrams import draw_boxes
from utils.environment.slider import Slider

PICTURES, SLIDERS = 6, 4  # at least, in the series
UNEXPLAINED = re.compile(r"## (Save|Check)\b")


def explained(path):
    """For each cell with an output to look at: whether a sentence follows it, before a heading."""
    cells, own = read(path).cells, code_cells(path)[2:]  # without imports and opening the run
    return {
        cell.source: after.cell_type == "markdown" and not after.source.startswith("#")
        for before, cell, after in zip(cells, cells[1:], cells[2:], strict=False)
        if cell in own and not UNEXPLAINED.match(before.source)
    }


@LESSONS
def test_most_outputs_are_followed_by_a_sentence_that_says_what_to_see(path):
    found = explained(path)
    missing = [source for source, has in found.items() if not has]
    assert len(missing) <= 0.2 * len(found), "\n---\n".join(missing)


def cells_with(call):
    """Lesson → its cells that end in a call."""
    return [
        (path, cell.source)
        for path in NOTEBOOKS
        for cell in code_cells(path)
        if cell.source.splitlines() and re.search(rf"^{call}\(", cell.source, re.MULTILINE)
    ]


def test_the_series_has_pictures_and_sliders():
    assert len(cells_with("draw_boxes")) >= PICTURES
    assert len(cells_with("Slider")) >= SLIDERS


class Words:
    """A tokenizer that takes each word for a token."""

    def __call__(self, text, **_):
        return SimpleNamespace(input_ids=text.split())

    def decode(self, tokens):
        return f" {tokens[0]}"


def small_lesson(row, wav):
    """What a cell with a slider finds when it runs, in small."""
    clips = [row(audio=wav(0.3 * number), text="ahoj světe") for number in range(1, 8)]
    return {
        "draw_boxes": draw_boxes,
        "Slider": Slider,
        "model": SimpleNamespace(num_parameters=lambda: 1, config=WhisperConfig()),
        "processor": SimpleNamespace(feature_extractor=WhisperFeatureExtractor()),
        "tokenizer": Words(),
        "recipe": SimpleNamespace(audio_context=AudioContext()),
        "samples": np.zeros(4 * 16_000, np.float32),
        "seconds": 4.5,
        "first": clips,
        "after": np.array([[0, 4], [1, 4], [2, 4]] * 20),
        "resamples": 100,
        "report": {"test": {"over": "60 clips"}},
    }


# What a page without a kernel shows of each slider, and how many positions.
SHOWN = {
    "draw_shares": (["Welsh 2 %", "temperature 100"], "<svg", 4),
    "draw_window": (["100 % of 30 s", "window, seconds 4.5"], "<svg", 3),
    "draw_clip": (["␣ahoj", "<audio", 'alt="spectrogram"'], "<img", 2),
    "draw_interval": (["clips 60", "95 % interval: "], "<svg", 5),
}


@pytest.mark.parametrize(
    ("path", "source"), cells_with("Slider"), ids=lambda one: getattr(one, "stem", "")
)
def test_a_slider_has_a_page_that_runs_without_a_kernel(path, source, row, wav):
    namespace = {}
    exec(code_cells(path)[0].source, namespace)  # the lesson's imports
    namespace |= small_lesson(row, wav)
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), path.name, "exec"), namespace)
    slider = eval(compile(ast.Expression(last.value), path.name, "eval"), namespace)
    page = slider._repr_mimebundle_()["text/html"]
    words, part, count = SHOWN[last.value.args[0].id]
    assert [one for one in words if one not in page] == []
    assert page.count(part) == count
    for value in (slider.choice.options[0], slider.choice.options[-1]):
        slider.choice.value = value  # the ends can be drawn, too
