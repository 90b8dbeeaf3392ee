"""Log-mel spectrograms, and the constants of sound and time that several lessons share."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import WhisperProcessor

from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS

TIMESTAMP_STEP = 0.02  # seconds: <|0.00|>, <|0.02|> … <|30.00|> are the last 1501 tokens

SILENCE = 1e-3  # a peak of -60 dBFS: Whisper makes up words for silence


def log_mel(
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    seconds: float = STOCK_SECONDS,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return log-mel features of clips padded with silence to `seconds`.

    Args:
        processor: the checkpoint's (80 mel bands; 128 for large-v3 and turbo).
        clips: float32 samples at 16 kHz.
        seconds: the window; a longer clip is cut off.
        device: where it is computed.

    Returns:
        float32 `(len(clips), mels, 100 · seconds)`, on the CPU.
    """
    # Without max_length the feature extractor pads to 30 s, whatever the clips need.
    return processor.feature_extractor(
        list(clips),
        sampling_rate=SAMPLING_RATE,
        padding="max_length",
        max_length=round(seconds * SAMPLING_RATE),
        truncation=True,
        return_tensors="pt",
        device=str(device),
    ).input_features
