import numpy as np
import pytest

from utils.config import Augmentation
from utils.preprocessing.augmentation import add_noise, as_by_telephone, change_speed, vary


@pytest.fixture
def tone():
    return np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_moves_length_and_pitch_by_the_same_factor(tone, speed):
    changed = change_speed(tone, speed)
    assert len(changed) == pytest.approx(32_000 / speed, abs=2)
    peak = np.fft.rfftfreq(len(changed), 1 / 16_000)[np.abs(np.fft.rfft(changed)).argmax()]
    assert peak == pytest.approx(440 * speed, abs=2)


def test_a_clip_that_would_grow_past_30_seconds_keeps_its_speed():
    samples = np.zeros(29 * 16_000, np.float32)
    assert change_speed(samples, 0.9) is samples
    assert len(change_speed(samples, 1.1)) < len(samples)


@pytest.mark.parametrize("tilt", [0.0, 1.0, 2.0])
def test_noise_lies_so_many_decibels_below_the_speech_and_falls_by_its_tilt(tone, tilt):
    noise = add_noise(tone, 12.0, tilt, np.random.default_rng(0)) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(noise**2)) == pytest.approx(12, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[2**n : 2 ** (n + 1)].mean() for n in range(6, 14)]
    slope = np.polyfit(range(len(octaves)), np.log2(octaves), 1)[0]
    assert slope == pytest.approx(-tilt, abs=0.25)


def test_gain_stays_within_its_bounds_and_reaches_far_both_ways(tone):
    random = np.random.default_rng(0)
    gains = [
        20 * np.log10(np.abs(vary(tone, Augmentation(gain_db=6.0), random)).max())
        for _ in range(200)
    ]
    assert -6.01 < min(gains) < -5
    assert 5 < max(gains) < 6.01


def test_the_share_of_noisy_clips_is_the_recipes(tone):
    random = np.random.default_rng(0)
    noisy = Augmentation(noise=0.3)
    changed = [not np.array_equal(vary(tone, noisy, random), tone) for _ in range(300)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.08)


def test_without_settings_a_clip_stays_as_it_is(tone):
    assert vary(tone, Augmentation(), np.random.default_rng(0)) is tone


def test_a_telephone_passes_its_band_alone_in_the_same_time_and_as_loud():
    time = np.arange(32_000) / 16_000
    tones = {
        hertz: np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (60, 1000, 6000)
    }
    returned = {hertz: as_by_telephone(0.5 * tone) for hertz, tone in tones.items()}
    assert all(len(one) == 32_000 and one.dtype == np.float32 for one in returned.values())
    power = {hertz: np.mean(one[4000:-4000] ** 2) for hertz, one in returned.items()}
    assert power[1000] == pytest.approx(0.125, rel=0.1)
    assert power[60] < 1e-3 and power[6000] < 1e-3
    # 8 bits: rounded, and by far less than the tone.
    rest = np.abs(np.fft.rfft(returned[1000][8000:24_000]))
    assert 1e-4 < np.delete(rest, range(995, 1006)).max() / rest.max() < 0.05


def test_a_share_of_the_clips_is_heard_by_telephone(tone):
    random = np.random.default_rng(0)
    changed = [
        not np.array_equal(vary(tone, Augmentation(telephone=0.5), random), tone) for _ in range(60)
    ]
    assert 15 < sum(changed) < 45
    assert np.array_equal(vary(tone, Augmentation(), random), tone)
