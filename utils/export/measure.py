"""Speed and errors of other programs on the test clips, and of the documented call."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from utils.config import Recipe
from utils.evaluation.readers import split_of
from utils.export.programs import Transcribe
from utils.preprocessing.examples import waveform
from utils.scoring.error_rates import count_errors, error_rate
from utils.scoring.intervals import rate_with_interval
from utils.scoring.predictions import count_row_errors, drawn
from utils.text import leading_unit, normalize

MOST_CLIPS = 500  # of a split that `measure_documented` transcribes on the CPU


def baseline(name: str) -> str:
    """Return the program to compare with: Transformers in the same window."""
    window = name.rpartition(", ")[2]
    return f"Transformers float32, {'short' if window == 'short' else '30 s'}"


def run_programs(
    programs: Mapping[str, Transcribe], clips: Sequence[np.ndarray], languages: Sequence[str]
) -> dict[str, dict[str, list]]:
    """Transcribe every clip with every program, in turn, so that a busy machine slows all equally.

    Args:
        programs: by name.
        clips: float32 samples at 16 kHz, each at most 30 s.
        languages: Whisper's code of each clip.

    Returns:
        By name `texts` and `seconds`, both in the order of the clips.
    """
    returned: dict[str, dict[str, list]] = {name: {"texts": [], "seconds": []} for name in programs}
    for program in programs.values():
        program(clips[0], languages[0])  # the first call also pays for warming up
    for clip, language in zip(tqdm(clips, unit="clip"), languages, strict=True):
        for name, program in programs.items():
            started = time.perf_counter()
            returned[name]["texts"].append(program(clip, language))
            returned[name]["seconds"].append(time.perf_counter() - started)
    return returned


def rate_programs(
    returned: Mapping[str, Mapping[str, list]], references: Sequence[str], languages: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return speed and error rates of every program of `run_programs`.

    Returns:
        By name `wer` and `cer` (normalised, fractions), `first_rate` (which of them to read),
        `speed` (relative to the first program), `differing` (clips whose text is not identical to
        that of `baseline`), `apart` (the CER of its texts, with the baseline's as references) and
        `clips`.
    """

    def plain(texts: Sequence[str]) -> list[str]:
        return [normalize(text, code) for text, code in zip(texts, languages, strict=True)]

    said, first, rows = plain(references), next(iter(returned.values())), {}
    for name, one in returned.items():
        texts, theirs = plain(one["texts"]), returned[baseline(name)]["texts"]
        rows[name] = {
            "wer": error_rate(count_errors(said, texts, "word")),
            "cer": error_rate(count_errors(said, texts, "char")),
            "first_rate": f"{leading_unit(languages)[0]}er",
            "speed": sum(first["seconds"]) / sum(one["seconds"]),
            "differing": sum(a != b for a, b in zip(one["texts"], theirs, strict=True)),
            "apart": error_rate(count_errors(plain(theirs), texts, "char")),
            "clips": len(texts),
        }
    return rows


def measure_documented(
    program: Transcribe,
    prepared: Mapping[str, Dataset],
    recipe: Recipe,
    most: int = MOST_CLIPS,
    workers: int = 1,
) -> dict[str, dict[str, Any]]:
    """Measure the documented call of a program on the test clips, source by source.

    Args:
        program: of `with_faster_whisper` or its like.
        prepared: of lesson 3; its splits test and unseen are transcribed.
        recipe: says which languages are trained, and how often intervals resample.
        most: clips of a split; of a larger one this many are taken, evenly spread.
        workers: threads that call the program, if it was made for several: on two cores two of
            them took 10 s for what one, with both cores, took 18 (base, int8, 24 clips).

    Returns:
        For each source's label `split`, `clips`, `first_rate`, `wer`, `wer_low`, `wer_high` and the
        same for `cer`, as fractions.
    """
    rows: list[dict[str, Any]] = []
    for split in ("test", "unseen"):
        whole = prepared.get(split, [])
        places = np.linspace(0, len(whole) - 1, min(most, len(whole))).astype(int).tolist()
        one = partial(_transcribe_row, program, whole)
        with ThreadPoolExecutor(workers) as threads:
            found = tqdm(threads.map(one, places), desc=split, total=len(places), unit="clip")
            rows += [row | {"split": split_of(row["language"], split, recipe)} for row in found]
    resamples = recipe.evaluation.resamples
    return {
        source: _rates([row for row in rows if row["source"] == source], resamples)
        for source in dict.fromkeys(row["source"] for row in rows)
    }


def _transcribe_row(program: Transcribe, rows: Dataset, place: int) -> dict[str, Any]:
    clip = rows[place]
    kept = {key: clip.get(key, "") for key in ("source", "language", "speaker")}
    text = program(waveform(clip), clip["language"])
    return kept | {"reference": clip["text"], "written": text}


def _rates(rows: Sequence[Mapping[str, Any]], resamples: int) -> dict[str, Any]:
    unit = leading_unit(row["language"] for row in rows)
    result = {"split": rows[0]["split"], "clips": len(rows), "first_rate": f"{unit[0]}er"}
    for unit in ("word", "char"):
        counts = drawn(rows, count_row_errors(rows, "written", unit))
        result |= rate_with_interval(f"{unit[0]}er", counts, resamples)
    return result
