"""Log-mel spectrograms."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperProcessor

from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS

TIMESTAMP_STEP = 0.02  # seconds: <|0.00|>, <|0.02|> … <|30.00|> are the last 1501 tokens


def log_mel(
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    seconds: float = STOCK_SECONDS,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return log-mel features of clips padded with silence to `seconds`.

    Equal to the feature extractor's to 1e-5 (a test compares both; 4e-5 on an H100), in about half
    of its time on a CPU, and they stay on the device that computed them.

    Args:
        processor: the checkpoint's (80 mel bands; 128 for large-v3 and turbo).
        clips: float32 samples at 16 kHz.
        seconds: the window; a longer clip is cut off.
        device: where to compute.

    Returns:
        float32 `(len(clips), mels, 100 · seconds)`, on `device`.
    """
    samples = torch.zeros(len(clips), round(seconds * SAMPLING_RATE))
    for row, clip in zip(samples, clips, strict=True):
        length = min(len(clip), len(row))
        row[:length] = torch.from_numpy(np.asarray(clip[:length], dtype=np.float32))
    return log_mel_of(samples.to(device), processor.feature_extractor)


@functools.lru_cache(maxsize=4)
def _constants(
    extractor: WhisperFeatureExtractor, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Fourier window and the mel filters, copied to a device once."""
    dtype = torch.float64 if device.type == "cuda" else torch.float32
    filters = torch.from_numpy(extractor.mel_filters.T.copy()).to(device, dtype)
    return torch.hann_window(extractor.n_fft, device=device), filters


def log_mel_of(samples: torch.Tensor, extractor: WhisperFeatureExtractor) -> torch.Tensor:
    """Return log-mel features of float32 `(clips, samples)`, on the same device.

    The last frame of the Fourier transform is dropped, and values more than eight powers of ten
    below a clip's maximum are raised to that, as Whisper was trained (Radford et al. 2022).
    """
    window, filters = _constants(extractor, samples.device)
    spectrum = torch.view_as_real(
        torch.stft(
            samples, extractor.n_fft, extractor.hop_length, window=window, return_complex=True
        )
    )[:, :, :-1]
    # Not abs() ** 2: its square root costs more than the rest of the spectrogram.
    power = spectrum[..., 0].square() + spectrum[..., 1].square()
    # Not in float32 on a GPU: where the recipe allows TF32, three digits would be left of it.
    mel = torch.matmul(filters, power.to(filters.dtype)).float().clamp_(min=1e-10).log10_()
    return torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8).add_(4).div_(4)
