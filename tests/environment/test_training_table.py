import pytest

from utils.environment.training_table import preset
from utils.training.arguments import training_arguments


def test_the_rate_falls_with_the_size_and_an_adapter_takes_a_larger_one():
    rates = [preset(width, "full")["learning_rate"] for width in (384, 512, 768, 1024, 1280)]
    assert rates == sorted(rates, reverse=True)
    assert rates[2:] == [1e-5] * 3, "what public runs of small, medium, large and turbo report"
    assert preset(768, "lora")["learning_rate"] == pytest.approx(1e-4)


def test_a_recipe_that_names_a_rate_has_the_last_word(tiny_run):
    recipe, run = tiny_run()
    arguments = training_arguments(recipe, run)
    assert arguments.learning_rate == 1e-3
    assert arguments.get_warmup_steps(100) == 10
