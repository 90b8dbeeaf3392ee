"""Diagrams for the lessons: rows of labelled boxes as SVG, with words for screen readers."""

from collections.abc import Sequence
from html import escape

from IPython.display import HTML

WIDTH = 400  # pixels: a phone's
HEIGHT, GAP, LINE = 30, 12, 13
COLOURS = {
    "": "#f2f2f2",
    "blue": "#cfe3ff",
    "green": "#cdeccf",
    "orange": "#ffe0b8",
    "red": "#ffd0cf",
    "none": "none",
}

Box = tuple[str, str] | tuple[str, str, float]  # text, colour, and how wide it is beside the others


def draw_boxes(rows: Sequence[Sequence[Box]], description: str, arrows: str = "") -> HTML:
    """Return rows of boxes as a picture that a screen reader can read out.

    Args:
        rows: from top to bottom; of each box its text (with line breaks), a key of `COLOURS` and,
            where they differ, its share of the row's width.
        description: what the picture shows, in a sentence.
        arrows: "down" from each row to the next, "right" from each box to the next, or none.
    """
    parts, top = [], 4.0
    for number, row in enumerate(rows):
        lines = max(text.count("\n") for text, *_ in row)
        height, left = HEIGHT + LINE * lines, 4.0
        gap = 14 if arrows == "right" else 4
        shares = [box[2] if len(box) == 3 else 1 for box in row]
        for (text, colour, *_), share in zip(row, shares, strict=True):
            width = (WIDTH - 8 - gap * (len(row) - 1)) * share / sum(shares)
            parts.append(_box(text, COLOURS[colour], left, top, width, height))
            if arrows == "right" and left > 4:
                parts.append(_arrow(left - gap + 1, top + height / 2, left - 2, top + height / 2))
            left += width + gap
        top += height + GAP
        if arrows == "down" and number < len(rows) - 1:
            parts.append(_arrow(WIDTH / 2, top - GAP + 1, WIDTH / 2, top - 2))
    head = '<marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" '
    head += 'orient="auto"><path d="M0 0L6 3L0 6z" fill="#555"/></marker>'
    return HTML(
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {WIDTH} {top:.0f}" '
        f'style="max-width:{WIDTH * 1.4:.0f}px;width:100%;background:white" '
        'font-family="sans-serif" font-size="12">'
        f"<title>{escape(description)}</title><defs>{head}</defs>{''.join(parts)}</svg>"
    )


def _box(text: str, fill: str, x: float, y: float, width: float, height: float) -> str:
    lines = text.split("\n")
    middle = y + height / 2 + 4 - LINE * (len(lines) - 1) / 2
    words = "".join(
        f'<text x="{x + width / 2:.1f}" y="{middle + LINE * n:.1f}" text-anchor="middle" '
        f'fill="#111">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    border = "none" if fill == "none" else "#888"
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4" '
        f'fill="{fill}" stroke="{border}"/>{words}'
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#555" '
        'stroke-width="1.5" marker-end="url(#tip)"/>'
    )
