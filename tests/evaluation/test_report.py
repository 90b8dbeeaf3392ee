"""The report, recomputed by other means, and what it says of special cases."""

import json
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest
from datasets import Dataset

from tests.examples import prediction_rows, recipe
from tests.independent import edits, interval
from utils.evaluation.report import (
    band,
    build_report,
    compare_runs,
    comparison_text,
    find_overlaps,
    results_text,
)
from utils.scoring.predictions import SUMMARY_KEYS, load_predictions, percent, save_predictions
from utils.text import normalize


def test_the_report_opens_with_the_fixed_summary_of_the_test_split():
    rows = prediction_rows()
    report = build_report(rows, recipe())
    assert next(iter(report)) == "summary"
    assert tuple(report["summary"]) == SUMMARY_KEYS
    assert set(SUMMARY_KEYS) < set(report["unseen"])
    assert tuple(report["orthographic"]) == SUMMARY_KEYS
    assert report["summary"]["clips"] + report["unseen"]["clips"] == len(rows)
    for name in ("wer_before", "wer_after"):
        summary = report["summary"]
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"]


def test_the_report_is_strict_json():
    report = build_report(prediction_rows(3), recipe())
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_capitals_and_full_stops_cost_only_orthographically():
    report = build_report(prediction_rows(), recipe())
    assert report["orthographic"]["wer_after"] > report["summary"]["wer_after"]
    assert report["error_kinds"]["after"]["form"] > 0


def test_the_reported_rates_equal_jiwer_on_the_predictions_read_back(tmp_path):
    rows = prediction_rows()
    rows[1]["before"] += "\u2028 due\u0085tre \ud7ff “x”"
    save_predictions(tmp_path / "predictions.jsonl", rows)
    back = load_predictions(tmp_path / "predictions.jsonl")
    assert back == rows
    report = build_report(back, recipe())
    assert report == build_report(rows, recipe())
    test = [row for row in back if row["split"] == "test"]
    for model in ("before", "after"):
        said, hypothesis = (
            [normalize(row[key], row["language"]) for row in test] for key in ("reference", model)
        )
        assert report["summary"][f"wer_{model}"] == pytest.approx(jiwer.wer(said, hypothesis))
        assert report["summary"][f"cer_{model}"] == pytest.approx(jiwer.cer(said, hypothesis))


def test_without_short_context_and_unseen_source_their_parts_are_null():
    rows = [row | {"split": "test"} for row in prediction_rows(after_30s=False)]
    report = build_report(rows, recipe())
    assert "wer_after_30s" not in report["test"]
    assert report["unseen"] is None


def test_a_language_without_word_spaces_is_read_by_characters_first():
    rows = [*prediction_rows(), prediction_rows(1)[0] | {"language": "th", "split": "test"}]
    assert build_report(rows, recipe())["first_rate"] == "cer"
    assert build_report(rows[:-1], recipe())["first_rate"] == "wer"


def test_no_test_clip_is_an_error_that_names_the_recipe():
    rows = [row | {"split": "unseen"} for row in prediction_rows(3)]
    with pytest.raises(ValueError, match=r"recipes/other\.toml.*test split"):
        build_report(rows, replace(recipe(), path=Path("recipes/other.toml")))


def test_every_source_has_rates_with_intervals():
    languages = build_report(prediction_rows(), recipe())["languages"]
    assert set(languages) == {"it carlo", "it menardi"}
    assert languages["it menardi"]["split"] == "unseen"
    assert {"cer_before_low", "cer_after_high", "wer_after_30s"} <= set(languages["it carlo"])


def test_every_figure_recomputed_without_jiwer_and_scipy_agrees_to_the_last_digit():
    rows = prediction_rows()
    report = build_report(rows, recipe())
    test = [row for row in rows if row["split"] == "test"]
    for model in ("before", "after"):
        for unit in ("word", "char"):
            counts = np.array([edits(row, model, unit) for row in test])
            rate = f"{unit[0]}er_{model}"
            assert report["summary"][rate] == counts[:, 0].sum() / counts[:, 1].sum()
            low, high = interval(counts, 200)
            assert report["test"][f"{rate}_low"] == pytest.approx(low, rel=1e-9)
            assert report["test"][f"{rate}_high"] == pytest.approx(high, rel=1e-9)


def test_kinds_of_edits_add_up_to_the_rate():
    rows = prediction_rows()
    report = build_report(rows, recipe())
    for model, kinds in report["edits"].items():
        wrong = sum(n for kind, n in kinds.items() if kind != "hits")
        said = kinds["hits"] + kinds["substitutions"] + kinds["deletions"]
        assert report["test"][f"wer_{model}"] == wrong / said
    models = {"before", "after", "after_30s"}  # the card tells what other programs will see
    assert report["edits"].keys() == report["errors"].keys() == report["flags"].keys() == models


def test_untrained_languages_are_counted_apart():
    foreign = [row | {"language": "en", "split": "untrained"} for row in prediction_rows(6)]
    report = build_report([*prediction_rows(), *foreign], recipe())
    assert report["untrained"]["clips"] == 6
    assert report["summary"] == build_report(prediction_rows(), recipe())["summary"]
    assert build_report(prediction_rows(), recipe())["untrained"] is None


def test_bands_have_names_and_no_gap():
    assert band(0.4, (1, 2), "s") == "under 1 s"
    assert band(1, (1, 2), "s") == "1 to 2 s"
    assert band(2, (1, 2), "s") == "from 2 s"


