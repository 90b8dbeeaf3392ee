"""Evaluate a checkpoint: every test clip transcribed before and after, resumable, and the report.

`python -m utils.evaluation RECIPE` uses the clips of lesson 5, streamed from the sources;
`--checkpoint` takes any Whisper in place of the run's model; `--compare` compares runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets

from utils.artifacts import Run, digest, save_report, write_json
from utils.config import Evaluation, Recipe, UserError
from utils.embedded.fetch import resolve
from utils.environment.lock import only_writer
from utils.environment.machine import peak_gib
from utils.evaluation.long_form import join_clips, measure_long_form
from utils.evaluation.page import write_page
from utils.evaluation.probes import make_probes
from utils.evaluation.readers import Reader, load_readers, read_clips, streamed_clips
from utils.evaluation.report import build_report, compare_runs, find_overlaps
from utils.scoring.predictions import load_predictions, save_predictions


def transcribe_probes(readers: Mapping[str, Reader], recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return the transcripts of "before" and "after" for sounds without words, by sound."""
    probes = make_probes()
    returned: dict[str, dict[str, str]] = {name: {} for name in probes}
    for side in ("before", "after"):
        reader = readers[side]
        languages = [recipe.languages[0]] * len(probes)
        texts, _ = reader.transcribe(list(probes.values()), languages, len(probes))
        for name, text in zip(probes, texts, strict=True):
            returned[name][side] = text
    return returned


def transcribe_long_form(
    clips: Iterable[dict], readers: Mapping[str, Reader], recipe: Recipe
) -> dict[str, Any] | None:
    """Measure both models on one long recording made of test clips of the first trained language.

    Returns:
        `seconds`, `clips`, `language` and, for "before" and "after", `measure_long_form`; None if
        the recipe has `long_seconds = 0` or no clip fits.
    """
    language, limit = recipe.languages[0], recipe.evaluation.long_seconds
    chosen, length = [], 0.0
    for clip in clips:
        if length > 2 * limit:  # enough to choose from: what does not fit is skipped
            break
        if clip["split"] == "test" and clip["language"] == language:
            chosen.append(clip)
            length += clip["seconds"]
    joined = join_clips(
        [clip["samples"] for clip in chosen],
        [clip["reference"] for clip in chosen],
        language,
        limit,
    )
    if not joined.texts:
        return None
    facts = {"seconds": joined.seconds, "clips": len(joined.texts), "language": language}
    return facts | {
        side: measure_long_form(readers[side].model, readers[side].processor, joined)
        for side in ("before", "after")
    }


def describe_evaluation(recipe: Recipe, checkpoint: str | Path) -> dict[str, str]:
    """Return what an evaluation depends on, to tell whether an interrupted one can be continued."""
    weights = sorted(Path(resolve(str(checkpoint))).glob("*.safetensors"))
    return {
        "recipe": digest(recipe.path),
        "checkpoint": str(checkpoint),
        "weights": digest(*weights) if weights else "from the Hub",
        "journal": "2",  # what its lines hold
    }


def complete_report(
    report: Mapping[str, Any],
    speed: Mapping[str, Mapping[str, float]],
    recipe: Recipe,
    run: Run,
    checkpoint: str | Path,
) -> dict[str, Any]:
    """Return `build_report` and what cannot be computed from the predictions alone.

    Args:
        report: of `build_report`.
        speed: of `read_clips`.
        recipe: the experiment.
        run: its prepared splits, if there are any, are searched for overlaps.
        checkpoint: what "after" is.
    """
    overlaps = None  # not looked for: nothing was prepared
    if run.prepared.exists():
        overlaps = find_overlaps(datasets.load_from_disk(str(run.prepared)))
    return {
        **report,
        "checkpoints": {"before": recipe.model.checkpoint, "after": str(checkpoint)},
        "test_read_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "overlaps": overlaps,
        "train_stored": recipe.preprocessing.stored,
        "speed": {
            name: one
            | {"times_real_time": one["speech_seconds"] / max(one["decode_seconds"], 1e-3)}
            for name, one in speed.items()
        },
    }


def evaluate(recipe: Recipe, run: Run, checkpoint: str | Path, folder: Path) -> dict[str, Any]:
    """Evaluate a checkpoint on a recipe's test streams and write its report into a folder.

    Args:
        recipe: names the sources and the checkpoint to compare with.
        run: of the recipe.
        checkpoint: the run's own model, or any other Whisper.
        folder: where `predictions.jsonl`, `evaluation.json` and `evaluation.html` go.

    Raises:
        InUse: another process writes to the folder.
    """
    with only_writer(folder):
        journal = folder / "predictions.partial.jsonl"
        made_from = describe_evaluation(recipe, checkpoint)
        readers = load_readers(recipe, checkpoint, stock_window=Path(checkpoint) != run.model)

        def clips() -> Iterator[dict]:
            return streamed_clips(recipe, readers["after"].processor)

        rows, speed = read_clips(clips(), readers, recipe, journal, made_from)
        report = complete_report(build_report(rows, recipe), speed, recipe, run, checkpoint)
        report["probes"] = transcribe_probes(readers, recipe)
        report["long_form"] = transcribe_long_form(clips(), readers, recipe)
        save_predictions(folder / "predictions.jsonl", rows)
        write_page(folder / "evaluation.html", report, rows, recipe)
        if folder == run.folder:
            save_report(run, "evaluation", report)
        else:
            write_json(folder / "evaluation.json", report | {"peak_gib": round(peak_gib(), 2)})
        journal.unlink(missing_ok=True)
        return report


def compare_folders(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return `compare_runs` of evaluated folders.

    Raises:
        FileNotFoundError: a folder has no predictions.
        UserError: no clip was transcribed in all of them.
    """
    runs = {}
    for folder in folders:
        path = folder / "predictions.jsonl"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: evaluate {folder} first.")
        runs[str(folder)] = load_predictions(path)
    table = compare_runs(runs, Evaluation().resamples)
    if not table:
        raise UserError(f"{', '.join(runs)} have no clip in common: evaluate the same test sets.")
    return table
