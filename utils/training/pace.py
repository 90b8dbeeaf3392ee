"""How fast training is: clips and hours of audio, and the memory that it takes."""

import time

import torch

from utils.environment.machine import peak_gib
from utils.whisper.audio_context import FRAMES_PER_SECOND


class Pace:
    """Counts batches as they are trained on, and returns the pace since its last report."""

    def __init__(self, processes: int):
        self.processes = processes  # each gets as much audio
        self.since: float | None = None
        self.clips, self.seconds = 0, 0.0

    def count(self, features: torch.Tensor) -> None:
        """Count a batch of log-mels `(clips, mels, frames)` that is about to be trained on."""
        if self.since is None:
            self.since = time.perf_counter()
        self.clips += len(features)
        self.seconds += len(features) * features.shape[-1] / FRAMES_PER_SECOND

    def leave_out(self, seconds: float) -> None:
        """Do not count the time that an evaluation took."""
        if self.since is not None:
            self.since += seconds

    def tell(self) -> dict[str, float]:
        """Return the pace of all processes since the last call.

        `audio_hours_per_hour` counts the encoder's windows, silence behind a clip and all.
        `memory_gib` is the most so far: of the GPU, else of the process.
        """
        now = time.perf_counter()
        rate = self.processes / max(now - (self.since or now), 1e-9)
        gib = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else peak_gib()
        told = {
            "clips_per_second": round(self.clips * rate, 2),
            "audio_hours_per_hour": round(self.seconds * rate, 1),
            "memory_gib": round(gib, 2),
        }
        self.since, self.clips, self.seconds = now, 0, 0.0
        return told
