"""A panel for lesson 1: choose language, checkpoint, speech and card, and it writes a recipe."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.artifacts import write_atomically
from utils.config import Model, Recipe, Source, UserError, load_recipe
from utils.environment.colab import mount_drive
from utils.environment.estimate import CARDS, CHECKPOINTS, recipe_needs
from utils.environment.training_table import preset

if TYPE_CHECKING:
    import ipywidgets

# The keys that a source needs besides its language and name.
SOURCES: Mapping[str, Mapping[str, str]] = {
    "embedded": {},
    "recordings": {},
    "google/fleurs": {
        "revision": "70bb2e84b976b7e960aa89f1c648e09c59f894dd",  # Parquet, fetched once a split
        "dev": "validation",
        "text_column": "raw_transcription",
    },
}
TRAINING = {
    "num_train_epochs": 5,
    "per_device_train_batch_size": 16,  # on a GPU as many of them at once as fit
    "warmup_steps": 0.1,  # below 1, steps are a share of the training
    "lr_scheduler_type": "linear",
    "logging_steps": 0.01,
    "eval_steps": 0.2,
    "save_steps": 0.2,
    "save_total_limit": 2,
    "seed": 42,
}


def recipe_text(checkpoint: str, source: str, name: str, language: str, hours: float) -> str:
    """Return a recipe as TOML; `source` is a key of SOURCES, a folder or a Hub id.

    `name` is the speaker, the folder of recordings or the data set's config.
    """
    data = {"dataset": source, "language": language, "name": name, "hours": hours}
    rate = preset(CHECKPOINTS[checkpoint].width, "full")["learning_rate"]
    tables = {
        "[model]": {"checkpoint": checkpoint},
        "[[sources]]": data | SOURCES.get(source, {}),
        "[training]": {**TRAINING, "learning_rate": rate},
    }
    written = "# Written by the panel of lesson 1: a start, not a finding.\n"
    return written + "".join(f"\n{head}\n{_lines(table)}" for head, table in tables.items())


def _lines(table: Mapping[str, Any]) -> str:
    # A JSON string is a TOML string: what is typed into the panel cannot end it and go on as keys.
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items()
    )


def write_recipe(path: str | Path, text: str) -> Path:
    """Write a recipe that does not exist yet, and read it back as the lessons will.

    Raises:
        FileExistsError: a recipe is never overwritten: its runs would no longer fit it.
        RecipeError: what was chosen is not a recipe; nothing is left behind.
    """
    path = Path(path).expanduser()
    mount_drive(path)
    if path.exists():
        raise FileExistsError(f"{path} exists: choose another name, or edit that file.")
    write_atomically(path, text)
    try:
        load_recipe(path)
    except ValueError:
        path.unlink()
        raise
    return path


def panel() -> "ipywidgets.VBox":
    """Return the panel; it does nothing until *Write recipe* is pressed."""
    import ipywidgets as w  # here, since the recipe can be written without it

    wide = {"style": {"description_width": "11em"}, "layout": {"width": "36em"}}
    language = w.Text("cs", description="language code", **wide)
    checkpoint = w.Dropdown(options=list(CHECKPOINTS), value="embedded/whisper-base", **wide)
    checkpoint.description = "checkpoint"
    source = w.Combobox(value="embedded", options=list(SOURCES), description="speech from", **wide)
    name = w.Text("big", description="speaker or folder", **wide)
    hours = w.BoundedFloatText(
        0.5, min=0.05, max=10_000, step=0.25, description="hours of speech", **wide
    )
    card = w.Dropdown(options=list(CARDS), description="card", **wide)
    path = w.Text("recipes/mine.toml", description="write to", **wide)
    button = w.Button(description="Write recipe", button_style="primary")
    told, result = w.HTML(), w.HTML()  # a Label does not wrap its text

    def write(_: object) -> None:
        chosen = (field.value for field in (checkpoint, source, name, language, hours))
        try:
            written = write_recipe(path.value, recipe_text(*chosen))
            said = f"Written. Set RECIPE = '{written}' and go on."
        except (OSError, ValueError) as error:
            said = str(error)
        result.value = escape(said)  # what was typed is shown, not run

    def tell(_: object) -> None:
        speech = Source(source.value, language.value, hours=hours.value)
        recipe = Recipe(Path(path.value), Model(checkpoint.value), (speech,), TRAINING)
        try:
            said = str(recipe_needs(recipe, card.value))
        except UserError as error:
            said = str(error)
        told.value = f'<pre style="white-space:pre-wrap">{escape(said)}</pre>'

    for field in (checkpoint, hours, card):
        field.observe(tell, names="value")
    tell(None)
    button.on_click(write)
    return w.VBox([language, checkpoint, source, name, hours, card, told, path, button, result])
