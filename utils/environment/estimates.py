"""Estimates of what a training run needs, computed from the model's dimensions without a run.

The operations match what `torch.utils.flop_counter` counts for tiny, small, medium and turbo.
"""

import math
from typing import NamedTuple

CLIP_SECONDS = 6.0  # what a clip of read speech and its silent tail take
LABEL_TOKENS = 40
PASSES = 5  # over the data
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


class Estimate(NamedTuple):
    """What a training run should need."""

    steps: int
    batch_size: int
    accumulation: int
    memory_gib: float
    minutes_low: float
    minutes_high: float
    fits: bool

    def __str__(self) -> str:
        """Return the estimate in words, with its uncertainty."""
        memory = f"{self.memory_gib:.1f} GiB"
        if not self.fits:
            return f"Does not fit: {memory} for one clip at a time. Take a smaller checkpoint."
        low, high = (
            f"{m:.0f} minutes" if m < 90 else f"{m / 60:.1f} h"
            for m in (max(self.minutes_low, 1), max(self.minutes_high, 1))
        )
        return (
            f"{self.steps} steps of {self.batch_size} × {self.accumulation} clips, {memory}, {low} "
            f"to {high} of training. Arithmetic, not measured: the range is {WELL_FED:.0%} to "
            f"{AS_PUBLISHED:.0%} of the peak that the card's maker states. Lesson 04 shows the "
            "real pace after a few steps."
        )


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


def estimate(checkpoint: str, card: str, hours: float) -> Estimate:
    """Return what `PASSES` passes over so many hours need on a card.

    Raises:
        KeyError: a checkpoint or card that is not in the tables.
    """
    model, device = CHECKPOINTS[checkpoint], CARDS[card]
    room = (b for b in (16, 8, 4, 2, 1) if training_memory_gib(model, b) < device.memory_gib)
    batch = next(room, 0)
    clips = max(16, round(hours * 3600 / (CLIP_SECONDS - 1)))
    steps = math.ceil(PASSES * clips / 16)
    minutes = steps * 16 * training_flops(model) / (device.peak_tflops * 1e12) / 60
    return Estimate(
        steps=steps,
        batch_size=max(batch, 1),
        accumulation=16 // max(batch, 1),
        memory_gib=training_memory_gib(model, max(batch, 1)),
        minutes_low=minutes / WELL_FED,
        minutes_high=minutes / AS_PUBLISHED,
        fits=batch > 0,
    )
