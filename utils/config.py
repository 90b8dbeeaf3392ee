"""Recipes: one experiment = one TOML file, read strictly into frozen dataclasses."""

import os.path
import re
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from utils.environment.recipe_checks import check_recipe
from utils.environment.recipe_file import read_recipe
from utils.text import languages

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Share = Annotated[float, Field(ge=0, le=1)]
Window = Annotated[float, Field(ge=0, le=30)]  # seconds: Whisper's encoder takes 30 at once
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Place = Annotated[str, AfterValidator(os.path.expanduser)]  # a folder below "~", or any other name

# When a mixed stream ends; the names are those of `datasets.interleave_datasets`.
STOPS = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")


class UserError(Exception):
    """A fault that the user can fix: one sentence says what, where and the way out.

    Of an address in it, a name and a password are left out: notebooks and logs are shared.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Return the sentence."""
        return re.sub(r"//[^/@\s]+@", "//", super().__str__())


class RecipeError(UserError, ValueError):
    """A recipe that cannot be used; the message names the file, the key and the way out."""


@dataclass(frozen=True, config=STRICT)
class Model:
    """The checkpoint to start from."""

    checkpoint: str  # "embedded/whisper-base", a folder, or a Hub id such as "openai/whisper-small"
    revision: str = "main"  # a commit of the Hub id pins the weights for good


@dataclass(frozen=True, config=STRICT)
class Source:
    """Speech in one language from one source; `""` as a split means "not used for that".

    A source without a training split is an unseen test: lesson 5 reports it separately.
    """

    # "embedded", "recordings" (your own), "common_voice", a folder in the Hub's layout, or a Hub id
    dataset: Place
    language: str  # Whisper's code: "it"
    # embedded: the speaker ("carlo"); recordings: a folder or a manifest; common_voice: an archive,
    # an unpacked one, or the locale to download ("es"); Hub: the dataset's config ("it_it")
    name: str = ""
    revision: str = "main"  # a branch, or a commit, which pins the data for good
    # Split names may be joined: "train+validation". A dev or test split that recordings or data of
    # the Hub lack is held out of train: a tenth, by speaker or by sentence.
    train: str = "train"
    dev: str = "dev"
    test: str = "test"
    # Columns of a table, or of the Hub, with the texts and the sound. By default, the first known
    # name that such columns usually have.
    text_column: str = "text"
    audio_column: str = ""
    # recordings with annotations: the tier (Praat, ELAN), or the track of subtitles ("it" of
    # talk.it.srt), where a recording has several; "*": all of them, one for each speaker
    tier: str = ""
    # For a language that Whisper lacks: its own name ("Friulian"); `language` is then the nearest
    # one that Whisper has, whose token is used to train and decode it.
    speaks: str = ""
    # Speech without text: a checkpoint that transcribes it. Doubtful clips are dropped.
    transcribe_with: str = ""
    weight: float = Field(1.0, gt=0)  # relative share of the training stream
    hours: float = Field(0.0, ge=0)  # of training speech: for [mixing] temperature and the estimate
    cased: bool = True  # whether the text has capitals, where its script has any
    punctuated: bool = True
    max_clips: Count = 0  # per split; 0 takes all
    patience_seconds: float = Field(120.0, ge=0)  # the run ends if the Hub is silent for longer

    @property
    def label(self) -> str:
        """A short name for tables: `it carlo`."""
        spoken = f"{self.speaks} as {self.language}" if self.speaks else self.language
        name = (self.name or self.dataset).replace("\\", "/").rstrip("/")
        if not name.startswith("spontaneous/"):  # Common Voice's other corpus of a language
            # A folder or an archive by its last part: a report shows no paths of the machine.
            name = name.rsplit("/", 1)[-1]
        return f"{spoken} {name}"


