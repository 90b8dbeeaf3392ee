"""Which columns of a data set on the Hub have the audio and the text, and their contents."""

import errno
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import soundfile
from datasets import Audio, ClassLabel, Features, Value

from utils.config import RecipeError, Source
from utils.streaming.columns import (
    LANGUAGE_COLUMNS,
    PATH_COLUMNS,
    RECORDING_COLUMNS,
    SPEAKER_COLUMNS,
    NoColumns,
    as_name,
    as_text,
    find_column,
    plain,
    text_column,
)
from utils.streaming.files import leads_out
from utils.text import nearest_language

# What the builders of datasets call a file within a data set; a table may not name others.
BUILT = ("hf://", "zip://", "tar://", "gzip://")
# Languages whose speech is often filed under the other's code.
RELATIVES = ({"no", "nn"}, {"zh", "yue"}, {"hr", "sr"}, {"hr", "bs"}, {"bs", "sr"}, {"id", "ms"})
OUTSIDE = "sound file outside of the data set"


def _is_sound(feature: Any) -> bool:
    """Tell whether a feature is of sound; without a card that says so, it is a mapping."""
    return isinstance(feature, Audio) or (
        isinstance(feature, Mapping) and bool({"bytes", "array"} & feature.keys())
    )


def sound_column(features: Features, source: Source) -> str:
    """Return the column of the audio: the recipe's, `audio`, or the only audio column.

    Raises:
        RecipeError: there is none, or several; the message lists the columns.
    """
    if source.audio_column in features or (not source.audio_column and "audio" in features):
        return source.audio_column or "audio"
    typed = [name for name, feature in features.items() if _is_sound(feature)]
    found = typed[0] if len(typed) == 1 else find_column(features, PATH_COLUMNS)
    if source.audio_column or found is None:
        raise RecipeError(
            f'{source.dataset} has no column "{source.audio_column or "audio"}"; it has '
            f"{', '.join(features)}. Set audio_column in the recipe to the one with the sound."
        )
    return found


def nested(features: Mapping[str, Any], sound: str) -> list[str]:
    """Return the columns of structures, besides the sound's: WebDataset has one called json."""
    return [name for name in features if name != sound and isinstance(features[name], Mapping)]


def flattened(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a row, or its features, with what is in its structures beside them, by its own name.

    Args:
        values: by column.
        names: of `nested`.
    """
    found = dict(values)
    for name in names:
        found = {**(values[name] or {}), **found}
    return found


def said_column(features: Mapping[str, Any], source: Source) -> str:
    """Return the column of the texts.

    Args:
        features: of `flattened`.
        source: the recipe's.

    Raises:
        RecipeError: there is none, or its cells are structures; the message lists the columns.
    """
    try:
        name = text_column(features, source.text_column, source.dataset)
    except NoColumns as error:
        if not Path(source.dataset).is_dir():
            raise
        raise RecipeError(
            f"{error} A folder of your own, such as sounds each beside a .txt, is dataset = "
            f'"recordings" with name = "{source.dataset}".'
        ) from None
    if not isinstance(features[name], Value | ClassLabel):
        raise RecipeError(
            f'{source.dataset}: the column "{name}" holds no texts but {features[name]}: set '
            "text_column in the recipe to one with one text a row."
        )
    return name


def text_of(row: Mapping[str, Any], name: str, features: Mapping[str, Any], where: str) -> str:
    """Return the text of a row: numbers are converted, and a class is its name."""
    value = row[name]
    if isinstance(features[name], ClassLabel) and isinstance(value, int):
        return features[name].int2str(value) if value >= 0 else ""
    return as_text(value, where)


def language_column(features: Mapping[str, Any], source: Source) -> str | None:
    """Return the column that says which language a row is in, if it counts for this source."""
    column = None if source.speaks else find_column(features, LANGUAGE_COLUMNS)
    is_name = column is not None and isinstance(features[column], Value | ClassLabel)
    return column if is_name else None


def fault_of_language(
    row: Mapping[str, Any], column: str | None, features: Mapping[str, Any], source: Source
) -> str:
    """Return why a row cannot be used that names a different language of Whisper's, else "".

    Emilia, Vaani and NaijaVoices have several in one split, which would be trained as one.
    """
    if column is None:
        return ""
    code = nearest_language(text_of(row, column, features, source.dataset))
    if code in ("", source.language) or {code, source.language} in RELATIVES:
        return ""
    return f"another language by the column {column} (speaks in the recipe takes it)"


def speaker_and_recording(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the speaker of a row and the longer recording it is from; "" if no column has it."""
    there = {plain(name): value for name, value in row.items()}

    def named(columns: Sequence[str]) -> str:
        return next(filter(None, (as_name(there[name]) for name in columns if name in there)), "")

    speaker, recording = named(SPEAKER_COLUMNS), named(RECORDING_COLUMNS)
    # MLS' chapter_id is a book: it may have two speakers.
    return {"speaker": speaker, "recording": recording and f"{speaker}/{recording}"}


def _wav(samples: Any, rate: Any, where: str) -> bytes:
    """Return a table's samples as a WAV.

    Raises:
        RecipeError: their sampling rate is missing.
    """
    if not rate:
        raise RecipeError(
            f"{where}: the sound is a list of numbers, and nothing says how many of them are a "
            'second: give it as {"array", "sampling_rate"}, or a column sampling_rate.'
        )
    data = np.asarray(samples)
    if data.dtype.kind == "i":  # 16-bit samples
        data = data / 32768
    file = io.BytesIO()
    data = np.asarray(data, np.float32)
    data = data.T if data.ndim == 2 and data.shape[0] < data.shape[1] else data
    soundfile.write(file, data, int(rate), "FLOAT", format="WAV")
    return file.getvalue()


def _file(path: str, source: Source, root: str) -> tuple[bytes, str]:
    """Return a file that a row names, within its data set; or b"" and why there is none."""
    if not path.startswith(BUILT):
        inside = [Path(source.dataset).resolve(), Path(datasets.config.HF_CACHE_HOME).resolve()]
        if "://" in path:
            return b"", "sound at an address, which is not fetched: download it"
        if not Path(path).is_absolute():
            if leads_out(".", path):
                return b"", OUTSIDE
            path = f"{root}/{path}"
        elif not any(Path(path).resolve().is_relative_to(folder) for folder in inside):
            return b"", OUTSIDE
    try:
        with fsspec.open(path, "rb") as file:
            return file.read(), ""
    except FileNotFoundError:
        return b"", "sound file that is not in the data set"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # the sound itself, as text
            raise
        return b"", "text in place of sound"


def encoded(
    value: Any, row: Mapping[str, Any], source: Source, root: str, where: str
) -> tuple[bytes, str]:
    """Return the encoded audio of a row, in whatever form its data set stores it.

    Args:
        value: of the row's audio column: bytes, a path, either of them in a mapping, or samples.
        row: the whole row: it may have the sampling rate.
        source: of the recipe.
        root: the address of the data set's folder, to which paths are relative.
        where: for messages.

    Returns:
        The bytes; and, where a file that is named is not read, why.

    Raises:
        RecipeError: samples without a sampling rate.
    """
    if isinstance(value, Mapping):
        if value.get("array") is not None:
            return _wav(value["array"], value.get("sampling_rate"), where), ""
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        return _file(value, source, root)
    if isinstance(value, list):
        return _wav(value, row.get("sampling_rate") or row.get("sample_rate"), where), ""
    return value or b"", ""
