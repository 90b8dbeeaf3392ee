"""What the errors of two models differ in: digits, spelling, or words."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby, zip_longest

import opencc
import regex

from utils.scoring.error_rates import align
from utils.scoring.predictions import MODELS, Row, first_unit
from utils.text import normalize

KINDS = ("digits", "spelling", "words")
# A mark on these letters is an accent, often left out or written differently (ș, ş). On others it
# makes a different letter: Hindi's vowels, Cyrillic й.
ACCENTED = ("LATIN", "GREEK", "ARABIC", "HEBREW")
# Of Arabic script, what keyboards of different countries write for one letter, and the ending that
# loses its dots; hyphens, apostrophes and spaces, which may tie words together or not.
SAME = str.maketrans("يىكةہە", "ییکههه", "-' ")
# Vietnamese marks of tone, each at a vowel of its own choice (hòa, hoà), and the rest of the word.
TONE = regex.compile(r"([\u0300\u0301\u0303\u0309\u0323])([\p{L}\p{M}]+)")


@cache
def _simplifier() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


def fold(text: str, language: str) -> str:
    """Return a normalised text with spelling variants made equal.

    Accents (perché, perche; ş, ș), ligatures and width (ﬁ, Ａ), spaces, hyphens and apostrophes
    (e mail, email), the digits of other scripts, and of Chinese the traditional characters. Not the
    accents of Vietnamese, which are never left out: ma, má and mà are three words.
    """
    kept, base = [], ""
    text = unicodedata.normalize("NFKD", text).casefold()
    if language == "vi":
        text = TONE.sub(r"\2\1", text)
    for char in text:
        if unicodedata.category(char) == "Mn":
            if base.startswith(ACCENTED) and language != "vi":
                continue
        else:
            base = unicodedata.name(char, "")
        kept.append(str(unicodedata.digit(char)) if char.isdecimal() else char)
    text = "".join(kept).translate(SAME)
    return _simplifier().convert(text) if language in ("zh", "yue") else text


def _regions(row: Row, model: str) -> Iterator[list[tuple[str, str]]]:
    """Yield neighbouring pieces that differ, in pairs as jiwer aligns them; "" is nothing."""
    said, hypothesis = (normalize(row[key], row["language"]) for key in ("reference", model))
    output = align([said], [hypothesis], first_unit([row]))
    for is_equal, chunks in groupby(output.alignments[0], lambda chunk: chunk.type == "equal"):
        pairs: list[tuple[str, str]] = []
        for chunk in chunks:
            one = output.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
            other = output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
            pairs += zip_longest(one, other, fillvalue="")
        if not is_equal:
            yield pairs


def _is_number(said: str, hypothesis: str) -> bool:
    """Tell whether one side is written in figures and the other in letters: `uno`, `1`."""
    return any(c.isdecimal() for c in said) != any(c.isdecimal() for c in hypothesis)


def _kinds(pairs: Sequence[tuple[str, str]], language: str) -> Iterator[str]:
    said, hypothesis = (" ".join(side) for side in zip(*pairs, strict=True))
    if fold(said, language) == fold(hypothesis, language):
        yield from ["spelling"] * len(pairs)
        return
    replaced = [pair for pair in pairs if all(pair)]
    # "venti due" and "22": the word left over belongs to the number if nothing else differs here.
    only_numbers = bool(replaced) and all(_is_number(*pair) for pair in replaced)
    for pair in pairs:
        if all(pair) and fold(pair[0], language) == fold(pair[1], language):
            yield "spelling"
        elif only_numbers or (all(pair) and _is_number(*pair)):
            yield "digits"
        else:
            yield "words"


def count_kinds_of_error(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Count a test set's errors, normalised, by what differs.

    A number in figures for one in letters is "digits", whichever number it is: nothing checks that
    they mean the same. What is equal once it is folded (see `fold`) is "spelling".

    Args:
        rows: prediction rows.

    Returns:
        For "digits", "spelling" and "words", the errors `before`, `after` and, where every row has
        it, `after_30s`; their sums are those of `count_errors`.
    """
    models = MODELS if all(row["after_30s"] is not None for row in rows) else MODELS[:2]
    found = {model: Counter() for model in models}
    for model, kinds in found.items():
        for row in rows:
            for pairs in _regions(row, model):
                kinds.update(_kinds(pairs, row["language"]))
    return {kind: {model: found[model][kind] for model in models} for kind in KINDS}


def say_difference(kinds: dict[str, dict[str, int]]) -> str:
    """Return a sentence on how much of the difference from before to after is in each kind.

    After is at 30 s, as other programs decode, if that was measured.
    """
    after = [*kinds["words"]][-1]
    at = " at 30 s" if after == "after_30s" else ""
    change = {kind: one["before"] - one[after] for kind, one in kinds.items()}
    total = sum(change.values())
    if total <= 0:
        errors = sum(one["before"] for one in kinds.values())
        return f"{errors} errors before, {-total} more after{at}."
    parts = [f"{change[kind]} in {kind}" for kind in KINDS]
    return f"Of {total} errors fewer{at}, {', '.join(parts[:-1])} and {parts[-1]}."
