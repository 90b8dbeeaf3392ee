"""The page: the answer first, everything from outside escaped, nothing loaded from anywhere."""

import re

import numpy as np
import pytest

from tests.examples import prediction_rows, recipe
from utils.evaluation.page import verdict, verdict_word, write_page
from utils.evaluation.plotting import draw_speech
from utils.evaluation.report import build_report


@pytest.fixture
def page_of(tmp_path):
    """Return a function that writes the page of a report and its rows, and returns its HTML."""

    def write(report, rows):
        write_page(tmp_path / "page.html", report, rows, recipe())
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("text", "title"),
    [("Tiếng Việt, ọ̀rẹ́", "Tiếng Việt, ọ̀rẹ́"), ("नमस्ते", ""), ("你好", ""), ("\ud83d", "")],
)
def test_a_figure_has_the_text_of_a_clip_if_its_letters_can_be_drawn(text, title, recwarn):
    figure = draw_speech(np.zeros(16_000, np.float32), np.zeros((80, 100)), text)
    figure.canvas.draw()
    assert figure.axes[0].get_title() == title
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_the_verdict_says_whether_by_how_much_and_how_sure():
    rows = prediction_rows(60)
    summary = (report := build_report(rows, recipe()))["summary"]
    test, unseen = verdict(report).splitlines()
    rates = f"{100 * summary['wer_before']:.1f} → {100 * report['test']['wer_after_30s']:.1f} %"
    assert test.startswith(f"Test split, it carlo: word error rate {rates} at 30 s, as other")
    short = f"and {100 * summary['wer_after']:.1f} % in the short window: could be chance (p"
    assert short in test and test.endswith(", 48 clips).")
    assert unseen.startswith("Never trained on, it menardi: word error rate")
    one_window = verdict(build_report([row | {"after_30s": None} for row in rows], recipe()))
    assert f"→ {100 * summary['wer_after']:.1f} %: better" in one_window
    few = [row for row in rows if row["split"] == "unseen" or row["id"] == "clip1"]
    assert "1 test clip(s) tell very little" in verdict(build_report(few, recipe()))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"p_value": 0.04}, "better"),
        ({"p_value": 0.05}, "could be chance"),
        ({"p_value": 0.01, "p_holm": 0.06}, "could be chance"),
        ({"p_value": 0.01, "wer_before": 0.05}, "worse"),
        ({"p_value": 0.01, "first_rate": "cer"}, "worse"),
    ],
)
def test_a_difference_counts_only_where_chance_is_unlikely(changes, word):
    rates = {"first_rate": "wer", "wer_before": 0.2, "wer_after": 0.1}
    rates |= {"cer_before": 0.1, "cer_after": 0.2}
    assert verdict_word(rates | changes) == word


def test_the_page_opens_with_the_verdict_and_escapes_what_comes_from_outside(page_of):
    evil = "<script>alert(1)</script>"
    rows = prediction_rows(12)
    rows = [row | {"source": f"it {evil}", "after": f"{row['after']} {evil}"} for row in rows]
    report = build_report(rows, recipe()) | {
        "probes": {"noise": {"before": evil, "after": ""}},
        "checkpoints": {"before": "embedded/whisper-base", "after": evil},
        "test_read_at": "2026-01-01T00:00:00+00:00",
        "overlaps": {"train/test": {"texts": 1, "clips": 0}},
        "train_stored": False,
    }
    page = page_of(report, rows)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.index("Test split, it ") < page.index("<table")
    assert "train/test" in page


def test_the_page_loads_nothing(page_of):
    page = page_of(build_report(prediction_rows(12), recipe()), prediction_rows(12))
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "url(" not in page and "@import" not in page
    assert 'src="data:image/png;base64,' in page


def test_what_was_not_measured_says_so(page_of):
    rows = prediction_rows(12)
    rows = [row | {"after_30s": None} if row["split"] == "unseen" else row for row in rows]
    assert "not measured" in page_of(build_report(rows, recipe()), rows)


def test_a_model_that_loses_its_timestamps_says_so_in_the_answer():
    report = build_report(prediction_rows(12), recipe())
    kept, lost = ({"kept": kept} for kept in (True, False))
    assert "Timestamps are lost" in verdict(report | {"long_form": {"before": kept, "after": lost}})
    for before, after in ((kept, kept), (lost, lost)):
        long_form = {"before": before, "after": after}
        assert "lost" not in verdict(report | {"long_form": long_form})


def test_the_page_suits_a_phone_greys_few_clips_and_holds_every_part(page_of):
    rows = prediction_rows(60)
    one = {"wer": 0.123456, "cer": 0.1, "segments": 3, "monotonic": True, "past_end_seconds": 0.0}
    one |= {"segment_drift_seconds": None, "word_drift_seconds": 0.123456, "kept": True}
    speed = {"batch_size": 8, "speech_seconds": 1.0, "times_real_time": 2}
    parts = {
        "long_form": {"seconds": 35.0, "before": one, "after": one},
        "speed": {"after_30s": speed},
    }
    page = page_of(build_report(rows, recipe()) | parts, rows)
    assert '<meta name="viewport" content="width=device-width' in page
    assert page.count('<tr class="few">') >= 1 and "it menardi (unseen)" in page
    shown = re.sub(r'src="data:[^"]*"', "", page)  # letters of a figure may spell anything
    assert not re.search(r"\bnan\b", shown, re.I) and not re.search(r"\d\.\d{4}", shown)
    for told in ("What the difference consists of", "struck out", "words off, s", "after at 30 s"):
        assert told in page
