"""Several sources as one training stream, drawn by share, whole or one of several parts of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import IterableDataset, interleave_datasets

from utils.config import STOPS, Mixing, Source
from utils.streaming.sources import stream


def mixing_shares(sources: Sequence[Source], temperature: float = 0.0) -> list[float]:
    """Return the share of each source in the training stream; they add up to 1.

    By weight; with a temperature t, by weight × hours^(1/t) (Arivazhagan et al. 2019): t = 1 leaves
    the data's proportions, t → ∞ gives every source the same.
    """
    weights = np.array([source.weight for source in sources])
    if temperature:
        weights = weights * np.array([source.hours for source in sources]) ** (1 / temperature)
    return (weights / weights.sum()).tolist()


def mix(
    streams: Sequence[IterableDataset], shares: Sequence[float], seed: int = 0, stop: str = ""
) -> IterableDataset:
    """Return several streams as one, drawn at random by share, reproducible by seed.

    Args:
        streams: of one schema.
        shares: how often each is drawn, in any unit.
        seed: of the order.
        stop: when the stream ends, see `config.Mixing`. By default, with equal shares every row
            comes once; with unequal ones the stream continues until every source has been read to
            its end, and rows of larger shares are repeated.
    """
    if len(streams) == 1:
        return streams[0]
    _, all_repeated, all_once = STOPS
    return interleave_datasets(
        list(streams),
        probabilities=(np.asarray(shares) / np.sum(shares)).tolist(),
        seed=seed,
        stopping_strategy=stop or (all_once if np.ptp(shares) < 1e-9 else all_repeated),
    )


def open_training(sources: Sequence[Source]) -> list[tuple[Source, IterableDataset]]:
    """Return the recipe's sources that are trained on, each with the stream of its split."""
    return [(source, stream(source, source.train)) for source in sources if source.train]


def mix_training(
    opened: Sequence[tuple[Source, IterableDataset]],
    seed: int = 0,
    mixing: Mixing | None = None,
    part: int = 0,
    parts: int = 1,
) -> IterableDataset:
    """Return the streams of `open_training` as one mixed stream, or one of several parts of it."""
    mixing = mixing or Mixing()
    return mix(
        [_part_of(rows, source, part, parts) for source, rows in opened],
        mixing_shares([source for source, _ in opened], mixing.temperature),
        seed,
        mixing.stop,
    )


def _part_of(rows: IterableDataset, source: Source, part: int, parts: int) -> IterableDataset:
    """Return every n-th file of a source; of one with too few of them every n-th row.

    With `max_clips` the rows, too: the first ones of other files would be other clips.
    """
    if parts == 1:
        return rows
    if rows.num_shards >= parts and not source.max_clips:
        return rows.shard(parts, part, contiguous=False)
    return rows.filter(_is_mine, with_indices=True, fn_kwargs={"part": part, "parts": parts})


def _is_mine(_: Mapping[str, Any], number: int, part: int, parts: int) -> bool:
    return number % parts == part


def training_stream(
    sources: Sequence[Source], seed: int = 0, mixing: Mixing | None = None
) -> IterableDataset:
    """Return the training splits of a recipe's sources as one mixed stream."""
    return mix_training(open_training(sources), seed, mixing)
