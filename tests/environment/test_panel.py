"""The panel: its estimate for a card, and the recipe that it writes."""

import pytest

from utils.config import RecipeError, load_recipe
from utils.environment import panel
from utils.environment.estimate import CHECKPOINTS, recipe_needs


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_recipe_that_is_written_is_one(checkpoint, tmp_path):
    text = panel.recipe_text(checkpoint, "google/fleurs", "sw_ke", "sw", 0.5)
    recipe = load_recipe(panel.write_recipe(tmp_path / "new.toml", text))
    assert recipe.model.checkpoint == checkpoint
    assert recipe.languages == ("sw",)
    assert 0 < recipe.training["learning_rate"] < 1e-4
    assert recipe_needs(recipe, "A100 80 GB").said.startswith(f"{checkpoint}, 113 steps of 16")


def test_a_recipe_is_not_overwritten_and_a_bad_one_leaves_nothing(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("# mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="another name"):
        panel.write_recipe(path, "x = 1")
    assert path.read_text(encoding="utf-8") == "# mine"
    with pytest.raises(RecipeError):
        panel.write_recipe(tmp_path / "bad.toml", "[training]\nmax_stepz = 1\n")
    assert not (tmp_path / "bad.toml").exists()


@pytest.mark.parametrize("typed", ['x"\n[training]\nhub_token = "y', "Müllers Stimme 🎙"])
def test_what_is_typed_stays_a_value(tmp_path, typed):
    text = panel.recipe_text("embedded/whisper-base", "recordings", typed, "it", 1)
    recipe = load_recipe(panel.write_recipe(tmp_path / "typed.toml", text))
    assert recipe.sources[0].name == typed


def test_the_panel_tells_the_estimate_and_writes_on_a_click(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    box = panel.panel()
    named = {c.description: c for c in box.children if getattr(c, "description", "")}
    told, result = (c for c in box.children if not getattr(c, "description", ""))
    before = told.value
    assert "together" in before and "not measured" in before
    named["card"].value = "H100"
    assert told.value != before
    named["checkpoint"].value = "openai/whisper-large-v3"
    named["card"].value = "T4"
    assert "smaller checkpoint" in told.value
    named["checkpoint"].value = "embedded/whisper-base"
    named["Write recipe"].click()
    assert "recipes/mine.toml" in result.value
    assert load_recipe(tmp_path / "recipes/mine.toml").sources[0].name == "big"
    named["Write recipe"].click()
    assert "exists" in result.value
    named["write to"].value = "no/<b>such.toml"
    named["checkpoint"].value = "openai/whisper-tiny"
    named["Write recipe"].click()
    assert "&lt;b&gt;" in result.value
    assert "<b>" not in result.value
