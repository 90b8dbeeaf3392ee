"""Clips → text: length-sorted batches, at the stock 30 s window or at a short context."""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.audio_context import STOCK_SECONDS, audio_context, context_seconds
from utils.config import AudioContext
from utils.streaming import SAMPLING_RATE

# A guard, not a limit on speech: nobody speaks 12 tokens a second, and a clip that repeats itself
# without end costs its batch no more than this.
TOKENS_PER_SECOND, EXTRA_TOKENS = 12, 32


def log_mel(
    processor: WhisperProcessor, clips: Sequence[np.ndarray], seconds: float = STOCK_SECONDS
) -> torch.Tensor:
    """Return log-mel features of clips padded with silence to `seconds`.

    Args:
        processor: the checkpoint's (80 mel bands; 128 for large-v3 and turbo).
        clips: float32 samples at 16 kHz.
        seconds: the window; a longer clip is cut off.

    Returns:
        float32 `(len(clips), mels, 100 · seconds)`.
    """
    # Without max_length the feature extractor pads to 30 s, whatever the clips need.
    return processor.feature_extractor(
        list(clips),
        sampling_rate=SAMPLING_RATE,
        padding="max_length",
        max_length=round(seconds * SAMPLING_RATE),
        truncation=True,
        return_tensors="pt",
    ).input_features


@torch.inference_mode()
def transcribe(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    *,
    language: str | Sequence[str],
    context: AudioContext | None = None,
    batch_size: int = 16,
    task: str = "transcribe",
    progress: str = "",
) -> list[str]:
    """Return what the model hears in each clip, greedily and without timestamps.

    Args:
        model: on the device it shall run on.
        processor: the checkpoint's.
        clips: float32 samples at 16 kHz, each at most 30 s.
        language: Whisper's code for all clips, or one for each; English-only checkpoints ignore it.
        context: a short audio context; None is the stock 30 s window. A checkpoint that was not
            trained at a short context must be read at 30 s (see `audio_context`).
        batch_size: clips decoded together.
        task: "transcribe", or "translate" into English.
        progress: the text of a progress bar; "" shows none.

    Returns:
        The texts, in the order of the clips.
    """
    languages = [language] * len(clips) if isinstance(language, str) else list(language)
    # Clips of like length share a batch: a batch lasts as long as its longest clip.
    order = sorted(range(len(clips)), key=lambda index: -len(clips[index]))
    texts = [""] * len(clips)
    model.eval()
    bar = tqdm(total=len(clips), desc=progress, unit="clip", disable=not progress)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = len(clips[batch[0]]) / SAMPLING_RATE
        seconds = STOCK_SECONDS
        if context is not None:
            seconds = context_seconds(longest, context.tail_seconds / 2, context)
        features = log_mel(processor, [clips[index] for index in batch], seconds)
        asked = {}
        if model.generation_config.is_multilingual:  # else generate refuses both arguments
            asked = {"language": [languages[index] for index in batch], "task": task}
        with audio_context(model, features.shape[-1]):
            tokens = model.generate(
                features.to(model.device, model.dtype),
                # All of the window counts: Whisper's encoder has no padding mask. Without this
                # argument generate warns that it cannot tell.
                attention_mask=features.new_ones(len(batch), features.shape[-1]),
                max_length=min(
                    round(TOKENS_PER_SECOND * longest) + EXTRA_TOKENS,
                    model.config.max_target_positions,
                ),
                num_beams=1,
                do_sample=False,
                **asked,
            )
        for index, text in zip(
            batch, processor.batch_decode(tokens, skip_special_tokens=True), strict=True
        ):
            texts[index] = text.strip()
        bar.update(len(batch))
    bar.close()
    return texts
