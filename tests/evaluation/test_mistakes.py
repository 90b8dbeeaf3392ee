"""Errors that a person reads: their kinds, their places, and diffs that escape what they show."""

import numpy as np
import pytest
import regex

from tests.examples import prediction_rows
from utils.evaluation import mistakes
from utils.scoring.predictions import count_row_errors
from utils.text import MAX_COMPRESSION, compression_ratio


def test_the_diff_escapes_what_it_shows():
    html = mistakes.word_diff_html("<script>alert(1)</script> a & b", "<img onerror=x> a & c")
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_the_diff_marks_with_tags_and_not_by_colour_alone():
    html = mistakes.word_diff_html("premere il tasto uno ora", "premere tasto uno due ora")
    assert "il</del> tasto uno <ins" in html
    assert "due</ins> ora" in html
    assert "line-through" in html
    assert "underline" in html


@pytest.mark.parametrize(
    ("said", "hypothesis"), [("ไม่รู้", "ไม้รู้"), ("ကျွန်တော်", "ကျွန်တို"), ("កម្ពុជា", "កម្ពុជែ")]
)
def test_no_mark_stands_without_its_letter_where_characters_are_compared(said, hypothesis):
    html = mistakes.word_diff_html(said, hypothesis, "char")
    assert "<del" in html and not regex.search(r">\p{M}", html)
    row = prediction_rows(1)[0] | {"language": "th", "reference": said, "before": hypothesis}
    assert not any(regex.match(r"\p{M}", said) for said, _, _ in mistakes.find_edits(row, "before"))


def test_the_diff_of_equal_texts_has_no_marks():
    assert mistakes.word_diff_html("uno due", "uno due") == '<span dir="auto">uno due</span>'


def test_the_clip_table_escapes_and_embeds_a_player():
    row = prediction_rows(1)[0] | {"source": "<b>it</b>", "before": "<script>x</script>"}
    html = mistakes.clips_html([row], {row["id"]: np.zeros(16_000, np.float32)})
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
    errors = mistakes.frequent_errors(rows, "before")
    assert errors["substitutions"] == [
        {"said": "tre", "hypothesis": "sei", "times": 2, "contexts": ["uno due [tre]", "[tre]"]}
    ]
    assert errors["deletions"] == []
    assert [error["contexts"] for error in errors["insertions"]] == [["[] cinque"]]
    edits = sum(error["times"] for kind in errors.values() for error in kind)
    assert edits == count_row_errors(rows, "before", "word")[:, 0].sum()


def test_errors_of_form_are_told_from_wrong_words():
    row = prediction_rows(1)[0] | {"reference": "C'è acqua, qui.", "before": "c’è acqua lì."}
    assert mistakes.error_kinds([row], "before") == {
        "words": 1,
        "form": 2,
        "script": 0,
        "form_share": pytest.approx(2 / 3),
    }


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "expected"),
    [
        ("it", "uno due", "uno " * 12, True),
        ("it", "uno due", "uno " * 11, False),
        ("th", "ครับ", "ครับ" * 5, True),
        ("th", "ครับ", "ครับ" * 2, False),
    ],
)
def test_runaways_are_found_with_and_without_word_spaces(language, reference, hypothesis, expected):
    row = {"language": language, "reference": reference, "before": hypothesis}
    assert mistakes.is_runaway(row, "before") is expected


def test_the_worst_clips_come_first():
    rows = prediction_rows()
    worst = mistakes.find_worst(rows, 4)
    edits = count_row_errors(rows, "after", "word")[:, 0]
    shown = count_row_errors(worst, "after", "word")[:, 0]
    assert shown.tolist() == sorted(edits, reverse=True)[:4]


def test_a_word_in_another_alphabet_is_an_error_of_script():
    row = prediction_rows(1)[0] | {"reference": "uno due", "before": "уно due"}
    assert mistakes.error_kinds([row], "before")["script"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பிலும், உரிமைகளிலும் "
        "சமமானவர்கள், அவர்கள் நியாயத்தையும் மனச்சாட்சியையும் இயற்பண்பாகப் பெற்றவர்கள். அவர்கள் "
        "ஒருவருடனொருவர் சகோதர உணர்வுப் பாங்கில் நடந்துகொள்ளல் வேண்டும்.",
        "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით. მათ "
        "მინიჭებული აქვთ გონება და სინდისი და ერთმანეთის მიმართ უნდა იქცეოდნენ ძმობის "
        "სულისკვეთებით.",
    ],
    ids=["Tamil", "Georgian"],
)
def test_a_script_of_three_bytes_a_letter_is_no_repetition(text):
    assert compression_ratio(text) < 1.6 < MAX_COMPRESSION < compression_ratio(text[:20] * 8)


def test_a_text_that_repeats_itself_is_flagged_and_an_ordinary_one_is_not():
    row = prediction_rows(1)[0] | {"reference": "premere il tasto uno", "seconds": 3.0}
    loop = row | {"before": "premere il tasto uno " * 20}
    flags = mistakes.find_flags([row | {"before": "premere il tasto"}, loop], "before")
    assert flags["runaway"] == flags["repetitive"] == flags["too_fast"] == 1
    assert flags["flagged_share"] == 0.5
    assert flags["words_per_second"] == pytest.approx((3 + 80) / 6)
