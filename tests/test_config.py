import dataclasses

import pytest

from utils.config import RecipeError, Source, load_recipe

MINIMAL = """
[model]
checkpoint = "openai/whisper-tiny"
[[sources]]
dataset = "google/fleurs"
language = "it"
[training]
max_steps = 3
"""


def load(tmp_path, text):
    path = tmp_path / "one.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def test_a_minimal_recipe_gets_the_defaults_and_its_training_table_unchanged(tmp_path):
    recipe = load(tmp_path, MINIMAL)
    assert recipe.name == "one"
    assert recipe.training == {"max_steps": 3}
    assert recipe.sources == (Source("google/fleurs", "it"),)
    assert recipe.preprocessing.max_label_tokens == 448


def test_every_recipe_of_the_repository_loads(tmp_path):
    from tests.conftest import ROOT

    paths = sorted((ROOT / "recipes").glob("*.toml"))
    assert len(paths) >= 4
    for path in paths:
        assert load_recipe(path).languages, path


def test_a_recipe_cannot_be_changed(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(tmp_path, MINIMAL).model = None


def test_a_source_without_a_training_split_is_no_trained_language(tmp_path):
    text = MINIMAL.replace(
        "[training]", '[[sources]]\ndataset="x"\nlanguage="fr"\ntrain=""\n[training]'
    )
    assert load(tmp_path, text).languages == ("it",)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("checkpoint =", "chekpoint =", ['unknown key "chekpoint"', 'did you mean "checkpoint"']),
        ("language =", "langage =", ["[[sources]] 1", '"langage"', 'did you mean "language"']),
        ("max_steps", "max_stepz", ["[training]", 'did you mean "max_steps"']),
        ("[training]", "[trainnig]", ['"trainnig"', 'did you mean "training"']),
        ("max_steps = 3", "bf16 = true", ["must not set bf16", "follows the hardware"]),
        ("max_steps = 3", "push_to_hub = true", ["must not set push_to_hub", "lesson 07"]),
        ("max_steps = 3", 'hub_token = "x"', ["must not set hub_token", "hf auth login"]),
        ('language = "it"', "language = 3", ["language = 3 is int", "str is needed"]),
        ('language = "it"', 'language = "it"\nmax_clips = true', ["max_clips", "int is needed"]),
        ('language = "it"', 'language = "fur"', ['"fur", which Whisper lacks', 'speaks = "fur"']),
        ('language = "it"', "", ["[[sources]] 1", "needs the key", "language"]),
        ("[[sources]]", "[sources]", ["double brackets"]),
        ("[model]", "[model", ["is not TOML"]),
        ("[training]", "[evaluation]\nbatch_size = 0\n[training]", ["must be at least 1"]),
        ("[training]", "[preprocessing]\nmax_seconds = 60\n[training]", ["from 0 to 30"]),
        ("[training]", "[audio_context]\nstep_seconds = 0.25\n[training]", ["multiple of 0.02"]),
        ("[training]", "[model]\ntuned_share = 75\n[training]", ["one.toml"]),
        ('language = "it"', 'language = "it"\nmax_clips = -5', ["max_clips = -5", "at least 0"]),
        ('language = "it"', 'language = "it"\ndev = ""', ["trained on has a dev split"]),
        ("[model]", '[model]\ntask = "transcibe"', ['did you mean "transcribe"']),
        ("max_steps = 3", "", ["needs [training]"]),
    ],
)
def test_a_wrong_recipe_is_refused_with_file_key_and_way_out(tmp_path, old, new, words):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, MINIMAL.replace(old, new))
    for word in ["one.toml", *words]:
        assert word in str(caught.value)


TWO = MINIMAL.replace(
    "[training]", '[[sources]]\ndataset = "facebook/voxpopuli"\nlanguage = "es"\n[training]'
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('language = "es"', 'language = "es"\ncased = false', ["not cased", "lower_case = true"]),
        (
            'language = "es"',
            'language = "es"\npunctuated = false',
            ["not punctuated", "remove_punctuation = true"],
        ),
        ('language = "es"', 'language = "es"\ntrain = "train+test"', ["also its test split"]),
        (
            '"facebook/voxpopuli"',
            '"common_voice"\ntrain = "train+test"\ntest = ""',
            ["trains on a test split of Common Voice"],
        ),
        ('language = "es"', 'language = "es"\nweight = 0', ["es voxpopuli needs a weight above 0"]),
        (
            "[training]",
            "[mixing]\ntemperature = 5\n[training]",
            ["hours for it fleurs, es voxpopuli"],
        ),
        ("[training]", "[mixing]\ntemperature = 0.5\n[training]", ["0 or at least 1"]),
        ("[training]", '[mixing]\nstop = "never"\n[training]', ["first_exhausted"]),
    ],
)
def test_a_mix_that_cannot_be_right_is_refused_with_the_remedy(tmp_path, old, new, words):
    assert len(load(tmp_path, TWO).languages) == 2
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, TWO.replace(old, new))
    for word in ["one.toml", *words]:
        assert word in str(caught.value)


def test_two_sources_of_one_name_are_refused(tmp_path):
    mine = MINIMAL.replace('"google/fleurs"', '"recordings"\nname = "/data/anna/clips"')
    source = mine[mine.index("[[") : mine.index("[training]")]
    with pytest.raises(RecipeError, match='both called "it clips"'):
        load(tmp_path, mine.replace("[training]", source.replace("anna", "bruno") + "[training]"))


def test_the_remedy_lets_differently_written_sources_mix(tmp_path):
    text = TWO.replace('language = "es"', 'language = "es"\ncased = false\npunctuated = false')
    remedy = "[preprocessing]\nlower_case = true\nremove_punctuation = true\n"
    assert load(tmp_path, text + remedy).preprocessing.lower_case
    # One that is tested on alone is not mixed in.
    alone = text.replace("cased = false", 'cased = false\ntrain = ""\ndev = ""')
    assert load(tmp_path, alone).languages == ("it",)


def test_a_folder_is_named_in_tables_by_its_last_part():
    assert Source("recordings", "it", "/data/of/mine/voice/").label == "it voice"
    assert Source("recordings", "it", r"C:\data\voice.csv").label == "it voice.csv"


def test_a_missing_recipe_names_those_that_are_there(tmp_path):
    load(tmp_path, MINIMAL)
    with pytest.raises(
        RecipeError, match=r"two\.toml is not there; recipes beside it: .*one\.toml"
    ):
        load_recipe(tmp_path / "two.toml")


def test_an_int_may_stand_for_a_float_and_nothing_else(tmp_path):
    assert (
        load(tmp_path, MINIMAL + "[preprocessing]\nmax_seconds = 20").preprocessing.max_seconds
        == 20.0
    )
    with pytest.raises(RecipeError, match="max_seconds"):
        load(tmp_path, MINIMAL + '[preprocessing]\nmax_seconds = "20"')


def test_a_language_that_whisper_lacks_goes_under_the_nearest_one_and_tables_say_so(tmp_path):
    source = load(
        tmp_path, MINIMAL.replace('language = "it"', 'language = "it"\nspeaks = "Friulian"')
    ).sources[0]
    assert source.language == "it"
    assert source.label.startswith("Friulian as it")
