"""What the page shows between its boxes: progress, timestamps, what changed. All of it escaped."""

from collections.abc import Iterable
from html import escape

from utils.evaluation.mistakes import DEL_STYLE, INS_STYLE, word_diff_html
from utils.text import has_word_spaces
from utils.whisper.captions import Segment, clock

LEGEND = (
    f'<del style="{DEL_STYLE}">only before</del> <ins style="{INS_STYLE}">only after</ins> '
    "unmarked: both models agree"
)
CSS = """
/* The label of a box lies over its first line. */
#changes, #timestamps {padding-top: 2.2em; min-height: 4.5em}
#timestamps {max-height: 16em; overflow-y: auto}
#progress progress {width: 100%}
#legend {font-size: 0.9em}
/* Long sentences on the buttons of the test clips wrap, also on a phone. */
#clips button {text-align: start; white-space: normal}
/* Gradio lays text out from the left; by its first letter, Arabic and Hebrew begin at the right. */
textarea, #clips button {unicode-bidi: plaintext; text-align: start}
button:disabled {opacity: 0.45; cursor: not-allowed}
/* Who moves by keyboard sees where they are, in light and dark. */
button:focus-visible, input:focus-visible, textarea:focus-visible, label:has(:focus-visible) {
    outline: 3px solid var(--color-accent); outline-offset: 2px}
"""
# Written in the browser: no file lies on the server for it.
SAVE = """(captions) => {
    if (!captions) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([captions.%(kind)s], {type: "text/plain"}));
    link.download = "captions.%(kind)s";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


def progress_html(done: float, total: float, stopped: bool = False) -> str:
    """Return a bar with its words; screen readers speak the words."""
    at, end = clock(done)[:-2], clock(total)[:-2]
    if stopped:
        words = f"Stopped at {at} of {end}"
    else:
        words = f"Transcribed {end}" if done >= total else f"Transcribing … {at} of {end}"
    bar = f'<progress aria-label="{words}" value="{done:.1f}" max="{total:.1f}"></progress>'
    return f'<div role="status">{bar}<br>{words}</div>'


def timestamps_html(segments: Iterable[Segment]) -> str:
    """Return a line for each segment; a transcript is text from outside, and escaped."""
    lines = (
        f"<code>{clock(start)[:-2]} – {clock(end)[:-2]}</code> {escape(text)}"
        for start, end, text in segments
    )
    return f'<div dir="auto">{"<br>".join(lines)}</div>'


def changes_html(before: str, after: str, language: str, task: str) -> str:
    """Return the difference of two transcripts: by words, or by characters where there are none."""
    spaced = task == "translate" or has_word_spaces(language)  # a translation is English
    return word_diff_html(before, after, "word" if spaced else "char")
