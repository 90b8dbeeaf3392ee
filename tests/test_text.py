"""Normalising and casing: what is kept, what goes, in the scripts of the world."""

import unicodedata

import pytest

from utils.text import (
    LANGUAGE_NAMES,
    apply_casing,
    has_word_spaces,
    languages,
    leading_unit,
    nearest_language,
    normalize,
    normalizer_name,
)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("hi", "नमस्ते, दुनिया।", "नमस्ते दुनिया"),
        ("ta", "தமிழ் மொழி!", "தமிழ் மொழி"),
        ("dv", "ދިވެހި ބަސް،", "ދިވެހި ބަސް"),
        ("ar", "مُحَمَّدٌ؟", "مُحَمَّدٌ"),
        ("vi", "Tiếng Việt.", "tiếng việt"),
    ],
)
def test_normalize_keeps_combining_marks(language, text, expected):
    assert normalize(text, language) == unicodedata.normalize("NFC", expected)


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("it", ["C'è l'acqua.", "c’è l’acqua", "c`è l´acqua"]),
        ("uk", ["м'яч", "мʼяч", "м’яч"]),
        ("ru", ["Ёлка её", "елка ее"]),
        ("tr", ["IŞIK İstanbul", "ışık istanbul"]),
        ("hy", ["Ինչո՞ւ", "ինչու"]),
        ("fr", ["ça", "c\u0327a"]),
        ("fa", ["می\u200cخواهم", "میخواهم"]),
        ("ar", ["ســلام", "سلام"]),
        ("he", ['צה"ל', "צה״ל", "צה”ל"]),
        ("ja", ["今日は、いい天気。", "今日は いい天気"]),
        ("ja", ["（笑）今日は【音楽】", "(笑)今日は[音楽]", "今日は"]),
        ("vi", ["Tiếng Việt", "Tie\u0302\u0301ng Vie\u0323\u0302t"]),
        ("yo", ["ọ̀rẹ́", "o\u0300\u0323re\u0301\u0323"]),
        ("ko", ["한국어", "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165"]),
        ("es", ["¿Qué?", "qué"]),
        ("en", ["Don’t colour it", "do not color it"]),
    ],
)
def test_ways_of_writing_the_same_normalize_to_the_same(language, texts):
    assert len({normalize(text, language) for text in texts}) == 1


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [("hi", "की", "का"), ("it", "è", "e"), ("es", "qué", "que"), ("th", "ไม่", "ไม้")],
)
def test_words_that_differ_by_a_mark_stay_different(language, one, other):
    assert normalize(one, language) != normalize(other, language)


def test_an_apostrophe_separates_two_words_in_normalized_text():
    assert normalize("c'è l'acqua", "it") == "c è l acqua"


@pytest.mark.parametrize("text", ["", "   ", "...", "¿?", "\ufeff"])
def test_text_without_words_normalizes_to_the_empty_string(text):
    assert normalize(text, "es") == ""


def test_languages_without_word_spaces_are_known():
    assert not any(has_word_spaces(code) for code in ("zh", "ja", "th", "my", "km", "lo"))
    assert all(has_word_spaces(code) for code in ("it", "hi", "ko", "vi", "ar"))


def test_the_name_of_the_normalizer_tells_languages_apart():
    assert "English" in normalizer_name("en")
    assert "marks kept" in normalizer_name("hi")


def test_casing_leaves_the_text_alone_but_for_spaces_and_composition():
    assert apply_casing("  E\u0300 vero:\tC'è  ", False, False) == "È vero: C'è"


def test_lower_case_alone_keeps_punctuation():
    assert apply_casing("È vero: C'è!", True, False) == "è vero: c'è!"


def test_remove_punctuation_keeps_case_inner_apostrophes_marks_and_spoken_signs():
    text = "«L'auto», un po' cara: 3,5 % alle 12:30 — हिन्दी।"
    assert apply_casing(text, False, True) == "L'auto un po cara 3,5 % alle 12:30 हिन्दी"


def test_remove_punctuation_keeps_hebrew_acronyms_whole_however_they_are_typed():
    assert apply_casing('ד"ר כהן, "שלום" בארה״ב', False, True, "he") == 'ד"ר כהן שלום בארה״ב'


def test_turkish_has_its_own_lower_case():
    assert apply_casing("IŞIK İZMİR", True, False, "tr") == "ışık izmir"
    assert apply_casing("IŞIK", True, False, "de") == "işik"


def test_punctuation_leaves_no_gap_where_words_have_none():
    assert apply_casing("今日は、いい天気。", False, True, "ja") == "今日はいい天気"


@pytest.mark.parametrize("lower_case", [False, True])
@pytest.mark.parametrize("remove_punctuation", [False, True])
def test_casing_twice_is_casing_once(lower_case, remove_punctuation):
    text = "C'è l’ACQUA: -- İyi, ინგლ... «3,5»"
    once = apply_casing(text, lower_case, remove_punctuation)
    assert apply_casing(once, lower_case, remove_punctuation) == once


@pytest.mark.parametrize(
    ("codes", "unit"),
    [
        ("it", "word"),
        ("it hi ko", "word"),
        ("zh", "char"),
        ("it ja", "char"),
        ("th lo km my bo yue", "char"),
    ],
)
def test_characters_lead_as_soon_as_one_language_has_no_word_spaces(codes, unit):
    assert leading_unit(codes.split()) == unit


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *[("Italian", "it"), ("IT", "it"), ("it-IT", "it"), ("ita", "it"), ("italiano", "it")],
        *[("zh-CN", "zh"), ("zh_TW", "zh"), ("cmn-Hans-CN", "zh"), ("Mandarin", "zh")],
        *[("zh-Hant-HK", "yue"), ("Chinese (Cantonese)", "yue"), ("yue-Hant", "yue")],
        *[("en-HK", "en"), ("Norwegian Nynorsk", "nn"), ("Norwegian Bokmål", "no")],
        *[("zh-HK", "yue"), ("nb", "no"), ("nb-NO", "no"), ("nn-NO", "nn"), ("iw", "he")],
        *[("fil", "tl"), ("jv", "jw"), ("sr-Latn", "sr"), ("Castilian", "es"), ("Deutsch", "de")],
        *[("Brazilian Portuguese", "pt"), ("Portuguese (Brazil)", "pt"), ("Spannish", "es")],
        *[("haitian-creole", "ht"), (" Français ", "fr"), ("čeština", "cs"), ("日本語", "ja")],
        # Languages that Whisper lacks are nobody else's.
        *[(name, "") for name in ("fur", "Friulian", "dv", "Dhivehi", "sc", "lug", "", "x" * 999)],
    ],
)
def test_a_language_is_found_by_name_region_and_alias(name, code):
    assert nearest_language(name) == code


def test_every_language_is_its_own_nearest_by_code_and_by_name():
    wrong = {
        c: n for c, n in languages().items() if {nearest_language(c), nearest_language(n)} != {c}
    }
    assert wrong == {}
    assert set(LANGUAGE_NAMES.values()) <= set(languages())
    assert set(LANGUAGE_NAMES).isdisjoint(languages())
