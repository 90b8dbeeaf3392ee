"""Recipes: one experiment = one TOML file, read strictly into frozen dataclasses."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from utils.embedded.carried import MODELS, PREFIX, SPEAKERS
from utils.environment.colab import mount_drive

# Keys of `[training]` that follow from the hardware, the run folder or the account: a recipe that
# set them would not run the same elsewhere, or would write a secret into a file.
RESERVED_TRAINING_KEYS: Mapping[str, str] = {
    "output_dir": "checkpoints always go into the run folder",
    "bf16": "precision follows the hardware (utils/environment/machine.py says why)",
    "fp16": "precision follows the hardware (utils/environment/machine.py says why)",
    "push_to_hub": "lesson 07 pushes the finished model, after looking for secrets in it",
    "hub_token": "a token in a recipe is a token in public: use `hf auth login`",
    "remove_unused_columns": "the collator needs the audio column",
    "label_names": "the collator names the labels",
    "save_only_model": "training could not go on from a checkpoint without its optimizer",
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed"),
        "shard = true in [method] divides a model that one card cannot hold among several",
    ),
    "auto_find_batch_size": "it changes how many clips an update sees; memory is handled anyway",
}
WEIGHTS = ("full", "frozen_encoder", "lora", "dora")
TASKS = ("transcribe", "translate")
MANY = math.inf
# What the numbers of a recipe may be, by table: the first and the last that make sense.
RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "model": {"tuned_share": (0, 1)},
    "preprocessing": {
        "min_seconds": (0, 30),
        "max_seconds": (0, 30),
        "max_label_tokens": (8, 448),
        "max_clipped_share": (0, 1),
        "max_wrong_script_share": (0, 1),
        "max_dropped_share": (0, 1),
    },
    "audio_context": {"step_seconds": (0.02, 30), "tail_seconds": (0, 30)},
    "windows": {"seconds": (0, 30), "timestamps": (0, 1), "previous_text": (0, 1)},
    "augmentation": {"speed": (0, 0.5), "noise": (0, 1), "gain_db": (0, 60)},
    "method": {"rank": (1, 1024), "patience": (0, MANY), "average_last": (0, MANY)},
    "evaluation": {
        "batch_size": (1, MANY),
        "dev_minutes": (0.01, MANY),
        "resamples": (100, MANY),
        "worst_clips": (0, MANY),
        "long_seconds": (0, MANY),
    },
}
SOURCE_RANGES = {"max_clips": (0, MANY), "patience_seconds": (0, MANY)}

# When a mixed stream ends; the names are those of `datasets.interleave_datasets`.
STOPS = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the file, the key and the way out."""


@dataclass(frozen=True)
class Model:
    """The checkpoint to start from."""

    checkpoint: str  # "embedded/whisper-base", a folder, or a Hub id such as "openai/whisper-small"
    revision: str = "main"  # a commit of the Hub id pins the weights for good
    task: str = "transcribe"
    # How much of the way from the starting to the fine-tuned weights is saved. A few hundred clips
    # of one speaker pull the weights further than they should; half-way between both the model
    # often writes new sentences and hears new speakers better (WiSE-FT, Wortsman et al. 2022).
    tuned_share: float = 1.0


@dataclass(frozen=True)
class Source:
    """Speech in one language from one place; `""` as a split means "not used for that".

    A source without a training split is an unseen test: lesson 05 reports it apart.
    """

    # "embedded", "recordings" (your own), "common_voice", a folder in the Hub's layout, or a Hub id
    dataset: str
    language: str  # Whisper's code: "it"
    # embedded: the speaker ("carlo"); recordings: a folder or a manifest; common_voice: an archive,
    # an unpacked one, or the locale to download ("es"); Hub: the dataset's config ("it_it")
    name: str = ""
    revision: str = "main"  # a branch, or a commit, which pins the data for good
    train: str = "train"  # split names may be joined: "train+validation"
    dev: str = "dev"
    test: str = "test"
    text_column: str = "text"
    # For a language that Whisper lacks: its own name ("Friulian"); `language` is then the nearest
    # one that Whisper has, whose token it is trained and read under.
    speaks: str = ""
    weight: float = 1.0  # relative share of the training stream
    hours: float = 0.0  # of training speech; only [mixing] temperature asks for it
    cased: bool = True  # whether the text has capitals, where its script has any
    punctuated: bool = True
    max_clips: int = 0  # per split; 0 takes all
    patience_seconds: float = 120.0  # a Hub that fails to answer for so long ends the run

    @property
    def label(self) -> str:
        """A short name for tables: `it carlo`."""
        spoken = f"{self.speaks} as {self.language}" if self.speaks else self.language
        name = (self.name or self.dataset).replace("\\", "/").rstrip("/")
        if not name.startswith("spontaneous/"):  # Common Voice's other corpus of a language
            # A folder or an archive by its last part: a report shows no paths of the machine.
            name = name.rsplit("/", 1)[-1]
        return f"{spoken} {name}"


