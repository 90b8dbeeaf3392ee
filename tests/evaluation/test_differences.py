"""What differs: figures, spellings or words; every error is counted once."""

import pytest

from tests.examples import prediction_rows
from utils.evaluation.differences import count_kinds_of_error, say_difference
from utils.scoring.predictions import count_row_errors


@pytest.mark.parametrize(
    ("language", "said", "hypothesis", "expected"),
    [
        ("it", "premere uno per", "premere 1 per", {"digits": 1}),
        ("it", "interno venti due", "interno 22", {"digits": 2}),
        ("it", "prema due per", "premere 2 per", {"words": 1, "digits": 1}),
        ("it", "interno 12", "interno 13", {"words": 1}),
        ("it", "perché no", "perche no", {"spelling": 1}),
        ("it", "un e mail", "un email", {"spelling": 2}),
        ("ro", "ştiu şi ţara", "știu și țara", {"spelling": 3}),
        ("hi", "की बात", "का बात", {"words": 1}),
        ("ru", "мой дом", "мои дом", {"words": 1}),
        ("fa", "كتاب علي", "کتاب علی", {"spelling": 2}),
        ("ar", "رقم ١٢", "رقم 12", {"spelling": 1}),
        ("ar", "مدرسة أحمد", "مدرسه احمد", {"spelling": 2}),
        ("ur", "یہ کتاب", "یه کتاب", {"spelling": 1}),
        ("vi", "hòa thuỷ", "hoà thủy", {"spelling": 2}),
        ("vi", "ma tôi", "má toi", {"words": 2}),
        ("fr", "élève", "eleve", {"spelling": 1}),
        ("zh", "電話號碼", "电话号码", {"spelling": 4}),
        ("zh", "按一", "按1", {"digits": 1}),
        ("zh", "你好", "您好", {"words": 1}),
        ("it", "uno", "", {"words": 1}),
        ("it", "", "uno", {"words": 1}),
    ],
)
def test_each_error_has_one_kind(language, said, hypothesis, expected):
    row = prediction_rows(1)[0] | {"language": language, "reference": said, "before": hypothesis}
    kinds = count_kinds_of_error([row | {"after": said, "after_30s": None}])
    assert {kind: n["before"] for kind, n in kinds.items() if n["before"]} == expected
    assert all(n["after"] == 0 for n in kinds.values())


def test_kinds_add_up_to_all_errors_and_the_sentence_to_the_difference():
    rows = prediction_rows(60)
    kinds = count_kinds_of_error(rows)
    for model in ("before", "after", "after_30s"):
        edits = count_row_errors(rows, model, "word")[:, 0].sum()
        assert sum(n[model] for n in kinds.values()) == edits
    kinds = {
        "digits": {"before": 14, "after": 1},
        "spelling": {"before": 2, "after": 3},
        "words": {"before": 40, "after": 12},
    }
    assert say_difference(kinds) == (
        "Of 40 errors fewer, 13 in digits, -1 in spelling and 28 in words."
    )
    at_30s = {kind: n | {"after_30s": n["before"]} for kind, n in kinds.items()}
    assert say_difference(at_30s) == "56 errors before, 0 more after at 30 s."
