"""Counts and rates against jiwer."""

import jiwer
import pytest

from benchmarks.intervals import WORDS, random_pairs
from utils.scoring import error_rates, metrics


@pytest.mark.parametrize("script", WORDS)
def test_wer_and_cer_equal_jiwer(script):
    references, hypotheses = random_pairs(script, 60)
    words = error_rates.count_errors(references, hypotheses, "word")
    chars = error_rates.count_errors(references, hypotheses, "char")
    assert words.shape == chars.shape == (60, 2)
    assert error_rates.error_rate(words) == pytest.approx(jiwer.wer(references, hypotheses))
    assert error_rates.error_rate(chars) == pytest.approx(jiwer.cer(references, hypotheses))
    for (edits, length), said, hypothesis in zip(words, references, hypotheses, strict=True):
        assert edits / length == pytest.approx(jiwer.wer(said, hypothesis))


def test_the_metrics_compute_offline_and_agree_with_jiwer(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    references, hypotheses = random_pairs("Latin", 20)
    wer = metrics.WER().compute(predictions=hypotheses, references=references)
    cer = metrics.CER().compute(predictions=hypotheses, references=references)
    assert wer == {"wer": pytest.approx(jiwer.wer(references, hypotheses))}
    assert cer == {"cer": pytest.approx(jiwer.cer(references, hypotheses))}


def test_a_metric_can_compute_twice():
    metric = metrics.WER()
    assert metric.compute(predictions=["a"], references=["a"]) == {"wer": 0.0}
    assert metric.compute(predictions=["b"], references=["a"]) == {"wer": 1.0}


def test_an_empty_reference_counts_insertions_and_no_length():
    counts = error_rates.count_errors(["", "uno due"], ["tre quattro cinque", "uno due"], "word")
    assert counts.tolist() == [[3, 0], [0, 2]]
    assert error_rates.error_rate(counts) == 1.5
    assert error_rates.error_rate(counts[:1]) == 3.0


def test_an_empty_hypothesis_is_all_deletions():
    assert error_rates.count_errors(["uno due"], [""], "word").tolist() == [[2, 2]]


def test_no_clips_give_no_counts():
    assert error_rates.count_errors([], [], "word").shape == (0, 2)
