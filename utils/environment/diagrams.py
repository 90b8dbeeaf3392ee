"""Diagrams for the lessons: rows of labelled boxes as HTML, with words for screen readers."""

from collections.abc import Sequence
from html import escape

from IPython.display import HTML

COLOURS = {
    "": "#f2f2f2",
    "blue": "#cfe3ff",
    "green": "#cdeccf",
    "orange": "#ffe0b8",
    "red": "#ffd0cf",
    "none": "none",
}
# Flexible boxes: a text that is too long for its box is wrapped, also on a phone.
BOX = "flex:{} 1 0;min-width:0;padding:6px 0;border-radius:4px;background:{};outline:{}"
PICTURE = "max-width:560px;padding:4px;background:white;color:#111;font:13px sans-serif"

Box = tuple[str, str] | tuple[str, str, float]  # text, colour, and how wide it is beside the others


def draw_boxes(rows: Sequence[Sequence[Box]], description: str, arrows: bool = False) -> HTML:
    """Return rows of boxes as a picture that a screen reader can read out.

    Args:
        rows: from top to bottom; of each box its text (with line breaks), a key of `COLOURS` and,
            where they differ, its share of the row's width.
        description: what the picture shows, in a sentence.
        arrows: put one between each row and the next.
    """
    lines = [
        f'<div style="display:flex;gap:4px;margin:6px 0">{"".join(_box(*box) for box in row)}</div>'
        for row in rows
    ]
    return HTML(
        f'<div role="img" aria-label="{escape(description)}" style="{PICTURE};text-align:center">'
        f"{'<div>↓</div>'.join(lines) if arrows else ''.join(lines)}</div>"
    )


def _box(text: str, colour: str, share: float = 1) -> str:
    style = BOX.format(share, COLOURS[colour], "none" if colour == "none" else "1px solid #888")
    lines = "<br/>".join(map(escape, text.split("\n")))
    return f'<div style="{style}">{lines}</div>'
