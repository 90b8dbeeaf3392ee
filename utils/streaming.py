"""Sources of speech as streams of one schema: read lazily, mixed, and decoded with a guard.

A row is `audio` (the bytes of an encoded file), `text`, `language`, `seconds` (or None),
`source` (the label of its `Source`) and `id`. Nothing is downloaded whole, nothing is decoded
before it is needed, and one corrupt clip costs that clip.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence

import librosa
import numpy as np
import soundfile
from datasets import (
    Features,
    IterableDataset,
    Value,
    concatenate_datasets,
    interleave_datasets,
)

from utils import embedded
from utils.config import RecipeError, Source
from utils.hub_streaming import open_split, read_rows

SAMPLING_RATE = 16_000  # Hz; Whisper was trained on nothing else
EMBEDDED_SPLITS = ("train", "dev", "test")  # what embedded.split_of deals out

SCHEMA = Features(
    {
        "audio": Value("binary"),
        "text": Value("string"),
        "language": Value("string"),
        "seconds": Value("float32"),
        "source": Value("string"),
        "id": Value("string"),
    }
)


class AudioError(ValueError):
    """Bytes that are not audio, or audio that cannot be used; the message says why."""


def decode_audio(data: bytes) -> np.ndarray:
    """Decode an audio file to what Whisper hears.

    Args:
        data: a WAV, FLAC, MP3 or Ogg file (what libsndfile 1.2 reads; no FFmpeg is needed).

    Returns:
        float32 samples in [-1, 1], mono, at 16 kHz, shape `(samples,)`.

    Raises:
        AudioError: the bytes are no audio, hold no samples, or hold samples that are not finite.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(f"undecodable: {error}") from None
    if len(samples) == 0:
        raise AudioError("undecodable: the file has a header and no samples")
    # A float WAV may hold NaN; one such clip turns every weight into NaN.
    if not np.isfinite(samples).all():
        raise AudioError("undecodable: samples that are not finite")
    mono = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=SAMPLING_RATE, res_type="soxr_hq")
    return mono.astype(np.float32, copy=False)


def _embedded_rows(language: str, speaker: str, split: str, label: str) -> Iterator[dict]:
    # The packages list their prompts by topic: in the order of a hash, the first rows of a stream
    # are a sample of all of them.
    clips = embedded.speech(language, speaker).clips
    for clip in sorted(clips, key=lambda clip: hashlib.sha256(clip.id.encode()).digest()):
        if clip.split == split:
            data = clip.path.read_bytes()
            yield {
                "audio": data,
                "text": clip.text,
                "language": language,
                "seconds": soundfile.info(io.BytesIO(data)).duration,
                "source": label,
                "id": clip.id,
            }


def _embedded_stream(source: Source, split: str) -> IterableDataset:
    if split not in EMBEDDED_SPLITS:
        raise RecipeError(
            f'The embedded speech has no split "{split}"; it has {", ".join(EMBEDDED_SPLITS)}.'
        )
    return IterableDataset.from_generator(
        _embedded_rows,
        features=SCHEMA,
        gen_kwargs={
            "language": source.language,
            "speaker": source.name,
            "split": split,
            "label": source.label,
        },
    )


def _hub_stream(source: Source, split: str) -> IterableDataset:
    """Stream a Hub dataset, or a local folder in the Hub's layout, into the schema."""
    rows = open_split(source, split)
    return IterableDataset.from_generator(
        read_rows, features=SCHEMA, gen_kwargs={"rows": rows, "source": source, "split": split}
    )


def stream(source: Source, split: str) -> IterableDataset:
    """Return a source's rows in the schema of this module, read as they are asked for.

    Args:
        source: where the speech is.
        split: a split name, or several joined: `train+validation`.

    Raises:
        RecipeError: the split or the text column does not exist; the message lists what does.
    """
    open_one = _embedded_stream if source.dataset == "embedded" else _hub_stream
    parts = [open_one(source, name) for name in split.split("+")]
    rows = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    return rows.take(source.max_clips) if source.max_clips else rows


def mix(
    streams: Sequence[IterableDataset], weights: Sequence[float], seed: int = 0
) -> IterableDataset:
    """Return several streams as one, drawn at random by weight, the same for the same seed.

    With equal weights every row comes once, in mixed order. With unequal ones the stream goes on
    until every source has been read to its end, and what is drawn more often is repeated.
    """
    if len(streams) == 1:
        return streams[0]
    equal = len(set(weights)) == 1
    return interleave_datasets(
        list(streams),
        probabilities=(np.asarray(weights) / np.sum(weights)).tolist(),
        seed=seed,
        stopping_strategy="all_exhausted_without_replacement" if equal else "all_exhausted",
    )


def training_stream(sources: Sequence[Source], seed: int = 0) -> IterableDataset:
    """Return the training splits of a recipe's sources as one mixed stream."""
    trained = [source for source in sources if source.train]
    return mix(
        [stream(source, source.train) for source in trained],
        [source.weight for source in trained],
        seed,
    )
