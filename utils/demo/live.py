"""Speech while it is spoken: chunks of a microphone, transcribed anew until a pause."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from utils.whisper.audio_context import SAMPLING_RATE, SILENCE

TRANSCRIBE_EVERY = 3.0  # seconds of new sound; two CPU cores take about 2 for base's window of 30 s
PAUSE_SECONDS = 0.7  # so much silence ends a sentence, and what was transcribed stays as it is
LONGEST_SECONDS = 25.0  # without a pause; the model takes no more than 30


class Live(NamedTuple):
    """What a visitor has said so far."""

    done: tuple[str, ...] = ()  # sentences that a pause has ended
    text: str = ""  # of `samples`, as last transcribed
    samples: np.ndarray = np.zeros(0, np.float32)  # at 16 kHz, since the last pause
    transcribed_seconds: float = 0.0  # of `samples`, when it was last transcribed

    def __str__(self) -> str:
        """Return all that was transcribed."""
        return " ".join([*self.done, self.text]).strip()


def listen(live: Live, new: np.ndarray, transcribe: Callable[[np.ndarray], str]) -> Live:
    """Return what was said with a chunk more.

    Args:
        live: what was said before.
        new: float32 at 16 kHz.
        transcribe: samples of at most 30 s → text; called every `TRANSCRIBE_EVERY`
            seconds, and at pauses.
    """
    samples = np.concatenate([live.samples, new])
    if not len(samples) or np.abs(samples).max() < SILENCE:
        return live._replace(samples=samples[:0], transcribed_seconds=0.0)
    seconds = len(samples) / SAMPLING_RATE
    end = samples[-round(PAUSE_SECONDS * SAMPLING_RATE) :]
    # A microphone is never as silent as a file: a pause is silence beside what was said.
    is_pause = seconds > PAUSE_SECONDS and np.abs(end).max() < 0.05 * np.abs(samples).max()
    if is_pause or seconds > LONGEST_SECONDS:
        return Live((*live.done, transcribe(samples)))
    if seconds - live.transcribed_seconds < TRANSCRIBE_EVERY:
        return live._replace(samples=samples)
    return Live(live.done, transcribe(samples), samples, seconds)
