"""Speech → text: clips in length-sorted batches."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.config import AudioContext
from utils.whisper.audio_context import SAMPLING_RATE, audio_context, decoding_seconds
from utils.whisper.features import log_mel
from utils.whisper.greedy import decode_greedily
from utils.whisper.labels import prefix_ids
from utils.whisper.weight_layout import packed

# A guard, not a limit on speech: it bounds the cost of a clip that repeats itself without end.
# Fast speech has 15 letters a second. In Italian these are 5 tokens; Whisper's vocabulary takes two
# or three tokens for a single letter of Telugu, Malayalam, Georgian, Amharic or Burmese.
TOKENS_PER_SECOND, EXTRA_TOKENS = 45, 32

MOST_TOKENS = 444  # the decoder's 448 positions minus the four tokens of the prompt

MOST_CLIPS = 256  # decoded together on a GPU; with fewer it waits for the host's next command


def clips_at_once(model: WhisperForConditionalGeneration, least: int) -> int:
    """Return how many clips to decode together: on a GPU what half of its free memory holds.

    Counted at 30 s and in 16 bits: what each layer of the decoder keeps of the encoder's 1,500
    positions and of its own, and 24 times the encoder's width for what it computes on the way.

    Args:
        model: on its device.
        least: the recipe's number, which is also that for a CPU.
    """
    if model.device.type != "cuda":
        return least
    config = model.config
    positions = config.max_source_positions + config.max_target_positions
    numbers = 2 * config.decoder_layers * positions + 24 * config.max_source_positions
    room = torch.cuda.mem_get_info(model.device)[0] // 2
    return max(least, min(room // (2 * numbers * config.d_model), MOST_CLIPS))


def most_tokens(clip: np.ndarray) -> int:
    """Return the number of tokens after which decoding of a clip stops."""
    guard = round(TOKENS_PER_SECOND * len(clip) / SAMPLING_RATE) + EXTRA_TOKENS
    return min(guard, MOST_TOKENS)


def _batches(
    lengths: Sequence[int], context: AudioContext | None, batch_size: int
) -> Iterator[tuple[float, list[int]]]:
    """Yield the window in seconds and the clips of each batch; the longest clips come first.

    A batch is decoded at the window of its longest clip, where all clips cost as much. So a clip
    that needs less than half of that window waits for the next batch.
    """
    windows = [decoding_seconds(length / SAMPLING_RATE, context) for length in lengths]
    left = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while left:
        longest = windows[left[0]]
        batch = [index for index in left[:batch_size] if windows[index] >= longest / 2]
        yield longest, batch
        left = left[len(batch) :]


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
    """Return the model's hypothesis for each clip, decoded greedily and without timestamps.

    Args:
        model: on the device to run on.
        processor: the checkpoint's.
        clips: float32 samples at 16 kHz, each at most 30 s.
        language: Whisper's code for all clips, or one for each; English-only checkpoints ignore it.
        context: a short audio context; None is the stock 30 s window. A checkpoint that was not
            trained at a short context must be decoded at 30 s (see `audio_context`).
        batch_size: clips decoded together.
        task: "transcribe", or "translate" into English.
        progress: the text of a progress bar; "" shows none.

    Returns:
        The texts, in the order of the clips.
    """
    languages = [language] * len(clips) if isinstance(language, str) else list(language)
    texts = [""] * len(clips)
    model.eval()
    bar = tqdm(total=len(clips), desc=progress, unit="clip", disable=not progress)
    with packed(model):
        for seconds, batch in _batches([len(clip) for clip in clips], context, batch_size):
            features = log_mel(processor, [clips[index] for index in batch], seconds, model.device)
            with audio_context(model, features.shape[-1]):
                tokens = decode_greedily(
                    model,
                    features.to(model.device, model.dtype),
                    [prefix_ids(processor.tokenizer, languages[index], task) for index in batch],
                    [most_tokens(clips[index]) for index in batch],
                )
            for index, text in zip(
                batch, processor.batch_decode(tokens, skip_special_tokens=True), strict=True
            ):
                texts[index] = text.strip()
            bar.update(len(batch))
    bar.close()
    return texts
