"""Probes that hold no speech, and a guess at noise that sorts clips rightly."""

import numpy as np

from utils.evaluation.probes import PROBE_SECONDS, estimate_snr, make_probes


def test_probes_are_what_whisper_hears_and_the_same_each_time():
    probes, again = make_probes(), make_probes()
    assert set(probes) == {"silence", "noise", "music"}
    for name, samples in probes.items():
        assert samples.dtype == np.float32
        assert samples.shape == (16_000 * PROBE_SECONDS,)
        assert np.abs(samples).max() <= 1
        assert (samples == again[name]).all()
    assert not probes["silence"].any()
    assert -31 < 10 * np.log10((probes["noise"] ** 2).mean()) < -29


def test_the_guess_follows_the_noise_that_was_added():
    random = np.random.default_rng(0)
    time = np.arange(3 * 16_000) / 16_000
    speech = np.sin(2 * np.pi * 200 * time) * (time % 1 < 0.7)  # a tone with pauses
    for decibel in (10, 20, 40):
        noise = random.normal(0, np.sqrt(0.5) * 10 ** (-decibel / 20), len(time))
        assert abs(estimate_snr((speech + noise).astype(np.float32)) - decibel) < 2


def test_silence_and_a_clip_of_no_length_have_a_number():
    assert estimate_snr(np.zeros(16_000, np.float32)) == 0
    assert estimate_snr(np.zeros(10, np.float32)) == 0
