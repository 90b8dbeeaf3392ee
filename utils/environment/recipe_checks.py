"""Checks across the tables of a recipe, so that no lesson fails hours later."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from utils.environment.recipe_keys import nearest
from utils.text import nearest_language

if TYPE_CHECKING:
    from utils.config import Method, Recipe, Source

EMBEDDED = Path(__file__).parent.parent / "embedded/carried.toml"  # names alone are asked of it


def check_recipe(recipe: "Recipe") -> None:
    """Refuse a recipe whose tables are right one by one and do not fit together.

    Raises:
        ValueError: a sentence that begins after the file's name.
    """
    if recipe.name.startswith(".") or not recipe.name.strip():
        raise ValueError("gives its run folder no usable name: call the file NAME.toml.")
    for number, source in enumerate(recipe.sources, 1):
        place = f"[[sources]] {number}"
        if source.dataset == "recordings" and not source.name.strip():
            raise ValueError(f"{place} has no name: give that of the folder with your data.")
        _check_language(source, place)
        _check_splits(source, place)
        _check_transcribed(source, place, recipe.preprocessing.stored)
    _check_embedded(recipe)
    _check_mix(recipe)
    _check_method(recipe)
    _check_uses(recipe)
    if not recipe.preprocessing.stored and recipe.training.get("max_steps", 0) <= 0:
        raise ValueError("[training] needs max_steps: a stream has no length (stored).")


def _check_language(source: "Source", place: str) -> None:
    """Refuse a language that has no token: its labels would begin with another one's end."""
    code = nearest_language(source.language)
    if code == source.language:
        return
    said = f'{place} has language = "{source.language}"'
    if code:
        raise ValueError(
            f'{said}; did you mean "{code}"? `python -m utils languages` lists all; for another '
            'language, see docs/recipes.md, "A language that Whisper lacks".'
        )
    raise ValueError(
        f"{said}, which Whisper lacks. Give the code of the nearest language that it has "
        f"(`python -m utils languages` lists them), and the real one as speaks = "
        f'"{source.language}".'
    )


def _check_embedded(recipe: "Recipe") -> None:
    """Refuse names that no package has: at once, not when a lesson needs them."""
    carried = tomllib.loads(EMBEDDED.read_text(encoding="utf-8"))
    known = [f"embedded/{model}" for model in carried["models"]]
    named = {"[model] has checkpoint": recipe.model.checkpoint}
    for number, source in enumerate(recipe.sources, 1):
        named[f"[[sources]] {number} has transcribe_with"] = source.transcribe_with
    for place, checkpoint in named.items():
        if checkpoint.startswith("embedded/") and checkpoint not in known:
            raise ValueError(f'{place} = "{checkpoint}"{nearest(checkpoint, known)}')
    for number, source in enumerate(recipe.sources, 1):
        voice = f"{source.language} {source.name}"
        if source.dataset == "embedded" and voice not in carried["speech"]:
            raise ValueError(
                f'[[sources]] {number}: no embedded speech is called "{voice}"'
                f"{nearest(voice, carried['speech'])}"
            )


def _check_splits(source: "Source", place: str) -> None:
    """Refuse to train on what a source is tested with."""
    trained = set(source.train.split("+")) - {""}
    for use in ("dev", "test"):
        if shared := trained & set(getattr(source, use).split("+")):
            raise ValueError(f'{place} trains on "{shared.pop()}", which is also its {use} split.')
    # Each release deals its splits out anew, so that one release's training clips are another's
    # test clips; a test split of any release is nobody's training data.
    if "common_voice" in source.dataset and "test" in trained:
        raise ValueError(
            f'{place} trains on a test split of Common Voice; "train", "train+dev" and "other" are '
            "for training."
        )


def _check_transcribed(source: "Source", place: str, stored: bool) -> None:
    """Refuse to judge a model by a model's text, or to transcribe anew in every pass."""
    if not source.transcribe_with:
        return
    if source.dev or source.test or not source.train:
        raise ValueError(
            f"{place} has transcribe_with, and what a model transcribed can only be trained on: "
            'set dev = "" and test = "", and choose and test on another source.'
        )
    if place == "[[sources]] 1":
        raise ValueError(
            f"{place} has transcribe_with: put a source with texts of its own before it, which the "
            "lessons show."
        )
    if not stored:
        raise ValueError(
            f"{place} has transcribe_with, which goes with stored = true in [preprocessing] alone: "
            "a stream would transcribe its clips again in every pass."
        )


def _check_mix(recipe: "Recipe") -> None:
    """Refuse a mix of texts that are written differently, and shares that nothing follows from."""
    trained = [source for source in recipe.sources if source.train]
    for kind, remedy in (("cased", "lower_case"), ("punctuated", "remove_punctuation")):
        without = [source.label for source in trained if not getattr(source, kind)]
        if 0 < len(without) < len(trained) and not getattr(recipe.preprocessing, remedy):
            raise ValueError(
                f"mixes sources: the text of {', '.join(without)} is not {kind}, that of the other "
                f"sources is, and the model would guess which to write. Set {remedy} = true in "
                "[preprocessing]: it is applied to training and evaluation alike."
            )
    mixing = recipe.mixing
    if 0 < mixing.temperature < 1:
        raise ValueError("[mixing] temperature must be 0 or at least 1.")
    if mixing.temperature and (unknown := [one.label for one in trained if not one.hours]):
        raise ValueError(
            f"[mixing] temperature needs to know how much there is: set hours for "
            f"{', '.join(unknown)}. Lesson 2 counts them."
        )
    rules = recipe.preprocessing
    for least, most in (
        ("min_seconds", "max_seconds"),
        ("min_characters_per_second", "max_characters_per_second"),
    ):
        if getattr(rules, least) >= getattr(rules, most):
            raise ValueError(f"[preprocessing] {least} must be below {most}, or no clip is left.")


def _check_method(recipe: "Recipe") -> None:
    """Refuse a method whose keys do not fit together."""
    method: Method = recipe.method
    with_adapter = method.weights in ("lora", "dora")
    if method.base_8bit and not with_adapter:
        raise ValueError('[method] base_8bit goes with weights = "lora" or "dora" alone.')
    if method.shard and with_adapter:
        raise ValueError(
            f'[method] shard goes with weights = "full" or "frozen_encoder": {method.weights} has '
            "little to divide. If the weights themselves are too large, take base_8bit."
        )
    if method.shard and "8bit" in recipe.training.get("optim", ""):
        raise ValueError(
            "[method] shard divides the optimizer's state, and bitsandbytes wants it whole: leave "
            "out one of shard and optim."
        )


def _check_uses(recipe: "Recipe") -> None:
    """Refuse a recipe with nothing to train on, choose by or test with."""
    for use in ("train", "dev", "test"):
        if not any(source.train and getattr(source, use) for source in recipe.sources):
            raise ValueError(f"has no source that is trained on and has a {use} split.")
    labels = [source.label for source in recipe.sources]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(
            f'has two sources that are both called "{twice}" in tables and reports. Name the '
            "source once, or give the folders different names."
        )
