"""A slider for the lessons; a page without a kernel shows some of its positions one by one."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any


class Slider:
    """Shows what a function returns for the chosen value.

    Args:
        draw: value → HTML.
        label: what the values are, with their unit.
        values: the positions of the slider.
        shown: those that a page without a kernel shows; the slider starts at the first of them.
    """

    def __init__(
        self, draw: Callable[[Any], str], label: str, values: Sequence[Any], shown: Sequence[Any]
    ) -> None:
        import ipywidgets as w  # here, since everything else can be done without it

        self.choice = w.SelectionSlider(
            options=[*values], value=shown[0], description=label, continuous_update=False
        )
        self.choice.style.description_width = "initial"
        self.picture = w.HTML(draw(shown[0]))
        self.choice.observe(self._draw, names="value")
        self.widget = w.VBox([self.choice, self.picture])
        self._function = draw
        self.fallback = "".join(
            f"<div><b>{escape(label)} {escape(str(value))}</b></div>{draw(value)}"
            for value in values
            if value in shown
        )

    def _draw(self, change: Mapping[str, Any]) -> None:
        self.picture.value = self._function(change["new"])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        # Two forms of one output: Jupyter shows the widget, a page that has no kernel the HTML.
        # The widget could make its own form from ipywidgets 8 on; Colab has 7.
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {
            "application/vnd.jupyter.widget-view+json": view,
            "text/plain": repr(self.choice),
            "text/html": self.fallback,
        }
