"""Variable-length encoder input: the encoder gets what the clips need, not always 30 seconds.

Whisper pads every clip to 30 s. For a 3 s clip nine tenths of each step are spent on silence. The
encoder does not need that: its position table holds sinusoids, and a shorter input uses the first
rows. Only two numbers in Transformers insist on 1500 positions; `audio_context` lowers them while
it is active. Outside it the model is an ordinary Whisper, so that whatever is saved loads
everywhere.

A pretrained model that decodes at a short context repeats itself without end until some 20
training steps have taught it where short audio stops: measure a baseline at 30 s.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from utils.config import AudioContext

if TYPE_CHECKING:  # the constants below are asked for by pages, which start without torch
    from transformers import WhisperForConditionalGeneration

SAMPLING_RATE = 16_000  # Hz; Whisper was trained on nothing else
FRAMES_PER_SECOND = 100  # log-mel frames: a hop of 160 samples at 16 kHz
FRAMES_PER_POSITION = 2  # the second convolution of the encoder has stride 2
STOCK_SECONDS = 30.0
SILENCE = 1e-3  # a peak of -60 dBFS: Whisper makes up words for silence


def context_seconds(longest_seconds: float, tail_seconds: float, context: AudioContext) -> float:
    """Return the context for a batch whose longest clip is given: on the grid, at most 30 s."""
    if not context.enabled:
        return STOCK_SECONDS
    steps = math.ceil((longest_seconds + tail_seconds) / context.step_seconds - 1e-9)
    return min(steps * context.step_seconds, STOCK_SECONDS)


def decoding_seconds(seconds: float, context: AudioContext | None) -> float:
    """Return the context for decoding a clip: half the tail of training; None is the stock one."""
    if context is None:
        return STOCK_SECONDS
    return context_seconds(seconds, context.tail_seconds / 2, context)


def _set_positions(model: "WhisperForConditionalGeneration", positions: int) -> None:
    encoder = model.get_encoder()
    # WhisperEncoder.forward compares the input's length with the first and takes as many rows of
    # the position table as the second says; generate pads up to the first (transformers 5.23).
    encoder.config.max_source_positions = positions
    encoder.embed_positions.num_embeddings = positions


@contextmanager
def audio_context(model: "WhisperForConditionalGeneration", frames: int) -> Iterator[None]:
    """Let `model` take log-mels of `frames` frames while the block runs.

    Args:
        model: a Whisper; its weights are not touched, and after the block it is stock again.
        frames: `input_features.shape[-1]`; even, at most twice the rows of the position table.

    Raises:
        ValueError: the encoder has no such positions.
    """
    rows = len(model.get_encoder().embed_positions.weight)
    positions, odd = divmod(frames, FRAMES_PER_POSITION)
    if odd or not 0 < positions <= rows:
        raise ValueError(
            f"{frames} log-mel frames do not fit the encoder: give an even number from 2 to "
            f"{rows * FRAMES_PER_POSITION}."
        )
    _set_positions(model, positions)
    try:
        yield
    finally:
        _set_positions(model, rows)
