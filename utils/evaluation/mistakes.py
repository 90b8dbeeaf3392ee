"""Errors as a person wants to see them: edits in context, kinds of errors, diffs in colour."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex
from markupsafe import Markup, escape
from rapidfuzz.distance import Levenshtein

from utils.environment.templates import render
from utils.scoring.error_rates import Unit, count_errors
from utils.scoring.predictions import Row, count_row_errors, first_unit
from utils.text import (
    MAX_COMPRESSION,
    compression_ratio,
    has_word_spaces,
    normalize,
    units_of,
    word_gap,
)
from utils.whisper.audio_context import SAMPLING_RATE

TEMPLATE = Path(__file__).with_name("clips.html")
MAX_WORDS_PER_SECOND = 8  # nobody speaks faster for the length of a clip
CONTEXT_WORDS = 2  # shown on each side of an error


class Edit(NamedTuple):
    """One word (or character) that differs: "" hypothesis is a deletion, "" said an insertion."""

    said: str
    hypothesis: str
    context: str  # what was said around it, the place marked: "premere il [uno] per"


def find_edits(row: Row, model: str, normalized: bool = True) -> Iterator[Edit]:
    """Yield each edit of a row.

    The pieces are words, or in languages without word spaces characters with their marks.
    """
    said, hypothesis = row["reference"], row[model]
    if normalized:
        said, hypothesis = normalize(said, row["language"]), normalize(hypothesis, row["language"])
    unit, gap = first_unit([row]), word_gap(row["language"])
    words, other = _pieces(said, unit), _pieces(hypothesis, unit)
    for op in Levenshtein.opcodes(words, other):
        if op.tag == "equal":
            continue
        start, end = op.src_start, op.src_end
        place = [f"[{gap.join(words[start:end])}]"]
        around = words[max(start - CONTEXT_WORDS, 0) : start] + place
        context = gap.join(around + words[end : end + CONTEXT_WORDS])
        pairs = zip_longest(words[start:end], other[op.dest_start : op.dest_end], fillvalue="")
        for pair in pairs:
            yield Edit(*pair, context)


def frequent_errors(rows: Sequence[Row], model: str, top: int = 10) -> dict[str, list[dict]]:
    """Return the most frequent substitutions, deletions and insertions, normalised.

    Returns:
        For each kind, rows of `said`, `hypothesis`, `times` and up to three `contexts`.
    """
    contexts = defaultdict(list)
    for row in rows:
        for edit in find_edits(row, model):
            contexts[edit.said, edit.hypothesis].append(edit.context)
    kinds: dict[str, list[dict]] = {"substitutions": [], "deletions": [], "insertions": []}
    for (said, hypothesis), found in sorted(contexts.items(), key=lambda item: -len(item[1])):
        kind = "substitutions" if said and hypothesis else "deletions" if said else "insertions"
        shown = list(dict.fromkeys(found))[:3]
        kinds[kind].append(
            {"said": said, "hypothesis": hypothesis, "times": len(found), "contexts": shown}
        )
    return {kind: found[:top] for kind, found in kinds.items()}


def _scripts(text: str) -> set[str]:
    # The first word of a letter's Unicode name is its script: LATIN SMALL LETTER A.
    return {unicodedata.name(char, "?").split()[0] for char in text if char.isalpha()}


def error_kinds(rows: Sequence[Row], model: str) -> dict[str, float]:
    """Tell errors in words from errors of form: orthographic ones that normalising removes.

    Returns:
        `words`, `form` (case, punctuation, apostrophes), `script` (of the words: those written in
        another alphabet) and `form_share` of all.
    """
    form = words = script = 0
    for row in rows:
        for said, hypothesis, _ in find_edits(row, model, normalized=False):
            same = normalize(said, row["language"]) == normalize(hypothesis, row["language"])
            form, words = form + same, words + (not same)
            letters = _scripts(said), _scripts(hypothesis)
            script += all(letters) and not letters[0] & letters[1]
    all_errors = max(form + words, 1)
    return {"words": words, "form": form, "script": script, "form_share": form / all_errors}


def is_runaway(row: Row, model: str) -> bool:
    """Tell whether a hypothesis repeats or invents without end: > 3 × the reference's words + 5."""
    written, said = (len(units_of(row[key], row["language"])) for key in (model, "reference"))
    return written > 3 * said + 5