@dataclass(frozen=True, config=STRICT)
class Mixing:
    """How several sources become one stream."""

    # 0: shares are the sources' weights. From 1 on: weight × hours^(1 / temperature), so that 1 is
    # the data's own proportions and a large one gives every source the same share.
    temperature: float = Field(0.0, ge=0)
    # "first_exhausted", "all_exhausted" (small sources are repeated) or
    # "all_exhausted_without_replacement" (every clip once). "" is the last where all shares are
    # equal, else "all_exhausted": a share means little if every clip comes once.
    stop: Literal["", *STOPS] = ""


@dataclass(frozen=True, config=STRICT)
class Preprocessing:
    """Rules for training clips, and the format of their text."""

    # false streams the training clips from their sources during training, pass by pass, for more
    # speech than the disk holds; 200 of them are stored anyway, to look at.
    stored: bool = True
    min_seconds: Window = 0.3
    max_seconds: Window = 30.0  # Whisper's window: longer audio would be cut off, but not its text
    max_label_tokens: int = Field(448, ge=8, le=448)  # the decoder has no more positions
    silent_below_db: float = Field(-50.0, ge=-200, le=0)  # its loudest 0.1 s; full scale is 0
    max_clipped_share: Share = 0.01  # of the samples at full scale; reported, not dropped
    # Below, most of the speech is missing from the text; above, it is too fast for any script.
    min_characters_per_second: float = Field(0.3, ge=0)
    max_characters_per_second: float = Field(40.0, gt=0)
    max_wrong_script_share: Share = 0.5  # of the letters
    script: str = ""  # Unicode's name ("Thaana") if it is not the language's own
    lower_case: bool = False
    remove_punctuation: bool = False
    drop_tags: bool = False  # leave [laughter], (unintelligible) and <noise> out of the text
    # Off for commands and digits, where everybody says the same and the speakers are kept apart.
    drop_tested_sentences: bool = True  # from training
    # Of a source's split; if more is dropped, something is wrong with the data.
    max_dropped_share: Share = 0.2


@dataclass(frozen=True, config=STRICT)
class AudioContext:
    """How much audio the encoder gets: what the clips need, or always 30 s."""

    enabled: bool = True
    # Contexts are multiples of this, so that shapes stay few, and it is one of 0.02: two log-mel
    # frames of a hundredth of a second are one position of the encoder.
    step_seconds: float = Field(0.5, ge=0.02, le=30, multiple_of=0.02)
    # Training adds a silent tail of U(0, tail_seconds), so that the model can decode any tail;
    # decoding adds half of it. Without a tail the model does not learn where speech ends.
    tail_seconds: Window = 1.0
    # Share of the training batches at 30 s, for programs with that window only. There a clip costs
    # five to ten times as much, so such a batch has half of per_device_train_batch_size at most.
    stock_share: Share = 0.0


@dataclass(frozen=True, config=STRICT)
class Windows:
    """Whether clips share the encoder's window, and what their labels contain beside the words."""

    # Clips of one recording, or of one speaker, are joined to windows of up to this length, at
    # most 30; a batch then counts windows. 0: each clip alone, at a short audio context.
    seconds: Window = 0.0
    # Share of the windows with timestamps in their labels. Without any, a model forgets its
    # timestamps, which long recordings and subtitles need.
    timestamps: Share = 0.0
    # Share with the text of the window before as a prompt, if both are consecutive parts of one
    # recording.
    previous_text: Share = 0.0


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """Augmentation of training clips, so that the model learns the language and not one voice."""

    # Each clip is played slower or faster by a factor of U(1 - speed, 1 + speed), which changes
    # tempo and pitch like a different speaker. 0.1 is customary (Ko et al., Interspeech 2015).
    speed: float = Field(0.0, ge=0, le=0.5)
    # Share of the clips that get noise between white and brown, 5 to 30 dB below the speech.
    noise: Share = 0.0
    gain_db: float = Field(0.0, ge=0, le=60)  # each clip is made louder or softer by up to this
    # Share of the clips that sound as through a telephone (300 to 3,400 Hz, G.711).
    telephone: Share = 0.0
    # Share of the clips whose sound is replaced by silence or noise, and whose text by none: the
    # model learns to return nothing where nobody speaks.
    non_speech: Share = 0.0
    # Whisper's own SpecAugment blanks spans of time and bands of frequency (Park et al. 2019).
    spec_augment: bool = False

    @property
    def changes_sound(self) -> bool:
        """Whether the samples change, and not the log-mels alone."""
        others = ("non_speech", "spec_augment")
        shares = ((one.name, getattr(self, one.name)) for one in fields(self))
        return any(share for name, share in shares if name not in others)


