"""Greedy decoding: the most likely token at each step, until the end token."""

from collections.abc import Sequence

import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    LogitsProcessor,
    WhisperForConditionalGeneration,
)

# If this many last tokens repeat one phrase of at most this length, they are not speech: the
# phrase occurs at least four times. OpenAI's own decoding rejects such a text, too.
LOOP_TOKENS, LONGEST_PHRASE = 32, 8


def phrase_of_loop(tokens: torch.Tensor) -> torch.Tensor:
    """Return for each row of `(rows, tokens)` the length of the phrase that it repeats, or 0."""
    phrases = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    if tokens.shape[1] >= LOOP_TOKENS:
        last = tokens[:, -LOOP_TOKENS:]
        for length in range(LONGEST_PHRASE, 0, -1):
            repeats = (last[:, length:] == last[:, :-length]).all(1)
            # Not phrases[repeats] = length: for that the host would wait for a GPU.
            phrases = torch.where(repeats, length, phrases)
    return phrases


LOOK = 8  # tokens on a GPU between two looks of the host at what has ended: it waits at each


def _looks(device: torch.device) -> int:
    return 1 if device.type == "cpu" else LOOK


def _suppressed(model: WhisperForConditionalGeneration) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what to add to the scores of all tokens: to those of the first, and of the others."""
    settings = model.generation_config
    never = torch.zeros(model.config.vocab_size, device=model.device)
    never[settings.suppress_tokens or []] = -torch.inf
    not_first = never.clone()
    not_first[settings.begin_suppress_tokens or []] = -torch.inf
    return not_first, never


def _end_tokens(model: WhisperForConditionalGeneration) -> torch.Tensor:
    """Return one id or more; checkpoints from elsewhere may have it in their config only."""
    eos = model.generation_config.eos_token_id
    eos = eos if eos is not None else model.config.eos_token_id
    return torch.tensor(eos, device=model.device).flatten()


def _leaving(
    tokens: torch.Tensor, begin: int, ends: torch.Tensor, eos: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which rows are complete, and how many of their last tokens are not to be kept."""
    ended = torch.isin(tokens[:, -1], eos)
    phrases = phrase_of_loop(tokens[:, begin:])
    too_many = torch.where(phrases > 0, LOOP_TOKENS - phrases, ended.long())
    return ended | (phrases > 0) | (tokens.shape[1] >= ends), too_many


@torch.no_grad()  # not inference_mode: there autocast would cast all weights again at each token
def decode_greedily(
    model: WhisperForConditionalGeneration,
    features: torch.Tensor,
    prompts: Sequence[Sequence[int]],
    most_tokens: Sequence[int],
    rule: LogitsProcessor | None = None,
) -> list[list[int]]:
    """Return the tokens that the model decodes for each clip of a batch.

    They are those of `model.generate(num_beams=1, do_sample=False)`, except for a phrase that
    repeats without end: decoding of that clip stops, and the phrase is kept once. Two things make
    it faster: suppressed tokens are looked up once, while generate searches the 51,865 of the
    vocabulary for them twice a step, and a clip that has ended leaves the batch (on a GPU within
    eight tokens), while generate computes its silence until the last one has ended too.

    Args:
        model: on the device of the features; inside `audio_context` where they are short.
        features: log-mels `(clips, mels, frames)`.
        prompts: for each clip the `prefix_ids`, all of one length.
        most_tokens: for each clip the number of tokens after which decoding stops.
        rule: suppresses tokens depending on those before, like the rule of timestamps.

    Returns:
        For each clip the tokens after its prompt, without the end token.
    """
    tokens = torch.tensor(prompts, device=model.device)
    begin, rows = tokens.shape[1], torch.arange(len(tokens), device=model.device)
    ends = torch.tensor(most_tokens, device=model.device) + begin
    ends = ends.clamp(max=model.config.max_target_positions)
    last = min(max(most_tokens) + begin, model.config.max_target_positions)
    every = _looks(model.device)
    (not_first, never), eos = _suppressed(model), _end_tokens(model)

    found: list[list[int]] = [[] for _ in prompts]
    kept = torch.zeros_like(ends)  # tokens of each clip that has ended, its prompt included
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    step = model(features, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)
    encoded = step.encoder_last_hidden_state
    while True:
        scores = step.logits[:, -1].float() + (not_first if tokens.shape[1] == begin else never)
        if rule is not None:
            scores = rule(tokens, scores)
        tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], 1)
        leaving, too_many = _leaving(tokens, begin, ends, eos)
        kept = torch.where(leaving & (kept == 0), tokens.shape[1] - too_many, kept)
        looks = (tokens.shape[1] - begin) % every == 0 or tokens.shape[1] == last
        if looks and (left := kept > 0).any():
            for row, line, length in zip(
                rows[left].tolist(), tokens[left].tolist(), kept[left].tolist(), strict=True
            ):
                found[row] = line[begin:length]
            staying = (~left).nonzero()[:, 0]
            if not len(staying):
                return found
            cache.batch_select_indices(staying)
            tokens, rows, ends, kept, encoded = (
                of_all[staying] for of_all in (tokens, rows, ends, kept, encoded)
            )
        # The cache holds the decoder's states for all tokens but the last, and those of the audio.
        step = model(
            encoder_outputs=(encoded,),
            decoder_input_ids=tokens[:, -1:],
            past_key_values=cache,
            use_cache=True,
        )