@dataclass(frozen=True)
class Mixing:
    """How several sources become one stream."""

    # 0: shares are the sources' weights. From 1 on: weight × hours^(1 / temperature), so that 1 is
    # the data's own proportions and a large one gives every source the same share.
    temperature: float = 0.0
    # "first_exhausted", "all_exhausted" (small sources are repeated) or
    # "all_exhausted_without_replacement" (every clip once). "" is the last where all shares are
    # equal, else "all_exhausted": a share means little where every clip comes once.
    stop: str = ""


@dataclass(frozen=True)
class Preprocessing:
    """What a clip must be like to be trained on, and how its text is written."""

    # false reads the training clips from their sources while training goes on, pass by pass, for
    # more speech than the disk holds; 200 of them are stored all the same, to look at.
    stored: bool = True
    min_seconds: float = 0.3
    max_seconds: float = 30.0  # Whisper hears 30 s at once: more would be cut off, text and all
    max_label_tokens: int = 448  # the decoder has 448 positions: one more raises
    silent_below_db: float = -50.0  # the loudest tenth of a second, full scale is 0
    max_clipped_share: float = 0.01  # of the samples at full scale; reported, not dropped
    min_characters_per_second: float = 0.3  # below: the text leaves out most of what is said
    max_characters_per_second: float = 40.0  # above: nobody speaks so fast, in any script
    max_wrong_script_share: float = 0.5  # of the letters
    script: str = ""  # Unicode's name ("Thaana") where the text is not in the language's own
    lower_case: bool = False
    remove_punctuation: bool = False
    # Off for commands and digits, where everybody says the same and the speakers are kept apart.
    drop_tested_sentences: bool = True  # from training
    max_dropped_share: float = (
        0.2  # of a source's split; more than that, and something is wrong with the data
    )


@dataclass(frozen=True)
class AudioContext:
    """How much audio the encoder hears: what the clips need, or always 30 s."""

    enabled: bool = True
    step_seconds: float = 0.5  # contexts are multiples of this, so that shapes stay few
    # Training adds a silent tail of U(0, tail_seconds), so that afterwards any tail works;
    # decoding adds half of it. Without a tail the model does not learn where speech ends.
    tail_seconds: float = 1.0


@dataclass(frozen=True)
class Windows:
    """Whether clips share the encoder's window, and what their labels tell beside the words."""

    # Clips of one source are joined to windows of up to so many seconds, at most 30; a batch then
    # counts windows. 0: each clip alone, at a short audio context.
    seconds: float = 0.0
    # Share of the windows whose labels say when each clip begins and ends. Without any, a model
    # forgets its timestamps, with which long recordings are cut and subtitles are made.
    timestamps: float = 0.0
    previous_text: float = 0.0  # share that is told the text of the source's window before, too


@dataclass(frozen=True)
class Augmentation:
    """How training clips are varied, so that the model learns the language and not one voice."""

    # Each clip is played slower or faster by a factor of U(1 - speed, 1 + speed), which moves tempo
    # and pitch as another speaker would. 0.1 is customary (Ko et al., Interspeech 2015).
    speed: float = 0.0
    # Share of the clips that get noise between white and brown, 5 to 30 dB below the speech.
    noise: float = 0.0
    gain_db: float = 0.0  # each clip is made louder or softer by up to so much
    # Blank two spans of time and two bands of frequency in each clip (Park et al. 2019).
    spec_augment: bool = False


