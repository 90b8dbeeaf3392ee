"""What an experiment needs, computed from the model's dimensions without a run.

The operations match what `torch.utils.flop_counter` counts for tiny, small, medium and turbo.
`python -m utils.environment.estimate RECIPE` prints disk, hours and cost.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from utils.config import Recipe, UserError, load_recipe
from utils.environment.command import command

CLIP_SECONDS = 6.0  # what a clip of read speech and its silent tail take
LABEL_TOKENS = 40
MIB, GIB = 2**20, 2**30


class Checkpoint(NamedTuple):
    """The dimensions of a Whisper."""

    parameters: float
    encoder_layers: int
    decoder_layers: int
    width: int
    mels: int


class Card(NamedTuple):
    """What a device offers, as its maker states it."""

    memory_gib: float
    peak_tflops: float  # in the precision that is trained in


CHECKPOINTS = {
    "openai/whisper-tiny": Checkpoint(37.8e6, 4, 4, 384, 80),
    "embedded/whisper-base": Checkpoint(72.6e6, 6, 6, 512, 80),
    "openai/whisper-base": Checkpoint(72.6e6, 6, 6, 512, 80),
    "openai/whisper-small": Checkpoint(241.7e6, 12, 12, 768, 80),
    "openai/whisper-medium": Checkpoint(762.6e6, 24, 24, 1024, 80),
    "openai/whisper-large-v3-turbo": Checkpoint(807e6, 32, 4, 1280, 128),
    "openai/whisper-large-v2": Checkpoint(1543e6, 32, 32, 1280, 80),
    "openai/whisper-large-v3": Checkpoint(1543e6, 32, 32, 1280, 128),
}
CARDS = {
    "2 CPU cores": Card(8, 0.33),  # at 30 % the 0.1 that such a machine was seen to reach
    "T4": Card(15, 65),
    "L4": Card(22, 121),
    "A100 40 GB": Card(40, 312),
    "A100 80 GB": Card(80, 312),
    "H100": Card(80, 989),
}
# Of a card's peak. 30 % is a well-fed trainer; published Whisper runs reach 2 to 5 %, since they
# wait for one process that decodes audio.
WELL_FED, AS_PUBLISHED = 0.30, 0.03
VOCABULARY = 51_866
STOCK_SECONDS = 30.0
GB_AN_HOUR = 0.115  # of prepared speech: 16,000 samples a second of two bytes
CLIPS_A_CORE_SECOND = 90  # from MP3 to samples: benchmarks/results/decode.json
HELD_OUT = 0.1  # of the training speech, in dev and in test each, where a recipe does not say
ADAPTER_SHARE = 0.06  # of the weights: what LoRA trains (benchmarks/results/variants.json)


def training_flops(model: Checkpoint, seconds: float = CLIP_SECONDS) -> float:
    """Return the operations of one clip, forward and backward, for this much audio."""
    frames, d, tokens = 100 * seconds, model.width, LABEL_TOKENS
    positions = frames / 2
    conv = 2 * frames * 3 * model.mels * d + 2 * positions * 3 * d * d
    encoder = model.encoder_layers * (24 * positions * d * d + 4 * positions**2 * d)
    per_token = 28 * tokens * d * d + 4 * tokens**2 * d
    cross = 4 * positions * d * d + 4 * tokens * positions * d
    decoder = model.decoder_layers * (per_token + cross)
    return 3 * (conv + encoder + decoder + 2 * tokens * d * VOCABULARY)


def training_memory_gib(model: Checkpoint, batch: int, seconds: float = CLIP_SECONDS) -> float:
    """Return weights, gradients, optimizer and the activations of a batch (16-bit, no recomputing).

    42 bytes per position, width and encoder layer, and 13.8 MiB per decoder layer of width 1024
    over 30 s, were fitted to counts of the tensors that autograd keeps.
    """
    positions = 50 * seconds
    encoder = 42 * positions * model.width * model.encoder_layers
    decoder = 13.8 * MIB * model.width / 1024 * positions / 1500 * model.decoder_layers
    logits = 10 * LABEL_TOKENS * VOCABULARY
    return (18 * model.parameters + batch * (encoder + decoder + logits)) / GIB + 1


class Needs(NamedTuple):
    """What a recipe needs: GB on disk by purpose, and hours by stage as (low, high)."""

    said: str  # from what it was computed
    gb: dict[str, float]
    hours: dict[str, tuple[float, float]]

    @property
    def all_hours(self) -> tuple[float, float]:
        """The hours of all stages together, as (low, high)."""
        low, high = zip(*self.hours.values(), strict=True)
        return sum(low), sum(high)

    def __str__(self) -> str:
        """Return it as a text with two small tables, and how far to trust it."""
        disk = {**self.gb, "together": sum(self.gb.values())}
        time = {**self.hours, "together": self.all_hours}
        unit, of_an_hour = ("hours", 1) if self.all_hours[1] >= 2 else ("minutes", 60)
        lines = [self.said, "", "GB on disk"]
        lines += [f"  {name:44}{gb:10.1f}" for name, gb in disk.items()]
        lines += ["  The data set as it is downloaded, and the environment, come on top.", "", unit]
        for name, (low, high) in time.items():
            lines.append(f"  {name:36}{low * of_an_hour:8.1f} to {high * of_an_hour:.1f}")
        trust = f"{WELL_FED:.0%} to {AS_PUBLISHED:.0%} of the peak that the card's maker states"
        trust = f"Arithmetic, not measured: {trust}. A pilot of 100 steps shows the real pace."
        return "\n".join([*lines, "", trust])


def _speech(recipe: Recipe, hours: float) -> tuple[float, int, int, str]:
    """Return the clips to train on, how many an update has, the steps, and all of it in words."""
    told, trained = recipe.training, [source for source in recipe.sources if source.train]
    batch = told.get("per_device_train_batch_size", 8) * told.get("gradient_accumulation_steps", 1)
    steps, clip = told.get("max_steps", 0), (recipe.windows.seconds or CLIP_SECONDS - 1) / 3600
    known = hours or sum(source.hours for source in trained)
    if not known and steps <= 0:
        raise UserError(f"{recipe.path} trains by passes: say how much speech it has, --hours 3.")
    clips = known / clip or steps * batch
    if all(source.max_clips for source in trained):
        clips = min(clips, sum(source.max_clips for source in trained))
    if steps <= 0:
        steps = math.ceil(told.get("num_train_epochs", 3) * clips / batch)
    origin = "" if known else ", as much as the steps train on (--hours says better)"
    said = f"{steps:,} steps of {batch} clips; {clips * clip:,.1f} h of training speech{origin}"
    return clips, batch, steps, f"{said}, and a tenth of it in dev and in test each"


def recipe_needs(recipe: Recipe, card: str, hours: float = 0.0, cores: int = 1) -> Needs:
    """Return what a recipe needs on a card, from its steps and the hours of its speech.

    Args:
        recipe: the experiment.
        card: a key of `CARDS`.
        hours: of training speech; 0 takes what the sources say, else as much as the steps train on.
        cores: that prepare the speech.

    Raises:
        UserError: the checkpoint is unknown or too large for the card, or the amount of speech is
            not known.
    """
    name, told = recipe.model.checkpoint, recipe.training
    known = f"openai/{name.rpartition('/')[2].removesuffix('.en')}"  # as large as the English one
    if known not in CHECKPOINTS:
        raise UserError(f"{recipe.path}: {name} is not in the table: {', '.join(CHECKPOINTS)}.")
    model, device = CHECKPOINTS[known], CARDS[card]
    adapters, least = recipe.method.weights in ("lora", "dora"), training_memory_gib(model, 1)
    if not adapters and least > device.memory_gib:
        needed = f"{least:.0f} of {device.memory_gib:.0f} GiB"
        raise UserError(f"{name} does not fit {card}, {needed}: take LoRA or a smaller checkpoint.")
    clips, batch, steps, said = _speech(recipe, hours)
    on_card = "" if adapters else f"; {least:.1f} GiB on the card for one clip at a time"
    window, audio = recipe.windows.seconds or CLIP_SECONDS, recipe.audio_context
    stock = training_flops(model, STOCK_SECONDS)
    short = training_flops(model, window) if audio.enabled else stock
    # A batch at 30 s has half of the clips.
    trained = short + audio.enabled * audio.stock_share * (stock / 2 - short)
    every = told.get("eval_steps", 500)
    looks = 2 + (1 / every if every < 1 else steps / every)  # and before and after training
    dev = min(HELD_OUT * clips, 60 * recipe.evaluation.dev_minutes / (CLIP_SECONDS - 1))
    # The base and the fine-tuned model at 30 s, the fine-tuned one at its own window, too.
    test = HELD_OUT * clips * (2 * stock + short)
    work = {"training": steps * batch * trained, "decoding": (looks * dev * short + test) / 3}
    stored = clips * (recipe.preprocessing.stored + 2 * HELD_OUT)
    decoded = stored / CLIPS_A_CORE_SECOND / cores / 3600
    gb = GB_AN_HOUR * (recipe.windows.seconds or CLIP_SECONDS - 1) / 3600 * stored
    kept = told.get("save_total_limit", 2) + 1  # one more while it is written
    optimizer = 12 * (ADAPTER_SHARE if adapters else 1)  # bytes a weight, with the weight
    hour = device.peak_tflops * 1e12 * 3600
    return Needs(
        f"{name}, {said}{on_card}",
        {
            "prepared speech, twice while it is written": 2 * gb,
            f"{kept} checkpoints": kept * optimizer * model.parameters / 1e9,
            "base model, model, exported formats": 17 * model.parameters / 1e9,
        },
        {f"preparing, {cores} cores": (decoded, decoded)}
        | {of: (n / hour / WELL_FED, n / hour / AS_PUBLISHED) for of, n in work.items()},
    )


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print what an experiment needs: GB on disk, hours, and what a rented card costs."""
    program = "python -m utils.environment.estimate"
    parser = argparse.ArgumentParser(program, description=main.__doc__)
    parser.add_argument("recipe", help="a TOML file")
    parser.add_argument("--card", choices=CARDS, default="A100 80 GB", help="(%(default)s)")
    parser.add_argument("--hours", type=float, default=0.0, help="of training speech")
    parser.add_argument("--price", type=float, default=0.0, help="of the machine, an hour")
    options = parser.parse_args(arguments)
    if not all(0 <= number < math.inf for number in (options.hours, options.price)):
        parser.error("--hours and --price are 0 or more.")
    from utils.environment.machine import usable_cores  # here: it imports torch

    recipe = load_recipe(options.recipe)
    needs = recipe_needs(recipe, options.card, options.hours, usable_cores())
    print(f"{options.recipe} on {options.card}: {needs}")
    if options.price:
        low, high = (hours * options.price for hours in needs.all_hours)
        print(f"\ncost: {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    sys.exit(main())
