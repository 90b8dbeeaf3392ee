"""The page: the answer first, everything from outside escaped, nothing loaded from anywhere."""

import re

from tests.examples import prediction_rows, recipe
from utils.evaluation.page import build_page, judge, verdict, write_page
from utils.evaluation.report import build_report


def test_the_verdict_says_whether_by_how_much_and_how_sure():
    report = build_report(prediction_rows(60), recipe())
    line = verdict(report).splitlines()[0]
    assert line.startswith("Better. On the test split, the word error rate went from ")
    assert f"{100 * report['summary']['wer_after']:.1f} %" in line
    assert "48 clips" in line and "p = " in line


def test_a_difference_counts_only_where_chance_is_unlikely():
    rates = {"wer_before": 0.2, "wer_after": 0.1}
    assert judge(rates | {"p_value": 0.04}, "wer") == "better"
    assert judge(rates | {"p_value": 0.05}, "wer") == "not proven"
    assert judge({"wer_before": 0.1, "wer_after": 0.2, "p_value": 0.01}, "wer") == "worse"


def test_the_page_opens_with_the_verdict_and_escapes_what_comes_from_outside(tmp_path):
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
    write_page(tmp_path / "page.html", report, rows, recipe())
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.index("On the test split, the word error rate") < page.index("<table")
    assert "train/test" in page


def test_the_page_loads_nothing():
    page = build_page(build_report(prediction_rows(12), recipe()), prediction_rows(12), recipe())
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "url(" not in page and "@import" not in page
    assert 'src="data:image/png;base64,' in page


def test_what_was_not_measured_says_so():
    rows = prediction_rows(12)
    rows = [row | {"after_30s": None} if row["split"] == "unseen" else row for row in rows]
    page = build_page(build_report(rows, recipe()), rows, recipe())
    assert "not measured" in page


def test_a_model_that_loses_its_timestamps_says_so_in_the_answer():
    report = build_report(prediction_rows(12), recipe())
    kept, lost = ({"sequential": {"kept": kept}} for kept in (True, False))
    assert "Timestamps are lost" in verdict(report | {"long_form": {"before": kept, "after": lost}})
    for before, after in ((kept, kept), (lost, lost)):
        long_form = {"before": before, "after": after}
        assert "lost" not in verdict(report | {"long_form": long_form})
