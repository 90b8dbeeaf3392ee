"""Where a recording has pauses: frames that are far below its loud parts."""

import numpy as np

from utils.whisper.audio_context import SAMPLING_RATE

FRAME = SAMPLING_RATE // 50  # samples whose level is measured together
QUIET_DB = 25.0  # below the loud parts of the recording: a pause


class Levels:
    """The level of a recording by time, and its pauses."""

    def __init__(self, samples: np.ndarray):
        frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
        level = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
        loud, floor = np.percentile(level, [95, 5]) if len(level) else (0, 0)
        self.quiet = level < max(loud - QUIET_DB, min(floor + 3, loud - 10))
        self.step = FRAME / SAMPLING_RATE

    def pause(self, start: float, end: float) -> tuple[float, float] | None:
        """Return the longest pause within or across an interval, at least a tenth of a second."""
        first, last = max(0, int(start / self.step)), int(end / self.step) + 1
        # A pause is measured beyond the interval, too: its ends are where speech ends and begins.
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.quiet.astype(np.int8), [0]])))
        runs = edges.reshape(-1, 2)
        runs = runs[(runs[:, 1] > first) & (runs[:, 0] < last) & (runs[:, 1] - runs[:, 0] >= 5)]
        if not len(runs):
            return None
        overlap = np.minimum(runs[:, 1], last) - np.maximum(runs[:, 0], first)
        begin, finish = runs[np.argmax(overlap)]
        return begin * self.step, finish * self.step
