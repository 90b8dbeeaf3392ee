import dataclasses

import pytest

from utils.config import RecipeError, Source, load_recipe
from utils.streaming.patience import HubError

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


@pytest.mark.parametrize("kind", [RecipeError, HubError])
def test_a_sentence_shows_no_password(kind):
    said = "The Hub at https://me:sec-ret@mirror.org:8080/x does not answer; see a@b.org."
    assert str(kind(said)) == "The Hub at https://mirror.org:8080/x does not answer; see a@b.org."


def test_a_recipe_cannot_be_changed(tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(tmp_path, MINIMAL).model = None


def test_a_source_without_a_training_split_is_no_trained_language(tmp_path):
    text = MINIMAL.replace(
        "[training]", '[[sources]]\ndataset="x"\nlanguage="fr"\ntrain=""\n[training]'
    )
    assert load(tmp_path, text).languages == ("it",)


LANGUAGE, TRAIN = 'language = "it"', "max_steps = 3"


def table(name, line):
    """Put a table with one line in front of [training]."""
    return "[training]", f"[{name}]\n{line}\n[training]"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # Keys: a slip, a name from elsewhere, another table's key, one that is gone.
        ("checkpoint =", "chekpoint =", ['unknown key "chekpoint"', 'did you mean "checkpoint"']),
        ("language =", "langage =", ["[[sources]] 1", '"langage"', 'did you mean "language"']),
        ("max_steps", "max_stepz", ["[training]", 'did you mean "max_steps"']),
        ("[training]", "[trainnig]", ['"trainnig"', 'did you mean "training"']),
        ("[[sources]]", "[[datasets]]", ['"datasets"', 'did you mean "[[sources]]"']),
        *[
            (TRAIN, f"{key} = 8", [f'"{key}"', f'did you mean "{meant}"'])
            for key, meant in {
                "batch_size": "per_device_train_batch_size",
                "per_gpu_train_batch_size": "per_device_train_batch_size",
                "epochs": "num_train_epochs",
                "lr": "learning_rate",
                "evaluation_strategy": "eval_strategy",
                "optimizer": "optim",
                "patience": "[method] patience",
                "early_stopping_patience": "[method] patience",
                "rank": "[method] rank",
                "dev_minutes": "[evaluation] dev_minutes",
            }.items()
        ],
        (*table("method", "lora_r = 8"), ["[method]", 'did you mean "rank"']),
        (*table("method", "lr = 8"), ['did you mean "[training] learning_rate"']),
        (LANGUAGE, LANGUAGE + '\nspeaker = "x"', ['did you mean "name"']),
        *[
            (TRAIN, f"{key} = true", [f'must not set "{key}"', why])
            for key, why in {
                "group_by_length": "about as much speech",
                "overwrite_output_dir": "delete it",
                "logging_dir": "run folder",
                "warmup_ratio": "warmup_steps",
                "no_cuda": "WHISPER_CPU=1",
                "mixed_precision": "follows the hardware",
            }.items()
        ],
        *[
            (TRAIN, f"{key} = true", [f"must not set {key}", why])
            for key, why in {
                "bf16": "follows the hardware",
                "fp16_full_eval": "follows the hardware",
                "push_to_hub": "lesson 7",
                "hub_token": "hf auth login",
                "predict_with_generate": "always decoded",
                "generation_max_length": "always decoded",
                "metric_for_best_model": "errors on dev",
                "per_device_eval_batch_size": "[evaluation] batch_size",
                "resume_from_checkpoint": "newest whole checkpoint",
                "train_sampling_strategy": "as much speech",
                "deepspeed": "shard = true",
                "use_cpu": "WHISPER_CPU=1",
                "average_tokens_across_devices": "of all processes",
            }.items()
        ],
        ("[model]", '[model]\ntask = "translate"', ["transcription", "button that translates"]),
        # Types and values.
        (LANGUAGE, "language = 3", ["language = 3 must be text in quotes"]),
        (LANGUAGE, LANGUAGE + "\nmax_clips = true", ["max_clips = true", "a whole number"]),
        (LANGUAGE, LANGUAGE + "\nmax_clips = 2.5", ["max_clips = 2.5", "a whole number"]),
        (LANGUAGE, LANGUAGE + '\ncased = "no"', ['cased = "no"', "true or false"]),
        (LANGUAGE, LANGUAGE + "\ncased = 1979-05-27", ["cased = 1979-05-27", "true or false"]),
        (LANGUAGE, LANGUAGE + "\nmax_clips = -5", ["max_clips = -5", "at least 0"]),
        (LANGUAGE, LANGUAGE + "\nweight = nan", ["[[sources]] 1 weight = NaN", "finite"]),
        (LANGUAGE, LANGUAGE + "\nhours = inf", ["[[sources]] 1 hours = Infinity", "finite"]),
        (LANGUAGE, "", ["[[sources]] 1", 'needs the key "language"']),
        (*table("preprocessing", "silent_below_db = -inf"), ["silent_below_db", "finite"]),
        (*table("preprocessing", "max_seconds = 60"), ["max_seconds = 60 must be at most 30"]),
        (*table("preprocessing", "min_seconds = 30"), ["min_seconds must be below max_seconds"]),
        (*table("evaluation", "batch_size = 0"), ["must be at least 1"]),
        (*table("evaluation", f"resamples = {10**30}"), ["must be at most 1e+06"]),
        (*table("audio_context", "step_seconds = 0.25"), ["multiple of 0.02"]),
        (*table("method", 'weights = "lara"'), ['"lara"', 'did you mean "lora"']),
        (*table("method", "weights = 3"), ["weights = 3 must be one of"]),
        (*table("mixing", 'stop = "never"'), ["not known", "first_exhausted"]),
        ("openai/whisper-tiny", "embedded/whisper-bse", ['did you mean "embedded/whisper-base"']),
        ('"google/fleurs"', '"embedded"\nname = "carla"', ['did you mean "it carlo"']),
        ('"google/fleurs"', '"recordings"', ["[[sources]] 1 has no name", "the folder with"]),
        # [training], by value.
        *[
            (TRAIN, f"{TRAIN}\n{line}", ["[training]", *words])
            for line, words in {
                'learning_rate = "4e-5"': ['learning_rate = "4e-5"', "a number"],
                "learning_rate = -1": ["must be from 0 to 1"],
                "learning_rate = 5": ["must be from 0 to 1"],
                "learning_rate = nan": ["must be from 0 to 1"],
                "num_train_epochs = true": ["a number"],
                "per_device_train_batch_size = 0": ["from 1"],
                "per_device_train_batch_size = 2.5": ["a whole number"],
                "gradient_accumulation_steps = 0": ["from 1"],
                "seed = -1": ["from 0"],
                "lr_scheduler_type = 3": ["lr_scheduler_type = 3", "text in quotes"],
                'lr_scheduler_type = "consine"': ['did you mean "cosine"'],
                'lr_scheduler_type = "cosine_with_min_lr"': ["min_lr"],
                'lr_scheduler_type = "cosine"\nlr_scheduler_kwargs = {num_cycle = 2}': [
                    "num_cycle"
                ],
                'optim = "adamw8bit"': ['did you mean "adamw_8bit"'],
                "adam_beta1 = 1.5": ["beta"],
                "eval_steps = 4\nsave_steps = 6": ["multiple"],
                'eval_strategy = "epoch"': ["save and eval strategy"],
                'eval_strategy = "no"': ["save and eval strategy"],
                "logging_steps = 0": ["logging_steps"],
                "save_steps = 2.5": ["save_steps"],
                "warmup_steps = -1": ["from 0"],
                'report_to = "neptun"': ["neptun", "is not one of"],
                'report_to = ["tensorboard", "clearml"]': ["clearml", "pip install clearml"],
                "activation_checkpointing = 1": ["true or false"],
            }.items()
        ],
        (TRAIN, "", ["needs [training]"]),
        # Languages.
        (LANGUAGE, 'language = "fur"', ['"fur", which Whisper lacks', 'speaks = "fur"']),
        (LANGUAGE, 'language = "Italian"', ['did you mean "it"', "python -m utils languages"]),
        (LANGUAGE, 'language = "zh-CN"', ['did you mean "zh"']),
        # Form.
        (LANGUAGE, LANGUAGE + '\ndev = ""', ["trained on and has a dev split"]),
        ("[[sources]]", "[sources]", ["double brackets"]),
        ("[model]", "[[model]]", ["write [model]"]),
        (MINIMAL, "training = 3" + MINIMAL.split("[training]")[0], ["write [training]"]),
        ("[model]", "[model", ["is not TOML"]),
        ("openai/whisper-tiny", r"C:\users\me", ["is not TOML", "write / for"]),
        (TRAIN, TRAIN + "\nlr_scheduler_kwargs = " + "[" * 5000 + "]" * 5000, ["too deep"]),
        ("[model]", "\0", ["is not TOML"]),
    ],
)
def test_a_wrong_recipe_is_refused_with_file_key_and_way_out(tmp_path, old, new, words):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, MINIMAL.replace(old, new, 1))
    for word in ["one.toml", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.toml", None, "is not there; recipes beside it: .*own.toml"),
        ("folder.toml", "folder", "give a .toml file"),
        ("long.toml", b"x" * 2_000_000, "give a .toml file"),
        ("binary.toml", bytes(range(256)), "is not text in UTF-8"),
        ("utf16.toml", MINIMAL.encode("utf-16"), "is not text in UTF-8"),
        ("x\0.toml", None, "cannot be"),
        ("x" * 300 + ".toml", None, "cannot be opened: File name too long"),
        ("...toml", MINIMAL.encode(), "call the file NAME.toml"),
    ],
)
def test_what_is_no_recipe_file_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / "own.toml").write_text(MINIMAL, encoding="utf-8")
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe(tmp_path / name)


