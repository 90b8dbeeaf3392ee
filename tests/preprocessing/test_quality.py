import json
import unicodedata

import numpy as np
import pytest

from utils.config import Preprocessing, RecipeError
from utils.preprocessing.examples import prepare_example
from utils.preprocessing.prepare import PreprocessingError, prepare_split
from utils.preprocessing.quality import QualityReport, Unusable, check_text, level_db
from utils.text import wrong_script_share

RULES = Preprocessing(max_dropped_share=1.0)


@pytest.fixture(scope="module")
def tokenizer(base):
    return base[1].tokenizer


@pytest.fixture
def clip(row, wav):
    """Return a function that makes a row whose sound is its own."""

    def make(number, text=None, **changes):
        audio = wav(1 + number / 100)
        return row(audio=audio, id=str(number), text=text or f"frase numero {number}") | changes

    return make


def report_of(rows, tokenizer, folder, rules=RULES):
    """Report {split: rows} in that order."""
    report = QualityReport(rules)
    for split, part in rows.items():
        (folder / split).mkdir()
        prepare_split(part, tokenizer, folder / split, report, split)
    return report


def test_silence_is_dropped_and_low_speech_is_not(tokenizer, row, wav):
    noise = np.random.default_rng(0).normal(size=16_000)
    for level, kept in ((-60, False), (-40, True)):
        samples = noise * 10 ** (level / 20)
        assert level_db(samples.astype(np.float32)) == pytest.approx(level, abs=1)
        audio = wav(samples=samples, subtype="FLOAT")
        if kept:
            prepare_example(row(audio=audio), tokenizer, RULES)
        else:
            with pytest.raises(Unusable, match="silent"):
                prepare_example(row(audio=audio), tokenizer, RULES)


def test_the_same_sound_and_what_is_tested_on_are_dropped_from_training(tokenizer, clip, tmp_path):
    rows = {
        "test": [clip(1), clip(2)],
        "dev": [clip(3), clip(1, id="other")],
        "train": [
            clip(4),
            clip(5, "Frase numero 2!"),
            clip(3, "un'altra frase", id="again"),
            clip(6),
            clip(6, "con altro testo", id="twin"),
            clip(7, "Frase numero 4?"),
            clip(6),  # the very same clip: what a mix that repeats small sources gives
        ],
    }
    report = report_of(rows, tokenizer, tmp_path)
    assert report.dropped["it", "dev"] == {"same sound as a clip of test": 1}
    assert report.dropped["it", "train"] == {
        "same text as a clip of test": 1,
        "same sound as a clip of dev": 1,
        "same sound as another clip": 1,
    }
    assert report.kept["it", "train"] == 4
    assert report.noted["it", "train"] == {"same text as another clip": 1}
    assert report.kept["it", "test"] == 2


def test_shared_sentences_can_be_allowed(tokenizer, clip, tmp_path):
    rows = {"test": [clip(1, "sì")], "train": [clip(2, "sì"), clip(3, "no")]}
    rules = Preprocessing(drop_tested_sentences=False)
    assert report_of(rows, tokenizer, tmp_path, rules).kept["it", "train"] == 2


def test_what_training_can_live_with_is_noted(tokenizer, clip, wav, tmp_path):
    loud = np.clip(3 * np.sin(np.arange(16_000) / 10), -1, 1)
    rows = [clip(1, audio=wav(samples=loud)), clip(2, unicodedata.normalize("NFD", "perché no"))]
    report = report_of({"train": rows}, tokenizer, tmp_path)
    assert report.kept["it", "train"] == 2
    assert report.noted["it", "train"] == {"clipped": 1, "text not in NFC": 1}
    assert [one["id"] for one in report.examples["clipped"]] == ["1"]


def test_one_bad_source_stops_the_run_also_beside_a_large_good_one(tokenizer, clip, tmp_path):
    rows = [clip(i) for i in range(12)] + [clip(20 + i, " ", source="bad") for i in range(2)]
    with pytest.raises(PreprocessingError, match=r"2 of 2 clips of bad .*\(2 empty transcript\)"):
        report_of({"train": rows}, tokenizer, tmp_path, Preprocessing())
    (tmp_path / "again").mkdir()
    with pytest.raises(PreprocessingError, match="2 of 2 clips of bad"):
        report_of({"again/train": rows}, tokenizer, tmp_path)  # always where nothing is left


def test_table_figure_and_json_agree(tokenizer, clip, tmp_path):
    rows = [clip(1), clip(2, " "), clip(3, "<b>nan</b>"), clip(4, source="it 2")]
    report = report_of({"train": rows}, tokenizer, tmp_path)
    table = report.table()
    assert table["it", "train"].to_dict() == {
        "clips": 3,
        "kept": 2,
        "dropped: empty transcript": 1,
        "kept, but a tag in brackets": 1,
    }
    found = json.loads(json.dumps(report.to_json()))
    assert found["sources"][0] == {
        "source": "it",
        "split": "train",
        "kept": 2,
        "dropped": {"empty transcript": 1},
        "noted": {"a tag in brackets": 1},
    }
    assert found["examples"]["empty transcript"][0]["id"] == "2"
    bars = report.draw().axes[1].patches
    assert [bar.get_width() for bar in bars] == [1, 1]


@pytest.mark.parametrize(
    ("language", "text", "share"),
    [
        ("hi", "मैं हिन्दी बोलता हूँ।", 0.0),
        ("ta", "தமிழ் 3", 0.0),
        ("th", "ที่นี่", 0.0),
        ("ja", "東京タワー です", 0.0),
        ("ko", "안녕 金", 0.0),
        ("sr", "Добро jutro", 0.0),
        ("it", "perché no", 0.0),
        ("ru", "Привет", 0.0),
        ("ru", "Privet", 1.0),
        ("el", "ab Ωω", 0.5),
        ("hi", "123 !", 0.0),
    ],
)
def test_letters_of_another_script_are_counted(language, text, share):
    assert wrong_script_share(text, language) == share


def test_a_language_that_borrows_a_token_names_its_script():
    thaana = "ދިވެހި ބަސް"
    assert wrong_script_share(thaana, "si") == 1
    assert wrong_script_share(thaana, "si", "Thaana") == 0
    with pytest.raises(RecipeError, match='Unicode has no "Tana"'):
        check_text(thaana, "si", Preprocessing(script="Tana"))
