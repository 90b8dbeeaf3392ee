"""Sounds without words: whatever a model transcribes there is a hallucination."""

import numpy as np

from utils.whisper.audio_context import SAMPLING_RATE

PROBE_SECONDS = 8


def _music(time: np.ndarray) -> np.ndarray:
    """Return two chords in turn, with harmonics and a beat: music enough to be no speech."""
    chords = [(220.0, 277.2, 329.6), (196.0, 246.9, 293.7)]
    tones = [
        sum(np.sin(2 * np.pi * pitch * step * time) / step for pitch in chord for step in (1, 2, 3))
        for chord in chords
    ]
    return np.where(time.astype(int) % 2, *tones) * np.exp(-2 * (time % 0.5))


def make_probes(seed: int = 0) -> dict[str, np.ndarray]:
    """Return silence, noise at -30 dB and something like music: float32 at 16 kHz, 8 s each."""
    time = np.arange(PROBE_SECONDS * SAMPLING_RATE) / SAMPLING_RATE
    music = _music(time)
    noise = np.random.default_rng(seed).normal(0, 10 ** (-30 / 20), len(time))
    probes = {"silence": np.zeros(len(time)), "noise": noise, "music": 0.3 * music / music.max()}
    return {name: samples.astype(np.float32) for name, samples in probes.items()}


def estimate_snr(samples: np.ndarray) -> float:
    """Return a clip's signal-to-noise ratio in dB, estimated from its loud and quiet moments.

    The level of its loudest tenth over that of its quietest tenth, in steps of 20 ms; between 0 and
    60. A clip without a pause comes out too low: there is no noise alone to measure.

    Args:
        samples: float32 at 16 kHz.
    """
    step = SAMPLING_RATE // 50
    frames = samples[: len(samples) // step * step].reshape(-1, step)
    if not len(frames):
        return 0.0
    power = np.sort((frames.astype(np.float64) ** 2).mean(axis=1)) + 1e-12
    tenth = max(len(power) // 10, 1)
    ratio = 10 * np.log10(power[-tenth:].mean() / power[:tenth].mean())
    return float(np.clip(ratio, 0, 60))