@dataclass(frozen=True)
class Method:
    """Which weights are trained, when training ends, and what is kept of it."""

    # "full"; "frozen_encoder" trains the decoder alone; "lora" and "dora" train small matrices
    # beside the weights and are merged into them at the end.
    weights: str = "full"
    rank: int = 32  # of LoRA's and DoRA's matrices
    base_8bit: bool = False  # hold the weights beside LoRA's in 8 bits: needs bitsandbytes
    patience: int = 0  # end after so many dev evaluations without a better WER; 0 runs all steps
    # Keep the mean of the last so many checkpoints; 0 keeps the newest, or an earlier one that dev
    # shows to be better.
    average_last: int = 0
    # Under torchrun: divide weights, gradients and optimizer among the processes (FSDP2), where one
    # card is too small for them. No largest batch is looked for then; [training] says it.
    shard: bool = False


@dataclass(frozen=True)
class Evaluation:
    """How the test is read."""

    batch_size: int = 16  # clips decoded together, each as long as the longest of them
    # Minutes of dev speech that each evaluation during training reads, the same clips every time.
    # What it costs follows from them; after training all of dev is read.
    dev_minutes: float = 30.0
    # What the dev WER, by which a checkpoint is chosen, compares: normalised text, or text as it is
    # written. Lesson 05 reports both.
    normalized: bool = True
    resamples: int = 2000  # of the bootstrap and of the permutation test
    worst_clips: int = 8  # shown with a player and a word diff
    # Test clips joined to one recording of at most this length; 0 leaves out the long form.
    long_seconds: int = 240


@dataclass(frozen=True)
class Recipe:
    """One experiment: everything that is not in the code."""

    path: Path
    model: Model
    sources: tuple[Source, ...]
    training: Mapping[str, Any]  # goes unchanged to Seq2SeqTrainingArguments
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    windows: Windows = field(default_factory=Windows)
    augmentation: Augmentation = field(default_factory=Augmentation)
    mixing: Mixing = field(default_factory=Mixing)
    method: Method = field(default_factory=Method)
    audio_context: AudioContext = field(default_factory=AudioContext)
    evaluation: Evaluation = field(default_factory=Evaluation)

    @property
    def name(self) -> str:
        """The file's stem, which also names the run folder."""
        return self.path.stem

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that are trained, each once, in the order of the recipe."""
        return tuple(dict.fromkeys(source.language for source in self.sources if source.train))


def nearest(key: str, known: Mapping | list[str]) -> str:
    """Return `; did you mean "…"?` for a misspelt key, else the list of known ones."""
    close = get_close_matches(key, list(known), n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(sorted(known))}"


def _check_type(value: Any, hint: Any, where: str) -> Any:
    """Return `value` if it has the annotated type; an int may stand for a float."""
    expected = get_args(hint)[0] if get_origin(hint) is tuple else hint
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int: `max_clips = true` must not pass as 1.
    if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
        raise RecipeError(
            f"{where} = {value!r} is {type(value).__name__}, but {expected.__name__} is needed."
        )
    return value


def _read_table(cls: type, table: Any, where: str) -> Any:
    """Build the dataclass `cls` from a TOML table, refusing what it does not know."""
    if not isinstance(table, dict):
        raise RecipeError(f"{where} must be a table.")
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    for key in table:
        if key not in known:
            raise RecipeError(f'{where} has the unknown key "{key}"{nearest(key, list(known))}')
    try:
        return cls(
            **{key: _check_type(v, hints[key], f"{where} {key}") for key, v in table.items()}
        )
    except TypeError as error:
        missing = str(error).split("argument")[-1].lstrip("s: ")
        raise RecipeError(f"{where} needs the key {missing}.") from None


def _check_training(training: Any, where: str) -> Mapping[str, Any]:
    """Refuse keys that Seq2SeqTrainingArguments does not have, or that we decide elsewhere."""
    # Here and not above: the import takes seconds, and nothing else in this module needs it.
    from transformers import Seq2SeqTrainingArguments

    if not isinstance(training, dict):
        raise RecipeError(f"{where} must be a table.")
    known = [f.name for f in fields(Seq2SeqTrainingArguments) if f.init]
    for key in training:
        if key in RESERVED_TRAINING_KEYS:
            raise RecipeError(f"{where} must not set {key}: {RESERVED_TRAINING_KEYS[key]}.")
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise RecipeError(
                f'{where} has the key "{key}", which Seq2SeqTrainingArguments does not know{hint}'
            )
    return training


def _check_splits(source: Source, where: str) -> None:
    """Refuse to train on what a source is tested with."""
    trained = set(source.train.split("+")) - {""}
    for use in ("dev", "test"):
        if shared := trained & set(getattr(source, use).split("+")):
            raise RecipeError(f'{where} trains on "{shared.pop()}", which is also its {use} split.')
    # Each release deals its splits out anew, so that one release's training clips are another's
    # test clips; a test split of any release is nobody's training data.
    if "common_voice" in source.dataset and "test" in trained:
        raise RecipeError(
            f'{where} trains on a test split of Common Voice; "train", "train+dev" and "other" are '
            "for training."
        )


def _check_mix(recipe: Recipe) -> None:
    """Refuse a mix of texts that are written differently, and shares that are none."""
    trained = [source for source in recipe.sources if source.train]
    for kind, remedy in (("cased", "lower_case"), ("punctuated", "remove_punctuation")):
        without = [source.label for source in trained if not getattr(source, kind)]
        if 0 < len(without) < len(trained) and not getattr(recipe.preprocessing, remedy):
            raise RecipeError(
                f"{recipe.path}: the text of {', '.join(without)} is not {kind}, that of the other "
                f"sources is, and the model would guess which to write. Set {remedy} = true in "
                "[preprocessing]: it is applied to training and evaluation alike."
            )
    for source in trained:
        if source.weight <= 0 or source.hours < 0:
            raise RecipeError(
                f"{recipe.path}: {source.label} needs a weight above 0 (it has {source.weight:g}) "
                "and hours of 0 or more."
            )
    mixing = recipe.mixing
    if mixing.temperature and mixing.temperature < 1:
        raise RecipeError(f"{recipe.path} [mixing] temperature must be 0 or at least 1.")
    if mixing.temperature and (unknown := [one.label for one in trained if not one.hours]):
        raise RecipeError(
            f"{recipe.path} [mixing] temperature needs to know how much there is: set hours for "
            f"{', '.join(unknown)}. Lesson 02 counts them."
        )
    if mixing.stop and mixing.stop not in STOPS:
        raise RecipeError(
            f'{recipe.path} [mixing] stop = "{mixing.stop}" is not one of {", ".join(STOPS)}.'
        )


def _check_language(source: Source, where: str) -> None:
    """Refuse a language that has no token: its labels would begin with another one's end."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    if source.language not in LANGUAGES:
        raise RecipeError(
            f'{where} has language = "{source.language}", which Whisper lacks. Give the code of '
            f'the nearest language that it has, and the real one as speaks = "{source.language}".'
        )


