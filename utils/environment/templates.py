"""Pages and cards from jinja2 templates."""

from pathlib import Path
from typing import Any

import jinja2


def render(template: Path, **values: Any) -> str:
    """Return a jinja2 template with values filled in, every one of them escaped for HTML.

    Args:
        template: a file beside the code that fills it.
        values: the template's variables; a missing one is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,  # a transcript is input from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(values)