@pytest.mark.parametrize(
    "lines",
    [
        "num_train_epochs = 5\neval_steps = 0.2\nsave_steps = 0.2\nwarmup_steps = 0.1",
        'num_train_epochs = 2\neval_strategy = "epoch"\nsave_strategy = "epoch"\nmax_steps = -1',
        'max_steps = 3\nlr_scheduler_type = "polynomial"\nlr_scheduler_kwargs = {power = 2.0}',
        'max_steps = 3\noptim = "adafactor"\nactivation_checkpointing = true\nmax_grad_norm = 1',
        "max_steps = 3\nlabel_smoothing_factor = 0.1\ngradient_accumulation_steps = 4",
        'max_steps = 3\nreport_to = ["tensorboard"]\nload_best_model_at_end = false',
    ],
)
def test_what_transformers_takes_is_taken(tmp_path, lines):
    assert load(tmp_path, MINIMAL.replace(TRAIN, lines)).training


def test_checking_leaves_device_and_processes_alone(tmp_path):
    from accelerate import PartialState

    PartialState._reset_state()
    load(tmp_path, MINIMAL)
    assert PartialState._shared_state == {}


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
        (
            'language = "es"',
            'language = "es"\nweight = 0',
            ["[[sources]] 2 weight = 0 must be above 0"],
        ),
        (
            "[training]",
            "[mixing]\ntemperature = 5\n[training]",
            ["hours for it fleurs, es voxpopuli"],
        ),
        ("[training]", "[mixing]\ntemperature = 0.5\n[training]", ["0 or at least 1"]),
        # What a model transcribed is trained on, and nothing else.
        (
            'language = "es"',
            'language = "es"\ntranscribe_with = "embedded/whisper-base"',
            ["[[sources]] 2", 'dev = "" and test = ""'],
        ),
        (
            'language = "es"',
            'language = "es"\ndev = ""\ntest = ""\ntranscribe_with = "embedded/whisper-bass"',
            ["[[sources]] 2 has transcribe_with", 'did you mean "embedded/whisper-base"'],
        ),
        (
            "[training]",
            '[preprocessing]\nstored = false\n[[sources]]\ndataset = "a/b"\nlanguage = "it"\n'
            'dev = ""\ntest = ""\ntranscribe_with = "c/d"\n[training]',
            ["[[sources]] 3", "in every pass"],
        ),
        (
            'language = "it"',
            'language = "it"\ndev = ""\ntest = ""\ntranscribe_with = "c/d"',
            ["[[sources]] 1", "texts of its own before it"],
        ),
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


def test_an_int_may_stand_for_a_float_and_nothing_else(tmp_path):
    assert (
        load(tmp_path, MINIMAL + "[preprocessing]\nmax_seconds = 20").preprocessing.max_seconds
        == 20.0
    )
    with pytest.raises(RecipeError, match="max_seconds"):
        load(tmp_path, MINIMAL + '[preprocessing]\nmax_seconds = "20"')


def test_a_language_that_whisper_lacks_goes_under_the_nearest_one_and_tables_say_so(tmp_path):
    recipe = load(
        tmp_path, MINIMAL.replace('language = "it"', 'language = "it"\nspeaks = "Friulian"')
    )
    assert recipe.sources[0].language == "it"
    assert recipe.sources[0].label.startswith("Friulian as it")
    assert recipe.spoken == {"it": "Friulian"}
    assert load(tmp_path, MINIMAL).spoken == {"it": "Italian"}
