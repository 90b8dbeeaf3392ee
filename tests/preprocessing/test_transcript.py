import pytest

from utils.config import Preprocessing
from utils.preprocessing.examples import prepare_example
from utils.preprocessing.quality import QualityReport, Unusable
from utils.preprocessing.transcript import read_transcript


@pytest.fixture(scope="module")
def tokenizer(base):
    return base[1].tokenizer


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<|it|> ciao a tutti", "Whisper's own marks"),
        ("ciao <|endoftext|> a tutti", "Whisper's own marks"),
        ("<|startoftranscript|><|0.00|> ciao<|1.00|>", "Whisper's own marks"),
        ("<\u200b|nospeech|> ciao", "Whisper's own marks"),
        ("<|0.00|> ciao a tutti", "Whisper's own marks"),
        ("<|0.50|> ciao<|0.20|>", "Whisper's own marks"),
        ("prima <|0.00|> ciao<|0.50|>", "Whisper's own marks"),
        ("<|0.00|> ciao<|9.00|>", "times beyond the end of the sound"),
        ("<|0.00|> <|0.50|>", "empty transcript"),
        ("\u200b\ufeff", "empty transcript"),
    ],
)
def test_what_would_become_control_tokens_is_refused(tokenizer, row, text, reason):
    with pytest.raises(Unusable, match=reason):
        prepare_example(row(text=text), tokenizer, Preprocessing())


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("\ufeffBuon\u00adgiorno\u200b a\u2060 tutti\u200e", "it", "Buongiorno a tutti"),
        ("\u202bשלום\u202c \x00עולם", "he", "שלום עולם"),
        ("می\u200cخواهم", "fa", "می\u200cخواهم"),  # ZWNJ is spelling
        ("क\u094d\u200dष", "hi", "क\u094d\u200dष"),  # and so is ZWJ
        ("\u06dd١٢", "ar", "\u06dd١٢"),  # the end of a verse is seen
        ("riga\tuna\ndue", "it", "riga una due"),
    ],
)
def test_invisible_characters_go_and_joiners_stay(row, tokenizer, text, language, expected):
    (phrase,) = read_transcript(text, language, Preprocessing())
    assert phrase.text == expected
    report = QualityReport(Preprocessing())
    one = row(text=text, language=language, audio=b"")
    report.keep("train", one, {"audio": b_array(), "text": expected, "seconds": 1.0})
    is_noted = "invisible characters, now gone" in report.noted["it", "train"]
    assert is_noted == (len(text) != len(expected))


def b_array():
    import numpy as np

    return np.arange(16_000, dtype=np.int16)


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("Ciao [laughter] a tutti", "Ciao a tutti"),
        ("Ciao (unintelligible) a tutti", "Ciao a tutti"),
        ("<noise> Ciao <unk>a tutti</noise>", "Ciao a tutti"),
        ("[UNK]Ciao <COMMA> a tutti", "Ciao a tutti"),
        ("你好（笑）【音楽】", "你好"),
        ("제가 (70%)/(칠십 퍼센트) 정도", "제가 70% 정도"),  # written, and as it is said
        ("3 < 4 e 5 > 2, <3", "3 < 4 e 5 > 2, <3"),  # no tags
    ],
)
def test_tags_in_brackets_are_noted_and_one_key_drops_them(tokenizer, row, text, dropped):
    (kept,) = read_transcript(text, "it", Preprocessing())
    assert kept.text == text
    (without,) = read_transcript(text, "it", Preprocessing(drop_tags=True))
    assert without.text == dropped
    report = QualityReport(Preprocessing())
    example = {"audio": b_array(), "text": text, "seconds": 1.0}
    report.keep("train", row(text=text), example)
    assert report.noted["it", "train"]["a tag in brackets"] == (text != dropped)


def test_a_text_of_tags_alone_is_dropped_by_its_name(tokenizer, row):
    with pytest.raises(Unusable, match="nothing but tags in brackets"):
        prepare_example(row(text="[risate] (rumore)"), tokenizer, Preprocessing(drop_tags=True))
