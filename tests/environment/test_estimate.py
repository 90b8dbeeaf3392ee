"""What a recipe needs, by arithmetic: it grows with what it depends on, and says what it lacks."""

import dataclasses
from pathlib import Path

import pytest

from utils.config import UserError, load_recipe
from utils.environment import estimate
from utils.environment.estimate import main, recipe_needs
from utils.environment.machine import usable_cores

SPANISH = "recipes/common_voice_spanish.toml"


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


def together(needs):
    return sum(needs.gb.values()), sum(high for _, high in needs.hours.values())


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.toml")), ids=lambda p: p.stem)
def test_every_recipe_has_an_estimate(path):
    gb, hours = together(recipe_needs(load_recipe(path), "A100 80 GB", hours=3))
    assert 0 < gb < 100
    assert 0 < hours < 24


def test_more_speech_takes_room_and_more_steps_take_time():
    recipe = load_recipe(SPANISH)
    longer = dataclasses.replace(recipe, training={**recipe.training, "max_steps": 10_000})
    once, twice = (recipe_needs(one, "L4", 100) for one in (recipe, longer))
    assert twice.hours["training"][0] == pytest.approx(2 * once.hours["training"][0])
    more = recipe_needs(recipe, "L4", 200)
    speech = "prepared speech, twice while it is written"
    assert more.gb[speech] == pytest.approx(2 * once.gb[speech])
    assert once.gb[speech] == pytest.approx(2 * 0.115 * 120)  # dev and test come on top
    assert more.hours["training"] == once.hours["training"]
    assert recipe_needs(recipe, "H100", 100).hours["training"] < once.hours["training"]


def test_what_is_not_stored_takes_little_room_and_adapters_small_checkpoints():
    recipe = load_recipe(SPANISH)
    rules = dataclasses.replace(recipe.preprocessing, stored=False)
    method = dataclasses.replace(recipe.method, weights="lora")
    plain = recipe_needs(recipe, "L4", 100).gb
    changed = dataclasses.replace(recipe, preprocessing=rules, method=method)
    less = recipe_needs(changed, "L4", 100).gb
    speech, checkpoints, models = plain
    assert less[speech] == pytest.approx(plain[speech] / 6)
    assert less[checkpoints] < plain[checkpoints] / 10
    assert less[models] == plain[models]


def test_batches_at_30_seconds_cost_more():
    recipe = load_recipe("recipes/common_voice_spanish.toml")
    mixed, usual = (
        dataclasses.replace(recipe, audio_context=dataclasses.replace(recipe.audio_context, **one))
        for one in ({"stock_share": 0.1}, {"enabled": False, "stock_share": 0.1})
    )
    none, tenth, all_of_them = (
        recipe_needs(one, "L4", 100).hours["training"][0] for one in (recipe, mixed, usual)
    )
    assert 1.1 * none < tenth < 1.3 * none
    assert all_of_them > 5 * none


def test_clips_beyond_the_limit_of_the_source_do_not_count():
    recipe = load_recipe("recipes/smoke.toml")
    assert recipe_needs(recipe, "T4", 1).gb == recipe_needs(recipe, "T4", 100).gb


def test_the_command_prints_disk_hours_and_cost(capsys):
    assert main([SPANISH, "--card", "A100 80 GB", "--price", "1.5"]) == 0
    said = capsys.readouterr().out
    for words in ("GB on disk", "prepared speech", "preparing", "training", "decoding", "cost: "):
        assert words in said
    low, high = map(float, said.split("cost: ")[1].split("\n")[0].split(" to "))
    cores = usable_cores()
    hours = recipe_needs(load_recipe(SPANISH), "A100 80 GB", cores=cores).hours.values()
    assert (low, high) == pytest.approx(
        [1.5 * sum(one) for one in zip(*hours, strict=True)], abs=0.01
    )


@pytest.mark.parametrize(
    ("changes", "card", "words"),
    [
        ({"training": {"num_train_epochs": 3}}, "T4", "trains by passes.*--hours"),
        ({"model": "runs/mine"}, "T4", "runs/mine is not in the table.*openai/whisper-small"),
        ({"model": "openai/whisper-large-v3"}, "T4", "does not fit T4.*LoRA or a smaller"),
    ],
)
def test_what_is_not_known_is_one_sentence(changes, card, words):
    recipe = load_recipe("recipes/embedded.toml")
    if "model" in changes:
        changes = {"model": dataclasses.replace(recipe.model, checkpoint=changes["model"])}
    with pytest.raises(UserError, match=words):
        recipe_needs(dataclasses.replace(recipe, **changes), card)


def test_the_default_on_two_cores_is_within_a_factor_of_three_of_what_was_measured():
    low, _ = recipe_needs(load_recipe("recipes/embedded.toml"), "2 CPU cores").hours["training"]
    measured = 6 / 60  # hours of training, as the head of lesson 4 says
    assert measured / 3 < low < 3 * measured


@pytest.mark.parametrize("given", [["--hours", "-1"], ["--price", "nan"], ["--card", "A10"]])
def test_numbers_and_cards_that_are_none_are_refused(given, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([SPANISH, *given])
    assert stopped.value.code == 2
    assert given[0] in capsys.readouterr().err