def test_every_breakdown_holds_every_test_clip_once():
    report = build_report(prediction_rows(), recipe())
    assert set(report["breakdowns"]) == {"language", "duration", "snr"}
    for groups in report["breakdowns"].values():
        assert sum(one["clips"] for one in groups.values()) == report["summary"]["clips"]


def test_speakers_are_drawn_where_they_are_known_and_many():
    rows = prediction_rows(120)
    named = [row | {"speaker": f"speaker {number // 3}"} for number, row in enumerate(rows)]
    report, by_clips = build_report(named, recipe()), build_report(rows, recipe())
    assert (report["test"]["over"], by_clips["test"]["over"]) == ("40 speakers", "96 clips")
    assert report["unseen"]["over"] == "24 speakers"
    assert len(report["breakdowns"]["speaker"]) == 12
    assert report["summary"]["wer_after"] == by_clips["summary"]["wer_after"]
    few = [row | {"speaker": f"speaker {number % 9}"} for number, row in enumerate(rows)]
    assert build_report(few, recipe())["test"]["over"] == "96 clips"


def test_a_speakers_clips_change_sides_together():
    """One speaker of twelve gains in forty clips: that is one observation, not forty."""
    row = prediction_rows(1)[0] | {"reference": "uno due", "before": "uno", "after": "uno"}
    rows = [row | {"id": str(n), "speaker": f"s{n % 11}"} for n in range(22)]
    rows += [row | {"id": f"x{n}", "speaker": "x", "after": "uno due"} for n in range(40)]
    report = build_report([one | {"split": "test"} for one in rows], recipe())
    assert report["test"]["p_value"] > 0.5
    apart = [one | {"split": "test", "speaker": ""} for one in rows]
    assert build_report(apart, recipe())["test"]["p_value"] < 0.05


def test_p_values_of_one_table_are_corrected_for_their_number():
    rows = [row | {"source": f"it {n % 4}"} for n, row in enumerate(prediction_rows(80))]
    languages = build_report(rows, recipe())["languages"].values()
    assert len(languages) == 4
    lowest = min(languages, key=lambda one: one["p_value"])
    assert lowest["p_holm"] == pytest.approx(min(4 * lowest["p_value"], 1))
    for groups in build_report(rows, recipe())["breakdowns"].values():
        assert not any("p_value" in one for one in groups.values())


def test_a_sentence_or_clip_in_two_splits_is_found():
    def split(texts, sounds):
        columns = {"text": texts, "language": ["it"] * len(texts), "audio": sounds}
        columns |= {
            "cut_samples": [[len(one)] for one in sounds],
            "cut_tokens": [[1]] * len(sounds),
        }
        return Dataset.from_dict(columns)

    overlaps = find_overlaps(
        {
            "train": split(["Uno due.", "tre"], [[1, 2], [3, 4]]),
            "dev": split(["uno due", "sei"], [[7], [8]]),
            "test": split(["nove", "dieci"], [[3, 4], [9]]),
            "unseen": split(["nove"], [[9]]),
        }
    )
    assert overlaps["train/dev"] == {"texts": 1, "clips": 0}
    assert overlaps["train/test"] == {"texts": 0, "clips": 1}
    assert overlaps["dev/test"] == {"texts": 0, "clips": 0}
    assert "test/unseen" not in overlaps, "two tests may share a sentence"


def test_runs_are_compared_on_the_clips_that_all_have_read():
    rows = prediction_rows(60)
    worse = [row | {"after": row["before"]} for row in rows[:40]]
    table = compare_runs({"runs/a": rows, "runs/b": worse}, 200)
    carlo = [row for row in table if row["source"] == "it carlo"]
    assert [row["clips"] for row in carlo] == [32, 32]
    assert [row["worse"] for row in carlo] == [False, True]
    assert not any(row["worse"] for row in compare_runs({"b": worse, "a": rows}, 200))
    first, second = (line for line in comparison_text(table).splitlines() if "carlo" in line)
    assert first.split()[-1] == "first" and float(second.split()[-1]) < 0.05
    assert compare_runs({"a": rows[:3], "b": rows[9:12]}, 200) == []


def test_the_table_of_a_run_leads_with_30_s_and_its_p():
    rows = [row | {"after_30s": row["before"]} for row in prediction_rows(60)]
    languages = build_report(rows, recipe())["languages"]
    named = {"it a folder with a long name": languages["it carlo"]} | languages
    first = results_text(named).splitlines()
    assert len({line.index("%") for line in first[1:]}) == 1, "columns are not below each other"
    assert first[0].index("WER after, at 30 s") < first[0].index("short window")
    carlo = next(line for line in first if line.startswith("it carlo"))
    same = percent(languages["it carlo"], "wer_before")
    assert carlo.count(same) == 2 and carlo.split()[-1] == "1.00"
    languages = build_report(prediction_rows(60, after_30s=False), recipe())["languages"]
    assert "short window" not in results_text(languages)


def test_the_table_of_a_run_leads_with_characters_where_words_have_no_spaces():
    rows = [row | {"language": "th"} for row in prediction_rows(20)]
    languages = build_report(rows, recipe())["languages"]
    head, first, *_ = results_text(languages).splitlines()
    assert head.split()[2:4] == ["CER", "before"] and head.split()[-2:] == ["WER", "p"]
    assert percent(next(iter(languages.values())), "cer_before") in first
