"""Error rates, intervals, tests of difference, tables and the report."""

import json
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest

from utils import evaluation
from utils.config import AudioContext, Evaluation, Model, Recipe, Source
from utils.text import normalize

ALPHABETS = {
    "it": ["casa", "acqua", "premere", "c'è", "perché", "tasto", "uno", "due"],
    "hi": ["नमस्ते", "हिन्दी", "में", "बोलिए", "की", "का"],
    "ru": ["нажмите", "кнопку", "ещё", "раз", "пожалуйста"],
    "th": ["ที่นี่", "ไม่", "ไม้", "ครับ"],
}


def random_pairs(language: str, clips: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Sentences of the language's words, and copies with words replaced, dropped and added."""
    random = np.random.default_rng(seed)
    words = ALPHABETS[language]
    references, hypotheses = [], []
    for _ in range(clips):
        said = list(random.choice(words, random.integers(1, 9)))
        heard = [random.choice(words) if random.random() < 0.2 else word for word in said]
        heard = [word for word in heard if random.random() > 0.1]
        heard += list(random.choice(words, random.integers(0, 2)))
        references.append(" ".join(said))
        hypotheses.append(" ".join(heard))
    return references, hypotheses


def prediction_rows(clips: int = 30, after_30s: bool = True) -> list[dict]:
    """Rows of one Italian and one unseen source: `after` has fewer errors than `before`."""
    references, before = random_pairs("it", clips)
    _, worse = random_pairs("it", clips)
    rows = []
    for number, (said, heard) in enumerate(zip(references, before, strict=True)):
        after = said.capitalize() + "." if number % 3 else heard
        rows.append(
            {
                "id": f"clip{number}",
                "source": "it carlo" if number % 5 else "it menardi",
                "language": "it",
                "seconds": 2.5,
                "split": "test" if number % 5 else "unseen",
                "reference": said,
                "before": heard,
                "after": after,
                "after_30s": worse[number] if after_30s else None,
            }
        )
    return rows


def recipe(resamples: int = 200) -> Recipe:
    return Recipe(
        path=Path("recipes/example.toml"),
        model=Model("embedded/whisper-base"),
        sources=(Source("embedded", "it", "carlo"),),
        training={},
        audio_context=AudioContext(),
        evaluation=Evaluation(resamples=resamples),
    )


@pytest.mark.parametrize("language", ALPHABETS)
def test_wer_and_cer_equal_jiwer(language):
    references, hypotheses = random_pairs(language, 60)
    words = evaluation.count_errors(references, hypotheses, "word")
    chars = evaluation.count_errors(references, hypotheses, "char")
    assert words.shape == chars.shape == (60, 2)
    assert evaluation.error_rate(words) == pytest.approx(jiwer.wer(references, hypotheses))
    assert evaluation.error_rate(chars) == pytest.approx(jiwer.cer(references, hypotheses))
    for (edits, length), said, heard in zip(words, references, hypotheses, strict=True):
        assert edits / length == pytest.approx(jiwer.wer(said, heard))


def test_the_metrics_compute_offline_and_agree_with_jiwer(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    references, hypotheses = random_pairs("it", 20)
    wer = evaluation.WER().compute(predictions=hypotheses, references=references)
    cer = evaluation.CER().compute(predictions=hypotheses, references=references)
    assert wer == {"wer": pytest.approx(jiwer.wer(references, hypotheses))}
    assert cer == {"cer": pytest.approx(jiwer.cer(references, hypotheses))}


def test_a_metric_can_compute_twice():
    metric = evaluation.WER()
    assert metric.compute(predictions=["a"], references=["a"]) == {"wer": 0.0}
    assert metric.compute(predictions=["b"], references=["a"]) == {"wer": 1.0}


def test_an_empty_reference_counts_insertions_and_no_length():
    counts = evaluation.count_errors(["", "uno due"], ["tre quattro cinque", "uno due"], "word")
    assert counts.tolist() == [[3, 0], [0, 2]]
    assert evaluation.error_rate(counts) == 1.5
    assert evaluation.error_rate(counts[:1]) == 3.0


def test_an_empty_hypothesis_is_all_deletions():
    assert evaluation.count_errors(["uno due"], [""], "word").tolist() == [[2, 2]]


def test_no_clips_give_no_counts():
    assert evaluation.count_errors([], [], "word").shape == (0, 2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(7)
    hits, trials, clips, rate = 0, 150, 60, 0.15
    for trial in range(trials):
        lengths = random.integers(2, 14, clips)
        counts = np.stack([random.binomial(lengths, rate), lengths], axis=1)
        low, high = evaluation.confidence_interval(counts, 300, seed=trial)
        hits += low <= rate <= high
    assert 0.88 <= hits / trials <= 0.99


def test_the_interval_narrows_as_clips_are_added():
    references, hypotheses = random_pairs("it", 400)
    counts = evaluation.count_errors(references, hypotheses, "word")
    few = evaluation.confidence_interval(counts[:25], 300)
    many = evaluation.confidence_interval(counts, 300)
    assert many[1] - many[0] < (few[1] - few[0]) / 2


def test_the_interval_is_the_same_for_the_same_seed():
    counts = evaluation.count_errors(*random_pairs("it", 20), "word")
    assert evaluation.confidence_interval(counts, 100) == evaluation.confidence_interval(
        counts, 100
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([[0, 5]] * 10, (0.0, 0.0)), ([[1, 4]], (0.25, 0.25)), ([[0, 0], [2, 0]], None)],
)
def test_degenerate_intervals_are_finite(counts, expected):
    low, high = evaluation.confidence_interval(np.array(counts), 100)
    assert np.isfinite([low, high]).all()
    assert low <= evaluation.error_rate(np.array(counts)) <= high
    assert expected is None or (low, high) == expected


def test_p_value_is_small_for_a_clear_gain_and_large_for_none():
    random = np.random.default_rng(3)
    lengths = random.integers(3, 12, 60)
    before = np.stack([random.binomial(lengths, 0.3), lengths], axis=1)
    better = np.stack([random.binomial(lengths, 0.05), lengths], axis=1)
    equal = np.stack([random.binomial(lengths, 0.3), lengths], axis=1)
    assert evaluation.paired_p_value(before, better, 500) < 0.01
    assert evaluation.paired_p_value(better, before, 500) < 0.01, "two-sided: a loss counts too"
    assert evaluation.paired_p_value(before, equal, 500) > 0.05
    assert evaluation.paired_p_value(before, before, 500) == 1.0


def test_p_value_of_few_clips_is_exact():
    before, after = np.array([[2, 5]] * 4), np.array([[0, 5]] * 4)
    assert evaluation.paired_p_value(before, after, 500) == pytest.approx(2 / 2**4)
    assert evaluation.paired_p_value(before[:1], after[:1], 500) == 1.0


def test_the_diff_escapes_what_it_shows():
    html = evaluation.word_diff_html("<script>alert(1)</script> a & b", "<img onerror=x> a & c")
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_the_diff_marks_with_tags_and_not_by_colour_alone():
    html = evaluation.word_diff_html("premere il tasto uno ora", "premere tasto uno due ora")
    assert "il</del> tasto uno <ins" in html
    assert "due</ins> ora" in html
    assert "line-through" in html
    assert "underline" in html


def test_the_diff_of_equal_texts_has_no_marks():
    assert evaluation.word_diff_html("uno due", "uno due") == '<span dir="auto">uno due</span>'


def test_the_clip_table_escapes_and_embeds_a_player():
    row = prediction_rows(1)[0] | {"source": "<b>it</b>", "before": "<script>x</script>"}
    html = evaluation.clips_html([row], {row["id"]: np.zeros(16_000, np.float32)})
    assert "data:audio/wav;base64," in html
    assert "<script" not in html
    assert "<b>" not in html


def test_frequent_errors_are_counted_by_word():
    row = prediction_rows(1)[0]
    rows = [
        row | {"reference": "uno due tre", "before": "Uno due. sei"},
        row | {"reference": "tre", "before": "sei"},
        row | {"reference": "cinque", "before": "e cinque"},
    ]
    errors = evaluation.frequent_errors(rows, "before")
    assert errors["substitutions"] == [["tre", "sei", 2]]
    assert errors["deletions"] == []
    assert errors["insertions"] == [["e", 1]]
    edits = sum(times for kind in errors.values() for *_, times in kind)
    assert edits == evaluation.count_row_errors(rows, "before", "word")[:, 0].sum()


def test_errors_of_form_are_told_from_wrong_words():
    row = prediction_rows(1)[0] | {"reference": "C'è acqua, qui.", "before": "c’è acqua lì."}
    assert evaluation.error_kinds([row], "before") == {
        "words": 1,
        "form": 2,
        "form_share": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize(
    ("language", "reference", "heard", "expected"),
    [
        ("it", "uno due", "uno " * 12, True),
        ("it", "uno due", "uno " * 11, False),
        ("th", "ครับ", "ครับ" * 5, True),
        ("th", "ครับ", "ครับ" * 2, False),
    ],
)
def test_runaways_are_found_with_and_without_word_spaces(language, reference, heard, expected):
    row = {"language": language, "reference": reference, "before": heard}
    assert evaluation.is_runaway(row, "before") is expected


def test_the_report_opens_with_the_fixed_summary_of_the_test_split():
    rows = prediction_rows()
    report = evaluation.build_report(rows, recipe())
    assert next(iter(report)) == "summary"
    assert tuple(report["summary"]) == evaluation.SUMMARY_KEYS
    assert tuple(report["unseen"]) == evaluation.SUMMARY_KEYS
    assert tuple(report["orthographic"]) == evaluation.SUMMARY_KEYS
    assert report["summary"]["clips"] + report["unseen"]["clips"] == len(rows)
    for name in ("wer_before", "wer_after"):
        summary = report["summary"]
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"]


def test_the_report_is_strict_json():
    report = evaluation.build_report(prediction_rows(3), recipe())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_capitals_and_full_stops_cost_only_orthographically():
    report = evaluation.build_report(prediction_rows(), recipe())
    assert report["orthographic"]["wer_after"] > report["summary"]["wer_after"]
    assert report["error_kinds"]["after"]["form"] > 0


def test_the_reported_rates_equal_jiwer_on_the_predictions_read_back(tmp_path):
    rows = prediction_rows()
    rows[1]["before"] += "\u2028 due\u0085tre \ud7ff “x”"
    evaluation.save_predictions(tmp_path / "predictions.jsonl", rows)
    back = evaluation.load_predictions(tmp_path / "predictions.jsonl")
    assert back == rows
    report = evaluation.build_report(back, recipe())
    assert report == evaluation.build_report(rows, recipe())
    test = [row for row in back if row["split"] == "test"]
    for model in ("before", "after"):
        said, heard = (
            [normalize(row[key], row["language"]) for row in test] for key in ("reference", model)
        )
        assert report["summary"][f"wer_{model}"] == pytest.approx(jiwer.wer(said, heard))
        assert report["summary"][f"cer_{model}"] == pytest.approx(jiwer.cer(said, heard))


def test_without_short_context_and_unseen_source_their_parts_are_null():
    rows = [row | {"split": "test"} for row in prediction_rows(after_30s=False)]
    report = evaluation.build_report(rows, recipe())
    assert report["after_30s"] is None
    assert report["unseen"] is None


def test_every_source_has_rates_with_intervals():
    languages = evaluation.build_report(prediction_rows(), recipe())["languages"]
    assert set(languages) == {"it carlo", "it menardi"}
    assert languages["it menardi"]["split"] == "unseen"
    assert {"cer_before_low", "cer_after_high", "wer_after_30s"} <= set(languages["it carlo"])


def test_a_language_without_word_spaces_is_read_by_characters_first():
    rows = [*prediction_rows(), prediction_rows(1)[0] | {"language": "th", "split": "test"}]
    assert evaluation.build_report(rows, recipe())["first_rate"] == "cer"
    assert evaluation.build_report(rows[:-1], recipe())["first_rate"] == "wer"


def test_no_test_clip_is_an_error_that_names_the_recipe():
    rows = [row | {"split": "unseen"} for row in prediction_rows(3)]
    with pytest.raises(ValueError, match=r"recipes/other\.toml.*test split"):
        evaluation.build_report(rows, replace(recipe(), path=Path("recipes/other.toml")))


def test_the_worst_clips_come_first():
    rows = prediction_rows()
    worst = evaluation.find_worst(rows, 4)
    edits = evaluation.count_row_errors(rows, "after", "word")[:, 0]
    shown = evaluation.count_row_errors(worst, "after", "word")[:, 0]
    assert shown.tolist() == sorted(edits, reverse=True)[:4]
