"""Augmentation of training clips, so that the model learns the language and not one recording."""

import librosa
import numpy as np

from utils.config import Augmentation
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS

NOISE_DB = (5.0, 30.0)  # how far the noise stays below the speech


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return a clip played `speed` times as fast, in both tempo and pitch; at most 30 s of it.

    A clip that would exceed the window is left unchanged: its text would be cut off.
    """
    if len(samples) > speed * STOCK_SECONDS * SAMPLING_RATE:
        return samples
    # Treated as audio of a higher rate, the same samples are shorter and higher in pitch.
    rate = round(SAMPLING_RATE * speed)
    return librosa.resample(samples, orig_sr=rate, target_sr=SAMPLING_RATE, res_type="soxr_hq")


def add_noise(samples: np.ndarray, db_below: float, tilt: float, random: np.random.Generator):  # noqa: ANN201
    """Return a clip with noise of a given loudness below its own.

    Args:
        samples: float32, not silent throughout.
        db_below: signal-to-noise ratio in dB.
        tilt: 0 is white noise (a hiss), 1 pink, 2 brown (a rumble).
        random: the generator of the noise.
    """
    spectrum = np.fft.rfft(random.standard_normal(len(samples)))
    frequency = np.arange(len(spectrum))
    spectrum[1:] *= frequency[1:] ** (-tilt / 2)  # the power falls by the tilt
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, len(samples))
    power, target = np.mean(noise**2), np.mean(samples**2) / 10 ** (db_below / 10)
    return (samples + noise * np.sqrt(target / max(power, 1e-12))).astype(np.float32)


def vary(samples: np.ndarray, how: Augmentation, random: np.random.Generator) -> np.ndarray:
    """Return a clip with the recipe's changes of speed, noise and gain, drawn anew."""
    # All are drawn even if unused: enabling one leaves the draws of the others unchanged.
    speed, gain = random.uniform(-1, 1, 2)
    noisy, db_below, tilt = random.random(), random.uniform(*NOISE_DB), random.uniform(0, 2)
    if how.speed:
        samples = change_speed(samples, 1 + speed * how.speed)
    if noisy < how.noise:
        samples = add_noise(samples, db_below, tilt, random)
    if how.gain_db:
        samples = samples * np.float32(10 ** (gain * how.gain_db / 20))
    return samples
