"""A slider for the lessons. It needs no kernel: every position is in the page already."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from IPython.display import HTML

# Every child but the slider itself is a position.
MOVE = "for (const one of [...parentNode.children].slice(1)) one.hidden = one.dataset.at != value"


def draw_slider(draw: Callable[[Any], str], label: str, values: Sequence[Any], first: Any) -> HTML:
    """Return a slider over what a function draws for each value.

    Args:
        draw: value → HTML.
        label: what the values are, with their unit.
        values: the positions of the slider.
        first: the value where it starts.
    """
    start, name = values.index(first), escape(label)
    positions = "".join(
        f'<div data-at="{at}"{"" if at == start else " hidden"}>'
        f"<b>{name} {escape(str(value))}</b>{draw(value)}</div>"
        for at, value in enumerate(values)
    )
    return HTML(
        f'<div><input type="range" min="0" max="{len(values) - 1}" value="{start}" '
        f'aria-label="{name}" oninput="{MOVE}" style="width:20em;max-width:100%">{positions}</div>'
    )
