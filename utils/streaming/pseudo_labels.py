"""Pseudo-labels: the text of speech that has none, transcribed by a model; doubtful ones dropped.

A clip is decoded twice, at the beginning of the 30 s window and a second later in it. What a model
understands does not depend on that; what it guesses often does. A clip whose two texts differ, that
repeats itself, or whose tokens the model itself finds unlikely is dropped and counted under its
reason. The rules of `[preprocessing]` follow, characters a second among them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.config import RecipeError
from utils.embedded.fetch import resolve
from utils.environment.machine import device
from utils.scoring.error_rates import count_errors, error_rate
from utils.streaming.sound import AudioError, decode_audio
from utils.text import MAX_COMPRESSION, compression_ratio, normalize
from utils.whisper.audio_context import SAMPLING_RATE, STOCK_SECONDS
from utils.whisper.decoding import transcribe
from utils.whisper.features import log_mel
from utils.whisper.labels import POSITIONS, encode_text, is_multilingual, prefix_ids
from utils.whisper.load import load_checkpoint
from utils.whisper.weight_layout import packed

Model = tuple[WhisperForConditionalGeneration, WhisperProcessor]

SHIFT_SECONDS = 1.0  # of silence before the clip when it is decoded a second time
MOST_APART = 0.1  # CER between the two texts: one changed ending of a word in a short sentence
LEAST_LOG_PROBABILITY = -1.0  # mean of the tokens'; below it OpenAI's own decoding tries again
PSEUDO = "transcribed by a model: "  # begins each reason, which `prepare` does not hold against
CLIPS_AT_ONCE = 64  # read before they are decoded


def judge(first: str, second: str, log_probability: float, language: str) -> str:
    """Return why a transcript is doubtful, or "".

    Args:
        first: the text of the clip.
        second: that of the clip a second later in the window.
        log_probability: the mean of the first one's tokens.
        language: Whisper's code, for the comparison.
    """
    one, other = (normalize(text, language) for text in (first, second))
    if not one:
        return f"{PSEUDO}no text"
    if compression_ratio(first) > MAX_COMPRESSION:
        return f"{PSEUDO}it repeats itself"
    if error_rate(count_errors([one], [other], "char")) > MOST_APART:
        return f"{PSEUDO}two decodings differ"
    if log_probability < LEAST_LOG_PROBABILITY:
        return f"{PSEUDO}improbable"
    return ""


@torch.no_grad()
def mean_log_probabilities(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    clips: Sequence[np.ndarray],
    texts: Sequence[str],
    language: str,
    batch_size: int = 16,
    progress: str = "",
) -> list[float]:
    """Return for each clip the mean log-probability of its text's tokens, the end token included.

    Args:
        model: on the device to run on.
        processor: the checkpoint's.
        clips: float32 samples at 16 kHz, each at most 30 s.
        texts: of each clip.
        language: Whisper's code.
        batch_size: clips computed together.
        progress: the text of a progress bar; "" shows none.
    """
    tokenizer, found = processor.tokenizer, []
    begin = len(prefix_ids(tokenizer, language))
    starts = range(0, len(clips), batch_size)
    with packed(model):
        for start in tqdm(starts, desc=progress, unit="batch", disable=not progress):
            some = slice(start, start + batch_size)
            labels = [encode_text(tokenizer, text, language)[:POSITIONS] for text in texts[some]]
            padded = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(ids) for ids in labels], batch_first=True, padding_value=-1
            ).to(model.device)
            features = log_mel(processor, clips[some], device=model.device).to(model.dtype)
            logits = model(features, decoder_input_ids=padded[:, :-1].clamp(min=0)).logits
            said = padded[:, begin:]
            scores = logits[:, begin - 1 :].float().log_softmax(-1)
            chosen = scores.gather(2, said.clamp(min=0)[..., None])[..., 0] * (said >= 0)
            found += (chosen.sum(1) / (said >= 0).sum(1)).tolist()
    return found


def pseudo_label(
    model: Model, clips: Sequence[np.ndarray], language: str, progress: str = ""
) -> list[tuple[str, str]]:
    """Return text and doubt (see `judge`; "" is none) of each clip.

    Args:
        model: on the device to run on, and its processor.
        clips: float32 samples at 16 kHz, each at most 30 s.
        language: Whisper's code.
        progress: the text of a progress bar; "" shows none.
    """
    shift = [
        min(round(SHIFT_SECONDS * SAMPLING_RATE), round(STOCK_SECONDS * SAMPLING_RATE) - len(clip))
        for clip in clips
    ]
    later = [np.pad(clip, (max(by, 0), 0)) for clip, by in zip(clips, shift, strict=True)]
    first, second = (
        transcribe(*model, some, language=language, progress=progress) for some in (clips, later)
    )
    pairs = list(zip(first, second, strict=True))
    doubts = [judge(*pair, 0.0, language) for pair in pairs]
    # What is doubtful already need not be computed a third time.
    left = [number for number, doubt in enumerate(doubts) if not doubt]
    chosen = ([of_all[number] for number in left] for of_all in (clips, first))
    likely = mean_log_probabilities(*model, *chosen, language, progress=progress)
    for number, score in zip(left, likely, strict=True):
        doubts[number] = judge(*pairs[number], score, language)
    return list(zip(first, doubts, strict=True))


@functools.cache  # a lesson streams its sources several times, and transcribes a clip once
def labeller(checkpoint: str, language: str) -> "Labeller":
    """Return the process's only `Labeller` for a checkpoint and a language."""
    return Labeller(checkpoint, language)


class Labeller:
    """Gives rows without a text one by a model; for `datasets`' `map` over batches of a stream.

    Args:
        checkpoint: a folder, a Hub id or an embedded name; loaded when the first row is needed.
        language: Whisper's code.
    """

    def __init__(self, checkpoint: str, language: str):
        self.checkpoint, self.language = checkpoint, language
        self.model: Model | None = None
        self.known: dict[str, tuple[str, str]] = {}  # by id: a mix repeats small sources, too

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the columns that change: `text`, and `fault` where a clip cannot be used."""
        # Sources that know of no fault have no such column.
        faults, clips = list(rows.get("fault") or [None] * len(rows["id"])), {}
        for place, (name, data) in enumerate(zip(rows["id"], rows["audio"], strict=True)):
            if faults[place] or name in self.known or not data:
                continue
            try:
                clips[name] = decode_audio(data, STOCK_SECONDS, name)
            except AudioError as error:
                faults[place] = error.reason
        if clips:
            told = pseudo_label(self._open(), list(clips.values()), self.language)
            self.known |= dict(zip(clips, told, strict=True))
        found = [self.known.get(name, ("", "")) for name in rows["id"]]
        return {
            "text": [text for text, _ in found],
            "fault": [fault or doubt for fault, (_, doubt) in zip(faults, found, strict=True)],
        }

    def _open(self) -> Model:
        if self.model is None:
            print(f"transcribing with {self.checkpoint} …", flush=True)
            model, processor = load_checkpoint(resolve(self.checkpoint))
            if not is_multilingual(processor.tokenizer) and self.language != "en":
                raise RecipeError(
                    f"{self.checkpoint} knows English alone, and the source with transcribe_with "
                    f'has language = "{self.language}": give a multilingual checkpoint.'
                )
            self.model = model.to(device()), processor
        return self.model
