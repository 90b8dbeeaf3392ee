"""Augmentation of training clips, so that the model learns the language and not one recording."""

from collections.abc import Mapping
from typing import Any

import librosa
import numpy as np
import scipy.fft
import scipy.signal

from utils.config import Augmentation
from utils.preprocessing.windows import said_ids
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS

NOISE_DB = (5.0, 30.0)  # how far the noise stays below the speech
ALONE_DB = (-60.0, -15.0)  # below full scale: noise without speech, from hardly heard to loud
BAND_HZ, TELEPHONE_RATE = (300, 3400), 8000  # of a telephone line
MU = 255  # of G.711's 8-bit code, by which quiet samples keep more steps than loud ones
SILENT = 0.25  # of the clips without speech: not even noise


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
    target = np.mean(samples**2) / 10 ** (db_below / 10)
    return (samples + _noise(len(samples), tilt, random) * np.sqrt(target)).astype(np.float32)


def _noise(count: int, tilt: float, random: np.random.Generator) -> np.ndarray:
    """Return noise with a mean power of 1; the tilt is that of `add_noise`."""
    # A clip whose speed was changed may have a prime number of samples: transforms of that length
    # took 20 times as long as of the next one that is a product of small primes.
    size = scipy.fft.next_fast_len(count, real=True)
    spectrum = np.fft.rfft(random.standard_normal(size))
    frequency = np.arange(len(spectrum))
    spectrum[1:] *= frequency[1:] ** (-tilt / 2)  # the power falls by the tilt
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, size)[:count]
    return noise / np.sqrt(max(np.mean(noise**2), 1e-12))


def without_speech(row: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Return a prepared row with silence or noise of its length for its sound, and no text."""
    count, tilt = len(row["audio"]), random.uniform(0, 2)
    power = 10 ** (random.uniform(*ALONE_DB) / 10)
    noise = np.zeros(count, np.float32)
    if random.random() >= SILENT:
        noise = _noise(count, tilt, random) * np.float32(np.sqrt(power))
    labels = list(row["labels"])
    return {
        **row,
        "audio": np.round(noise.clip(-1, 1) * 32767).astype(np.int16),
        "labels": [*labels[: -1 - len(said_ids(row))], labels[-1]],
        "text": "",
        "cut_samples": [count],
        "cut_tokens": [0],
        "previous": [],
    }


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
    # No random number without `telephone`: other recipes get the same clips as they always did.
    if how.telephone and random.random() < how.telephone:
        samples = as_by_telephone(samples)
    return samples


def as_by_telephone(samples: np.ndarray) -> np.ndarray:
    """Return a clip as a telephone line transmits it: a narrow band, in 8 bits a sample."""
    band = scipy.signal.butter(4, BAND_HZ, "bandpass", fs=SAMPLING_RATE, output="sos")
    narrow = scipy.signal.sosfilt(band, samples)
    narrow = librosa.resample(
        narrow, orig_sr=SAMPLING_RATE, target_sr=TELEPHONE_RATE, res_type="soxr_hq"
    )
    code = librosa.mu_compress(narrow.clip(-1, 1), mu=MU, quantize=True)
    wide = librosa.resample(
        librosa.mu_expand(code, mu=MU, quantize=True),
        orig_sr=TELEPHONE_RATE,
        target_sr=SAMPLING_RATE,
        res_type="soxr_hq",
    )
    return librosa.util.fix_length(wide, size=len(samples)).astype(np.float32)
