import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.features import log_mel


class Processor:
    def __init__(self, mels):
        self.feature_extractor = WhisperFeatureExtractor(feature_size=mels)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.5, 3.0, 30.0])
def test_features_are_those_of_the_feature_extractor(mels, seconds):
    random, processor = np.random.default_rng(0), Processor(mels)
    lengths = [1, SAMPLING_RATE // 3, 2 * SAMPLING_RATE, 4 * SAMPLING_RATE]  # the last is cut off
    clips = [random.normal(0, 0.1, n).astype(np.float32) for n in lengths]
    clips.append(np.zeros(SAMPLING_RATE, np.float32))
    expected = processor.feature_extractor(
        clips,
        sampling_rate=SAMPLING_RATE,
        padding="max_length",
        max_length=round(seconds * SAMPLING_RATE),
        truncation=True,
        return_tensors="pt",
    ).input_features
    found = log_mel(processor, clips, seconds)
    assert found.shape == expected.shape == (5, mels, round(100 * seconds))
    assert torch.allclose(found, expected, atol=1e-5)