def find_flags(rows: Sequence[Row], model: str) -> dict[str, float]:
    """Count the hypotheses that look like hallucinations.

    Returns:
        `runaway`, `repetitive` (`compression_ratio` above 2.4), `too_fast` (more than 8 words a
        second; only where words have spaces), `flagged_share` of the clips that are any of these,
        and `words_per_second` over all of them.
    """
    flags = [
        (
            is_runaway(row, model),
            compression_ratio(row[model]) > MAX_COMPRESSION,
            has_word_spaces(row["language"])
            # A second more: rounding would flag a single word in a very short clip.
            and len(units_of(row[model], row["language"]))
            > MAX_WORDS_PER_SECOND * (row["seconds"] + 1),
        )
        for row in rows
    ]
    runaway, repetitive, too_fast = map(sum, zip(*flags, strict=True))
    words = sum(len(units_of(row[model], row["language"])) for row in rows)
    return {
        "runaway": runaway,
        "repetitive": repetitive,
        "too_fast": too_fast,
        "flagged_share": sum(map(any, flags)) / len(rows),
        "words_per_second": words / max(sum(row["seconds"] for row in rows), 0.1),
    }


# Half-transparent, so that they are readable on white and on black; struck out and underlined, so
# that nobody has to tell red from green.
DEL_STYLE = "background:rgba(220,60,60,.3);text-decoration:line-through"
INS_STYLE = "background:rgba(40,160,90,.3);text-decoration:underline"
DEL, INS = (
    Markup(f'<{tag} style="{style}">{{}}</{tag}>')
    for tag, style in (("del", DEL_STYLE), ("ins", INS_STYLE))
)
# Below every table of diffs, the same words everywhere.
LEGEND = Markup("<p>{} said and not written, {} written and not said</p>").format(
    DEL.format("struck out"), INS.format("underlined")
)


def _pieces(text: str, unit: Unit) -> list[str]:
    """Return words, or characters as a reader sees them: a Thai letter with its vowel and tone."""
    return text.split() if unit == "word" else regex.findall(r"(?s).\p{M}*", text)


def word_diff_html(reference: str, hypothesis: str, unit: Unit = "word") -> Markup:
    """Return a diff as HTML: `<del>` was said and not written, `<ins>` was written and not said.

    Every text is escaped: a transcript is input from outside. `LEGEND` explains it.
    """
    one, other = _pieces(reference, unit), _pieces(hypothesis, unit)
    gap = " " if unit == "word" else ""
    parts = []
    for op in Levenshtein.opcodes(one, other):
        said = gap.join(one[op.src_start : op.src_end])
        hypothesis = gap.join(other[op.dest_start : op.dest_end])
        if op.tag == "equal":
            parts.append(escape(said))
        else:
            parts += [DEL.format(said)] if said else []
            parts += [INS.format(hypothesis)] if hypothesis else []
    return Markup('<span dir="auto">{}</span>').format(Markup(gap).join(parts))


def find_worst(rows: Sequence[Row], count: int) -> list[Row]:
    """Return the rows with the most edits after fine-tuning, normalised, the worst first."""
    edits = count_row_errors(rows, "after", first_unit(rows))[:, 0]
    return [rows[index] for index in np.argsort(-edits, kind="stable")[:count]]


def most_frequent(errors: Mapping[str, Sequence[dict]], top: int = 12) -> list[dict]:
    """Return the most frequent of `frequent_errors`, whatever their kind."""
    found = [error for kind in errors.values() for error in kind]
    return sorted(found, key=lambda error: -error["times"])[:top]


def _side(row: Row, model: str) -> dict[str, Any]:
    said, hypothesis = (normalize(row[key], row["language"]) for key in ("reference", model))
    unit = first_unit([row])
    edits, length = count_errors([said], [hypothesis], unit)[0]
    return {"diff": word_diff_html(said, hypothesis, unit), "count": f"{edits} of {length} {unit}s"}


def clips_html(rows: Sequence[Row], waveforms: Mapping[str, np.ndarray] | None = None) -> Markup:
    """Return a table of clips: a player, and the normalised diff before and after.

    Args:
        rows: prediction rows.
        waveforms: by id, float32 samples at 16 kHz; they are embedded (about 43 kB a second).
            None leaves out the players.
    """
    clips = [{"row": row, "sides": [_side(row, m) for m in ("before", "after")]} for row in rows]
    if waveforms:
        from IPython.display import Audio  # only notebooks have it

        for clip in clips:
            samples = np.clip(waveforms[clip["row"]["id"]], -1, 1)
            player = Audio(samples, rate=SAMPLING_RATE, normalize=False)._repr_html_()
            clip["player"] = Markup(player)
    return Markup(render(TEMPLATE, clips=clips, has_players=bool(waveforms), legend=LEGEND))