def _check_embedded(recipe: Recipe) -> None:
    """Refuse names that no package carries: at once, not when a lesson asks for them."""
    known = [PREFIX + model for model in MODELS]
    checkpoint = recipe.model.checkpoint
    if checkpoint.startswith(PREFIX) and checkpoint not in known:
        raise RecipeError(
            f'{recipe.path} [model] has checkpoint = "{checkpoint}"{nearest(checkpoint, known)}'
        )
    for number, source in enumerate(recipe.sources, 1):
        voice = (source.language, source.name)
        if source.dataset == "embedded" and voice not in SPEAKERS:
            known = [" ".join(pair) for pair in SPEAKERS]
            raise RecipeError(
                f"{recipe.path} [[sources]] {number}: no embedded speech is called "
                f'"{" ".join(voice)}"{nearest(" ".join(voice), known)}'
            )


def _check_method(method: Method, training: Mapping[str, Any], where: str) -> None:
    """Refuse a method that is not known, or whose parts don't go together."""
    if method.weights not in WEIGHTS:
        raise RecipeError(
            f'{where} has weights = "{method.weights}"{nearest(method.weights, list(WEIGHTS))}'
        )
    with_adapter = method.weights in ("lora", "dora")
    if method.base_8bit and not with_adapter:
        raise RecipeError(f'{where} base_8bit goes with weights = "lora" or "dora" alone.')
    if method.average_last and with_adapter:
        # The mean of two products is not the product of two means.
        raise RecipeError(f"{where} average_last needs whole weights: not lora and dora.")
    if method.shard and with_adapter:
        raise RecipeError(
            f'{where} shard goes with weights = "full" or "frozen_encoder": {method.weights} has '
            "little to divide. If the weights themselves are too large, take base_8bit."
        )
    if method.shard and "8bit" in training.get("optim", ""):
        raise RecipeError(
            f"{where} shard divides the optimizer's state, and bitsandbytes wants it whole: leave "
            "out one of shard and optim."
        )


