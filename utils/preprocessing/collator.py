"""Batches: log-mels no longer than the clips need, labels padded with what the loss ignores."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import WhisperProcessor

from utils.config import AudioContext, Augmentation, Windows
from utils.preprocessing.augmentation import vary, without_speech
from utils.preprocessing.examples import INT16_SCALE, waveform
from utils.preprocessing.windows import POSITIONS, timed_labels
from utils.whisper.audio_context import (
    FRAMES_PER_SECOND,
    SAMPLING_RATE,
    STOCK_SECONDS,
    context_seconds,
)
from utils.whisper.features import log_mel_of

IGNORED = -100  # PyTorch's cross-entropy leaves these positions out of the loss


class SpeechCollator:
    """Prepared rows → one batch of `input_features`, `decoder_input_ids` and `labels`.

    In training every clip gets a silent tail of random length, so that the model learns that speech
    ends where it ends and not where the window does.

    Args:
        processor: the checkpoint's.
        context: the recipe's; disabled means stock 30 s windows.
        seed: of the tail, of the augmentation and of the choice of labels.
        augmentation: the recipe's; None leaves the clips as they are.
        windows: the recipe's; None uses neither timestamps nor the text before.
        most_at_30s: clips in a batch of `stock_share`; None: all. A batch of short clips has many,
            and each costs as much there as a clip of 30 s.

    Random choices depend on the seed, the epoch and the clips of the batch, not on the state of a
    generator: a resumed run, and any number of loader workers, draw the same.
    """

    def __init__(
        self,
        processor: WhisperProcessor,
        context: AudioContext,
        seed: int = 42,
        augmentation: Augmentation | None = None,
        windows: Windows | None = None,
        most_at_30s: int | None = None,
    ):
        self.processor = processor
        self.context = context
        self.seed = seed
        self.augmentation = augmentation or Augmentation()
        self.windows = windows or Windows()
        self.most_at_30s = most_at_30s

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch with its log-mels.

        Returns:
            `input_features`, float32 `(batch, mels, frames)`, int64 `decoder_input_ids` and
            `labels` `(batch, longest labels)`. With SpecAugment also `attention_mask`
            `(batch, frames)`: Whisper masks spans of time where it is 1, in the speech. Without
            rows, a bit of silence without labels: an update may have fewer clips than batches.
        """
        return self.with_features(self.with_samples(rows))

    def with_features(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch of `with_samples` with the log-mels of its samples, on their device."""
        samples = batch["samples"]
        if samples.dtype == torch.int16:
            samples = samples.float() / INT16_SCALE
        features = log_mel_of(samples, self.processor.feature_extractor)
        rest = {name: values for name, values in batch.items() if name != "samples"}
        return {"input_features": features, **rest}

    def with_samples(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch with `samples` `(batch, samples)` in place of `input_features`.

        That is what other processes send to the one that trains: int16, or float32 if the sound is
        augmented.
        """
        if not rows:
            return self._nothing()
        batch_key = zlib.crc32("\n".join(row["id"] for row in rows).encode())
        # Of the clips alone, a batch of one clip would be drawn alike in every epoch.
        random = np.random.default_rng([self.seed, batch_key, rows[0].get("epoch", 0)])
        tail, stock = random.uniform(0, self.context.tail_seconds), random.random()
        at_30s = self.context.enabled and stock < self.context.stock_share
        if at_30s and self.most_at_30s:
            rows = [rows[n] for n in sorted(random.permutation(len(rows))[: self.most_at_30s])]
        if share := self.augmentation.non_speech:
            rows = [without_speech(row, random) if random.random() < share else row for row in rows]
        read = waveform if self.augmentation.changes_sound else _stored
        clips = [vary(read(row), self.augmentation, random) for row in rows]
        seconds = [len(clip) / SAMPLING_RATE for clip in clips]
        context = STOCK_SECONDS if at_30s else context_seconds(max(seconds), tail, self.context)
        pairs = [self._read_and_write(*pair, random) for pair in zip(rows, clips, strict=True)]
        reads, writes = zip(*pairs, strict=True)
        batch = {
            "samples": _padded(clips, round(context * SAMPLING_RATE)),
            # The label after a padding token is left out of the loss.
            "decoder_input_ids": _filled(reads, self.processor.tokenizer.pad_token_id),
            "labels": _filled(writes, IGNORED),
        }
        if self.augmentation.spec_augment:
            frames = torch.arange(round(context * FRAMES_PER_SECOND))
            ends = torch.tensor(seconds)[:, None] * FRAMES_PER_SECOND
            batch["attention_mask"] = (frames < ends).long()
        return batch

    def _nothing(self) -> dict[str, torch.Tensor]:
        context = context_seconds(0.5, 0, self.context)
        ids = torch.tensor([[self.processor.tokenizer.pad_token_id]])
        return {
            "samples": _padded([np.zeros(0, np.int16)], round(context * SAMPLING_RATE)),
            "decoder_input_ids": ids,
            "labels": torch.full_like(ids, IGNORED),
        }

    def _read_and_write(
        self, row: Mapping[str, Any], clip: np.ndarray, random: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """Return the decoder's input tokens, and the label for each of them."""
        tokenizer = self.processor.tokenizer
        with_times, with_previous = random.random(2)
        ids = list(row["labels"])
        if with_times < self.windows.timestamps and sum(row["cut_tokens"]):
            first = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
            ids = timed_labels(row, first, len(clip) / len(row["audio"]))
        prompt = []
        if with_previous < self.windows.previous_text and row["previous"]:
            too_many = max(len(row["previous"]) + len(ids) - POSITIONS, 0)
            prompt = [tokenizer.convert_tokens_to_ids("<|startofprev|>")]
            prompt += row["previous"][too_many:]
        # Each label is the next input token. <|startoftranscript|> is only an input; so is the text
        # before, which is not in this window's audio.
        return [*prompt, *ids[:-1]], [*[IGNORED] * len(prompt), *ids[1:]]


def _stored(row: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(row["audio"], dtype=np.int16)


def _padded(clips: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """Return clips `(clips, length)`, padded with silence or cut off."""
    samples = np.zeros((len(clips), length), dtype=clips[0].dtype)
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = clip[:length]
    return torch.from_numpy(samples)


def _filled(ids: Sequence[list[int]], value: int) -> torch.Tensor:
    tensors = [torch.tensor(one) for one in ids]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