@dataclass(frozen=True, config=STRICT)
class Method:
    """Which weights are trained, when training ends, and which are kept."""

    # "full"; "frozen_encoder" trains only the decoder; "lora" and "dora" train small matrices
    # beside the weights and merge them at the end.
    weights: Literal["full", "frozen_encoder", "lora", "dora"] = "full"
    rank: int = Field(32, ge=1, le=1024)  # of LoRA's and DoRA's matrices
    base_8bit: bool = False  # hold the weights beside LoRA's in 8 bits: needs bitsandbytes
    # Early stopping: end after this many evaluations on dev without a better rate, and keep the
    # best. With 0 all steps are run, and the last weights kept unless earlier ones are better.
    patience: Count = 0
    # Under torchrun: divide weights, gradients and optimizer among the processes (FSDP2), if one
    # card is too small for them. Then the largest batch is not searched for: set it in [training].
    shard: bool = False


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """How the test splits are decoded and scored."""

    # Clips decoded together, each padded to the longest of them; on a GPU more if they fit.
    batch_size: int = Field(16, ge=1, le=100_000)
    # Minutes of dev speech decoded by each evaluation during training, the same clips every time.
    # They determine its cost.
    dev_minutes: float = Field(30.0, ge=0.01)
    # The dev WER, by which a checkpoint is chosen, compares normalised texts, or texts as they are.
    # Lesson 5 reports both.
    normalized: bool = True
    resamples: int = Field(2000, ge=100, le=1_000_000)  # of the bootstrap and the permutation test
    worst_clips: int = Field(8, ge=0, le=1000)  # shown with a player and a word diff
    # Test clips joined to one recording of at most this length; 0 skips long-form evaluation.
    long_seconds: int = Field(240, ge=0, le=86_400)


@dataclass(frozen=True, config=STRICT)
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
    def decoding_context(self) -> AudioContext:
        """How much audio the trained model decodes at: always 30 s if clips were joined.

        A model that has met hardly any short window repeats itself there.
        """
        own = self.audio_context
        return replace(own, enabled=own.enabled and not self.windows.seconds)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that are trained, each once, in the order of the recipe."""
        return tuple(dict.fromkeys(source.language for source in self.sources if source.train))

    @property
    def spoken(self) -> dict[str, str]:
        """What is trained under each code: `{"si": "Dhivehi"}`, where it stands for another one."""
        names, said = languages(), {}
        for one in self.sources:
            if one.train:
                name = one.speaks or names.get(one.language, one.language).title()
                said.setdefault(one.language, {})[name] = None
        return {code: " and ".join(found) for code, found in said.items()}


# Every table of a recipe but [training], whose keys are those of Seq2SeqTrainingArguments.
TABLES: Mapping[str, type] = {
    "[[sources]]": Source,
    **{f"[{one.name}]": one.type for one in fields(Recipe) if is_dataclass(one.type)},
}


def load_recipe(path: str | Path) -> Recipe:
    """Load a recipe, and check everything that can be checked without its data.

    Args:
        path: a TOML file with `[model]`, one or more `[[sources]]`, `[training]` and, where their
            defaults don't fit, other TABLES.

    Raises:
        RecipeError: with the file, the key and the nearest known one.
    """
    path = Path(path).expanduser()
    try:
        recipe = Recipe(path=path, **read_recipe(path, TABLES))
        check_recipe(recipe)
    except ValueError as problem:
        raise RecipeError(f"{path} {problem}") from None
    return recipe
