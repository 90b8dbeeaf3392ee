"""Prediction rows and a recipe for the tests of what is computed from them."""

from pathlib import Path

from benchmarks.intervals import random_pairs
from utils.config import AudioContext, Evaluation, Model, Recipe, Source


def prediction_rows(clips: int = 30, after_30s: bool = True) -> list[dict]:
    """Rows of one Italian and one unseen source: `after` has fewer errors than `before`."""
    references, before = random_pairs("Latin", clips)
    _, worse = random_pairs("Latin", clips)
    rows = []
    for number, (said, hypothesis) in enumerate(zip(references, before, strict=True)):
        after = said.capitalize() + "." if number % 3 else hypothesis
        rows.append(
            {
                "id": f"clip{number}",
                "source": "it carlo" if number % 5 else "it menardi",
                "language": "it",
                "seconds": 2.5,
                "snr_db": 20.0 + number,
                "split": "test" if number % 5 else "unseen",
                "reference": said,
                "before": hypothesis,
                "after": after,
                "after_30s": worse[number] if after_30s else None,
            }
        )
    return rows


def recipe(resamples: int = 200) -> Recipe:
    return Recipe(
        path=Path("recipes/example.toml"),
        model=Model("embedded/whisper-base"),
        sources=(Source("embedded", "it", "carlo"),),
        training={},
        audio_context=AudioContext(),
        evaluation=Evaluation(resamples=resamples),
    )


def uneven(rows):
    """The rows of the fixture with labels of different lengths."""

    def longer(row, number):
        text = [100 + n for n in range(2 * number + 1)]
        labels = [*row["labels"][:4], *text, row["labels"][-1]]
        return {"labels": labels, "cut_tokens": [len(text)]}

    return rows.with_format(None).map(longer, with_indices=True).with_format(**rows.format)
