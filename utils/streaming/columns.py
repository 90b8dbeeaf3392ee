"""The names of columns in data sets, and what a column of texts may contain."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from utils.config import RecipeError

# The first match wins if a table has several: audiofolder, NeMo, Coqui, DeepSpeech, Common Voice,
# ULCA, and names that people choose.
PATH_COLUMNS = (
    *("file_name", "filename", "audio_filepath", "audio_path", "audio_file", "audio", "path"),
    *("wav_filename", "wav_path", "wav_file", "wav", "file", "file_path", "filepath", "sound"),
    *("mp3", "flac", "clip", "recording_path", "fname", "audio_filename", "audio_name"),
)
# An id names a file if it is the stem of one; source is FunASR's.
ID_COLUMNS = ("utt_id", "utterance_id", "id", "name", "source", "key")
FILE_COLUMNS = (*PATH_COLUMNS, *ID_COLUMNS)
TEXT_COLUMNS = (
    *("text", "sentence", "transcription", "transcript", "normalized_text", "raw_transcription"),
    *("raw_text", "original_text", "text_original", "text_normalized", "normalized_transcription"),
    *("normalized_transcript", "utterance", "verbatim", "orthographic", "txt", "caption", "words"),
    *("wrd", "target", "transcripts", "transcriptions", "orthography", "ground_truth", "reference"),
)
# client_id is Common Voice's, speaker_id is used by MLS and VoxPopuli.
SPEAKER_COLUMNS = ("speaker", "speaker_id", "speaker_name", "client_id", "spk", "spk_id")
RECORDING_COLUMNS = (
    *("recording", "recording_id", "chapter_id", "session_id", "session", "meeting_id"),
    *("video_id", "conversation_id", "call_id", "episode_id"),
)
# What data sets and pandas write where nobody knows who speaks.
UNKNOWN = {"", "none", "nan", "null", "n/a", "unknown", "unk", "undefined", "-1"}
# NIST's mark where nothing was transcribed; TED-LIUM has it on the Hub, too.
UNSCORED = "ignore_time_segment_in_scoring"
LANGUAGE_COLUMNS = ("language", "lang", "locale", "language_code", "lang_code")
SPLIT_COLUMNS = ("split", "subset", "partition", "set")


class NoColumns(RecipeError):
    """A table that does not list clips: it has no column of files, or none of texts."""


@lru_cache(maxsize=4096)  # asked of every row of a stream
def plain(name: str) -> str:
    """Return a column's name as it is in the lists of this module: `Audio Path` → `audio_path`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def find_column(columns: Iterable[str], known: Iterable[str]) -> str | None:
    """Return the column that comes first among the known names, in any spelling."""
    there = {plain(column): column for column in reversed(list(columns))}
    return next((there[name] for name in known if name in there), None)


def text_column(columns: Iterable[str], wanted: str, where: str) -> str:
    """Return the column of the texts: the recipe's, or else the first known name.

    Raises:
        RecipeError: there is none; the message lists the columns.
    """
    columns = list(columns)
    found = find_column(columns, TEXT_COLUMNS) if wanted == "text" else None
    if wanted in columns:
        found = wanted
    if found is None:
        raise NoColumns(
            f'{where}: no column "{wanted}"; it has {", ".join(columns)}. Set text_column in the '
            "recipe to the one with the texts."
        )
    return found


def as_name(value: Any) -> str:
    """Return a cell with the name of a speaker, a recording or a split; "" if it has none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas turns 7 into 7.0 if another cell is empty
    name = str(value).strip()
    return "" if name.lower() in UNKNOWN else name


def as_text(value: Any, where: str) -> str:
    """Return a cell of a column of texts as text: numbers are converted, None is "".

    Raises:
        RecipeError: it is a structure, and it is unclear which part is the transcript.
    """
    if value is None or value != value:  # NaN is pandas' cell without a value
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas turns 7 into 7.0 if another cell is empty
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise RecipeError(
        f"{where}: the text is a {type(value).__name__} ({str(value)[:60]}): text_column must name "
        "a column with one text a row."
    )
