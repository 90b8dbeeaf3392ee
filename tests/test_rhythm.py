"""How the lessons teach: a sentence under each output, pictures, sliders."""

import ast
import re
from types import SimpleNamespace

import numpy as np
import pytest
from test_notebooks import LESSONS, NOTEBOOKS, code_cells, read
from transformers import WhisperConfig, WhisperFeatureExtractor

from utils.config import AudioContext
from utils.environment.diagrams import draw_boxes
from utils.environment.slider import draw_slider

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
    assert len(cells_with("draw_slider")) >= SLIDERS


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
        "draw_slider": draw_slider,
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


# What is in the page of each slider, and at how many positions.
SHOWN = {
    "draw_shares": (["Welsh 2 %", "temperature 100"], ">Welsh ", 10),
    "draw_window": (["100 % of 30 s", "window, seconds 4.5"], ">speech<", 7),
    "draw_clip": (["␣ahoj", "<audio", 'alt="spectrogram"'], "<img", 5),
    "draw_interval": (["clips 60", "95 % interval: "], 'aria-label="95 %', 5),
}


@pytest.mark.parametrize(
    ("path", "source"), cells_with("draw_slider"), ids=lambda one: getattr(one, "stem", "")
)
def test_a_slider_draws_all_of_its_positions(path, source, row, wav):
    namespace = {}
    exec(code_cells(path)[0].source, namespace)  # the lesson's imports
    namespace |= small_lesson(row, wav)
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), path.name, "exec"), namespace)
    page = eval(compile(ast.Expression(last.value), path.name, "eval"), namespace).data
    words, part, count = SHOWN[last.value.args[0].id]
    assert [one for one in words if one not in page] == []
    assert page.count(part) == page.count("data-at=") == count
