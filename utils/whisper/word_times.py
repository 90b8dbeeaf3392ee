"""When each word is said: the decoder's cross-attention, aligned with the sound.

Some heads of the decoder look at the sound of the token that they write; their places are stored
with every checkpoint. The path through their weights on which time never runs backwards says when
each token begins (dynamic time warping), as in OpenAI's own `whisper/timing.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import librosa
import numpy as np
import scipy.ndimage
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from utils.text import has_word_spaces
from utils.whisper.audio_context import FRAMES_PER_POSITION, FRAMES_PER_SECOND, SAMPLING_RATE
from utils.whisper.captions import Segment
from utils.whisper.features import log_mel
from utils.whisper.labels import POSITIONS, prefix_ids, text_ids

SMOOTHED = 7  # encoder positions of 20 ms: the width of the median filter, as OpenAI takes it
POSITIONS_PER_SECOND = FRAMES_PER_SECOND / FRAMES_PER_POSITION


@contextmanager
def _weights_told(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """Compute attention in the way that returns its weights, which the fused kernels do not."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _units(tokenizer: WhisperTokenizer, tokens: list[int], spaced: bool) -> list[tuple[str, int]]:
    """Return each word with the number of its tokens; without spaces, each whole character.

    A token may hold part of a character: its text then ends with U+FFFD.
    """
    units: list[tuple[str, int]] = []
    first = 0
    for end in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[first:end])
        if text.endswith("\ufffd") and end < len(tokens):
            continue
        if units and spaced and not text.startswith(" "):
            units[-1] = (units[-1][0] + text, units[-1][1] + end - first)
        else:
            units.append((text, end - first))
        first = end
    return units


@torch.no_grad()
def _attention(
    model: WhisperForConditionalGeneration, features: torch.Tensor, tokens: list[int]
) -> np.ndarray:
    """Return the weights of the heads that align, `(heads, tokens, positions)`."""
    layers = model.config.decoder_layers
    heads = model.generation_config.alignment_heads or [
        (layer, head)
        for layer in range(layers // 2, layers)
        for head in range(model.config.decoder_attention_heads)
    ]
    with _weights_told(model):
        told = model(
            features,
            decoder_input_ids=torch.tensor([tokens], device=model.device),
            output_attentions=True,
            use_cache=False,
        ).cross_attentions
    return torch.stack([told[layer][0, head] for layer, head in heads]).float().cpu().numpy()


def word_times(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    samples: np.ndarray,
    text: str,
    language: str,
) -> list[Segment]:
    """Return the words of a text that a model decoded, with their times.

    Args:
        model: on its device; any context other than 30 s would need heads that were trained in it.
        processor: the checkpoint's.
        samples: float32 at 16 kHz, at most 30 s.
        text: what is said in them.
        language: Whisper's code; words of languages without spaces are single characters.
    """
    tokenizer = processor.tokenizer
    tokens, prompt = text_ids(tokenizer, text, language), prefix_ids(tokenizer, language)
    tokens = tokens[: POSITIONS - len(prompt) - 1]
    positions = max(int(len(samples) / SAMPLING_RATE * POSITIONS_PER_SECOND), 1)
    features = log_mel(processor, [samples], device=model.device).to(model.device, model.dtype)
    weights = _attention(model, features, [*prompt, *tokens, tokenizer.eos_token_id])
    # A position's row foretells the token behind it: that of the prompt's end, the first of text.
    weights = weights[:, len(prompt) - 1 : -1, :positions]
    deviation = weights.std(axis=1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / np.maximum(deviation, 1e-9)
    weights = scipy.ndimage.median_filter(weights, (1, 1, SMOOTHED), mode="reflect")
    _, path = librosa.sequence.dtw(C=-weights.mean(axis=0))
    path = path[::-1]
    begins = np.searchsorted(path[:, 0], np.arange(weights.shape[1]))
    seconds = path[begins, 1] / POSITIONS_PER_SECOND
    words, place = [], 0
    for word, length in _units(tokenizer, tokens, has_word_spaces(language)):
        words.append(Segment(seconds[place], seconds[place + length], word.strip()))
        place += length
    return words
