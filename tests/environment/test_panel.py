"""The panel's arithmetic against published counts, and the recipe that it writes."""

import pytest

from utils.config import RecipeError, load_recipe
from utils.environment import estimate, panel


@pytest.mark.parametrize(
    ("checkpoint", "seconds", "teraflops"),
    [
        ("openai/whisper-tiny", 30, 0.129),
        ("openai/whisper-small", 30, 1.200),
        ("openai/whisper-small", 5, 0.193),
        ("openai/whisper-medium", 30, 3.983),
        ("openai/whisper-large-v3-turbo", 5, 1.042),
        ("openai/whisper-large-v3", 30, 7.987),
    ],
)
def test_operations_are_what_a_flop_counter_counts(checkpoint, seconds, teraflops):
    counted = estimate.training_flops(estimate.CHECKPOINTS[checkpoint], seconds)
    assert counted / 1e12 == pytest.approx(teraflops, rel=0.02)


@pytest.mark.parametrize(
    ("checkpoint", "mib"), [("openai/whisper-small", 703), ("openai/whisper-medium", 1840)]
)
def test_memory_of_one_more_clip_is_what_was_counted(checkpoint, mib):
    model = estimate.CHECKPOINTS[checkpoint]
    one = estimate.training_memory_gib(model, 2, 30) - estimate.training_memory_gib(model, 1, 30)
    assert one * 1024 == pytest.approx(mib, rel=0.1)


def test_a_larger_model_costs_more_and_one_that_does_not_fit_is_refused_in_words():
    small, large = (
        estimate.estimate(f"openai/whisper-{size}", "T4", 10) for size in ("small", "large-v3")
    )
    assert small.fits
    assert not large.fits
    assert "smaller checkpoint" in str(large)
    assert small.batch_size * small.accumulation == 16
    faster = estimate.estimate("openai/whisper-small", "H100", 10)
    assert faster.minutes_high < small.minutes_high
    assert "not measured" in str(small)


@pytest.mark.parametrize("checkpoint", estimate.CHECKPOINTS)
def test_the_recipe_that_is_written_is_one(checkpoint, tmp_path):
    plan = estimate.estimate(checkpoint, "A100 80 GB", 0.5)
    text = panel.recipe_text(checkpoint, "google/fleurs", "sw_ke", "sw", plan)
    recipe = load_recipe(panel.write_recipe(tmp_path / "new.toml", text))
    assert recipe.model.checkpoint == checkpoint
    assert recipe.training["max_steps"] == plan.steps
    assert recipe.languages == ("sw",)
    assert 0 < recipe.training["learning_rate"] < 1e-4


def test_a_recipe_is_not_overwritten_and_a_bad_one_leaves_nothing(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("# mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="another name"):
        panel.write_recipe(path, "x = 1")
    assert path.read_text(encoding="utf-8") == "# mine"
    with pytest.raises(RecipeError):
        panel.write_recipe(tmp_path / "bad.toml", "[training]\nmax_stepz = 1\n")
    assert not (tmp_path / "bad.toml").exists()


def test_what_is_typed_stays_a_value(tmp_path):
    plan = estimate.estimate("embedded/whisper-base", "T4", 1)
    typed = 'x"\n[training]\nhub_token = "y'
    text = panel.recipe_text("embedded/whisper-base", typed, "", "it", plan)
    recipe = load_recipe(panel.write_recipe(tmp_path / "typed.toml", text))
    assert recipe.sources[0].dataset == typed


def test_the_panel_tells_the_estimate_and_writes_on_a_click(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    box = panel.panel()
    named = {c.description: c for c in box.children if getattr(c, "description", "")}
    told, result = (c for c in box.children if not getattr(c, "description", ""))
    before = told.value
    named["card"].value = "H100"
    assert told.value != before
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
