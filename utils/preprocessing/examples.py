"""One clip as it is trained on: a streamed row becomes int16 samples and label ids."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from transformers import WhisperTokenizer

from utils.config import Preprocessing
from utils.preprocessing.quality import Unusable, check_seconds, check_sound, check_text
from utils.preprocessing.transcript import divide, read_transcript
from utils.preprocessing.windows import CUT
from utils.streaming.sound import AudioError, decode_audio
from utils.text import word_gap
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.labels import END, NO_SPEECH, prefix_ids

# int16 is the format of WAV files: half the size of float32 and, after division, the same samples.
INT16_SCALE = 32767.0

PREPARED = Features(
    {
        "audio": List(Value("int16")),
        "labels": List(Value("int32")),
        # For each clip joined to this window: one, if each clip is alone.
        "cut_samples": List(Value("int32")),
        "cut_tokens": List(Value("int32")),
        "previous": List(Value("int32")),  # text ids of the source's window before
        "text": Value("string"),
        "language": Value("string"),
        "seconds": Value("float32"),
        "source": Value("string"),
        "id": Value("string"),
        "speaker": Value("string"),
        "recording": Value("string"),
        "start": Value("float64"),  # seconds in the recording; None if unknown
    }
)


def prepare_example(
    row: Mapping[str, Any], tokenizer: WhisperTokenizer, rules: Preprocessing
) -> dict[str, Any]:
    """Turn a streamed row into a prepared one: int16 samples at 16 kHz and label ids.

    Raises:
        Unusable: the clip breaks one of the rules; the message names which.
    """
    if row.get("fault"):
        raise Unusable(row["fault"])
    language, gap = row["language"], word_gap(row["language"])
    is_speech = row["text"].strip() != NO_SPEECH
    phrases = read_transcript(row["text"], language, rules) if is_speech else []
    text = gap.join(phrase.text for phrase in phrases)
    if is_speech:
        check_text(text, language, rules)
    if not row["audio"]:
        raise Unusable("missing audio")
    if row["seconds"] is not None:  # known from a table: no need to decode
        check_seconds(row["seconds"], rules)
    try:
        samples = decode_audio(row["audio"], rules.max_seconds, row["id"])
    except AudioError as error:
        raise Unusable(error.reason, str(error)) from None
    seconds = len(samples) / SAMPLING_RATE
    check_seconds(seconds, rules)
    counts, tokens = [len(samples)], [[]]
    if is_speech:
        counts, tokens = divide(phrases, len(samples), tokenizer, language)
    prefix, end = prefix_ids(tokenizer, language), tokenizer.convert_tokens_to_ids(END)
    labels = [*prefix, *(token for said in tokens for token in said), end]
    if len(labels) > rules.max_label_tokens:
        raise Unusable(f"more than {rules.max_label_tokens} label tokens")
    if is_speech:
        check_sound(samples, text, rules)
    return {
        "audio": np.round(samples.clip(-1, 1) * INT16_SCALE).astype(np.int16),
        "labels": labels,
        "cut_samples": counts,
        "cut_tokens": [len(said) for said in tokens],
        "previous": [],
        "text": CUT.join(phrase.text for phrase in phrases),
        "language": language,
        "seconds": seconds,
        "source": row["source"],
        "id": row["id"],
        "speaker": row["speaker"],
        "recording": row["recording"],
        "start": row.get("start"),
    }


def waveform(row: Mapping[str, Any]) -> np.ndarray:
    """Return a prepared row's samples as float32 in [-1, 1], shape `(samples,)`, 16 kHz."""
    return np.asarray(row["audio"], dtype=np.float32) / INT16_SCALE


def digest_of_clips(rows: Dataset) -> str:
    """Return a digest of the prepared clips and their texts."""
    clips = zip(rows["id"][:], rows["text"][:], rows["seconds"][:], strict=True)
    return hashlib.sha256("\n".join(map(repr, clips)).encode()).hexdigest()


def attempt(
    row: Mapping[str, Any], tokenizer: WhisperTokenizer, rules: Preprocessing
) -> dict[str, Any] | Unusable:
    """Return a streamed row prepared, or the reason why it cannot be used."""
    try:
        return prepare_example(row, tokenizer, rules)
    except Unusable as reason:
        return reason