def _check_ranges(values: Any, ranges: Mapping[str, tuple[float, float]], where: str) -> None:
    """Refuse numbers that would only be found out hours later, or never."""
    for key, (low, high) in ranges.items():
        if not low <= (value := getattr(values, key)) <= high:
            limits = f"from {low:g} to {high:g}" if high < math.inf else f"at least {low:g}"
            raise RecipeError(f"{where} {key} = {value:g} must be {limits}.")


def _check_uses(recipe: Recipe) -> None:
    """Refuse a recipe with nothing to train on, choose by or test with, or an unknown task."""
    if recipe.model.task not in TASKS:
        known = nearest(recipe.model.task, list(TASKS))
        raise RecipeError(f'{recipe.path} [model] has task = "{recipe.model.task}"{known}')
    for use in ("train", "dev", "test"):
        if not any(source.train and getattr(source, use) for source in recipe.sources):
            raise RecipeError(f"{recipe.path}: no source that is trained on has a {use} split.")
    labels = [source.label for source in recipe.sources]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise RecipeError(
            f'{recipe.path}: two sources are both called "{twice}" in tables and reports. Name the '
            "source once, or give the folders different names."
        )
    # Two log-mel frames of a hundredth of a second are one position of the encoder.
    positions = recipe.audio_context.step_seconds * 50
    if abs(positions - round(positions)) > 1e-6:
        raise RecipeError(
            f"{recipe.path} [audio_context] step_seconds = {recipe.audio_context.step_seconds:g} "
            "must be a multiple of 0.02."
        )


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file with `[model]`, one or more `[[sources]]`, `[training]` and, where their
            defaults don't fit, `[mixing]`, `[preprocessing]`, `[windows]`, `[augmentation]`,
            `[method]`, `[audio_context]` and `[evaluation]`.

    Raises:
        RecipeError: with the file, the key and the nearest known one.
    """
    path = Path(path)
    mount_drive(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = ", ".join(sorted(str(p) for p in path.parent.glob("*.toml"))) or "none"
        raise RecipeError(f"{path} is not there; recipes beside it: {there}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from None

    sections = {
        "model": Model,
        "mixing": Mixing,
        "preprocessing": Preprocessing,
        "windows": Windows,
        "augmentation": Augmentation,
        "method": Method,
        "audio_context": AudioContext,
        "evaluation": Evaluation,
    }
    for key in tables:
        if key not in {*sections, "sources", "training"}:
            known = [*sections, "sources", "training"]
            raise RecipeError(f'{path} has the unknown key "{key}"{nearest(key, known)}')
    for key in ("model", "sources", "training"):
        if not tables.get(key):
            raise RecipeError(f"{path} needs [{key}].")
    if not isinstance(tables["sources"], list):
        raise RecipeError(f"{path}: write [[sources]] with double brackets, once for each source.")
    recipe = Recipe(
        path=path,
        sources=tuple(
            _read_table(Source, table, f"{path} [[sources]] {number}")
            for number, table in enumerate(tables["sources"], 1)
        ),
        training=_check_training(tables["training"], f"{path} [training]"),
        **{
            name: _read_table(cls, tables[name], f"{path} [{name}]")
            for name, cls in sections.items()
            if name in tables
        },
    )
    for number, source in enumerate(recipe.sources, 1):
        _check_language(source, f"{path} [[sources]] {number}")
        _check_splits(source, f"{path} [[sources]] {number}")
        _check_ranges(source, SOURCE_RANGES, f"{path} [[sources]] {number}")
    _check_mix(recipe)
    _check_method(recipe.method, recipe.training, f"{path} [method]")
    _check_uses(recipe)
    for name, ranges in RANGES.items():
        _check_ranges(getattr(recipe, name), ranges, f"{path} [{name}]")
    if not recipe.preprocessing.stored and recipe.training.get("max_steps", 0) <= 0:
        raise RecipeError(f"{path} [training] needs max_steps: a stream has no length (stored).")
    _check_embedded(recipe)
    return recipe
