"""Every file that one lesson writes and another reads, and the rule for when it is complete.

A stage's JSON report is written last and atomically: if it exists, the stage is complete.
"""

import hashlib
import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config import Recipe, UserError
from utils.environment.command import shorten_temporary
from utils.environment.whole import Damaged, damage, files_below, fits, read_json, sealed

# In the order of the lessons: stage k is made by notebooks/0k_STAGE.ipynb.
STAGES = (
    *("environment", "streaming", "preprocessing", "training", "evaluation", "demo"),
    "export",
)
# What a lesson makes beside its report, which lists it: files and folders of the run. Of what is
# published the weights alone: card, recipe and page are for people to edit.
MADE = {
    "preprocessing": ("prepared",),
    "training": ("model",),
    "evaluation": ("predictions.jsonl",),
    "export": (
        *("export/repository/ctranslate2-float16", "export/repository/ctranslate2-int8"),
        *("export/repository/ggml-model.bin", "export/repository/model.safetensors"),
        "export/space/model",
    ),
}
BUILT_ON = ("preprocessing", "training", "evaluation")  # later stages are made from their results


class MissingArtifact(UserError, FileNotFoundError):
    """An earlier lesson has not been run, or not since its input changed; names its notebook."""


class RunMismatch(UserError, ValueError):
    """The run folder was made from a different recipe."""


@dataclass(frozen=True)
class Run:
    """The folder of one experiment: `runs/<recipe>/`."""

    folder: Path

    def report(self, stage: str) -> Path:
        """The JSON that says a stage is complete."""
        return self.folder / f"{stage}.json"

    @property
    def prepared(self) -> Path:
        """Arrow data set: the splits train, dev, test and (if the recipe has one) unseen."""
        return self.folder / "prepared"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints from which training can resume."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The fine-tuned model with every file that a runtime needs."""
        return self.folder / "model"

    @property
    def adapter(self) -> Path:
        """The matrices that LoRA or DoRA trained, a few MB; `model/` has them merged."""
        return self.folder / "adapter"

    @property
    def metrics(self) -> Path:
        """One JSON line for each log of the trainer."""
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The same logs for `tensorboard --logdir runs`, unless the recipe names other trackers."""
        return self.folder / "tensorboard"

    @property
    def predictions(self) -> Path:
        """One JSON line for each test clip: the reference and each model's hypothesis."""
        return self.folder / "predictions.jsonl"

    @property
    def repository(self) -> Path:
        """What a push to the Hub uploads: the model in every format, card, recipe, notebook."""
        return self.folder / "export/repository"

    @property
    def space(self) -> Path:
        """A page that runs on this machine and as a Space on the Hub."""
        return self.folder / "export/space"

    @property
    def figures(self) -> Path:
        """PNG files."""
        return self.folder / "figures"

    @property
    def corrections(self) -> Path:
        """Recordings from the page with their corrected text: a data set for each language."""
        return self.folder / "corrections"

    @property
    def notebooks(self) -> Path:
        """The executed lessons and their HTML."""
        return self.folder / "notebooks"


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is either complete or absent, even after a crash.

    Raises:
        DiskFull: it does not fit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = text.encode("utf-8")
    try:
        with fits(path, len(data)), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs, as `write_atomically` does."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def open_run(recipe: Recipe, runs: str | Path = "runs") -> Run:
    """Return the run folder of a recipe, made if need be, with a copy of the recipe in it.

    A comment may change at any time, and `[training]` as long as nothing was trained.

    Raises:
        RunMismatch: the folder holds results of a different recipe of the same name.
        Damaged: its copy of the recipe cannot be read.
    """
    shorten_temporary()
    run = Run(Path(runs).expanduser() / recipe.name)  # in a notebook no shell has expanded "~"
    text = recipe.path.read_text(encoding="utf-8")
    copy = run.folder / "recipe.toml"
    is_trained = run.model.exists() or any(run.checkpoints.glob("checkpoint-*"))
    stage = "training" if is_trained else "preprocessing"
    if copy.exists() and recipe_of(stage, copy) != recipe_of(stage, recipe.path):
        raise RunMismatch(
            f"{run.folder} holds results of another version of {recipe.path}. One experiment is "
            f"one file: give the changed recipe its own name, or delete {run.folder} to start over."
        )
    if not copy.exists() or copy.read_text(encoding="utf-8") != text:
        write_atomically(copy, text)
    run.figures.mkdir(parents=True, exist_ok=True)
    return run


def recipe_of(stage: str, path: Path) -> str:
    """Return what the results of a stage depend on in a recipe: its keys, as JSON.

    Before training, of `[training]` the seed alone: it orders the mix of the sources.

    Raises:
        Damaged: the file holds no recipe.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # as a recipe is loaded
        if STAGES.index(stage) < STAGES.index("training"):
            told["training"] = {"seed": told.get("training", {}).get("seed")}
        return json.dumps(told, sort_keys=True, default=str)
    except (ValueError, AttributeError, RecursionError):
        raise Damaged(
            f"{path} is damaged: delete it if the recipe is the one that the run was made from."
        ) from None


def notebook_of(stage: str) -> str:
    """Return the path of the lesson that makes a stage."""
    return f"notebooks/{STAGES.index(stage) + 1:02d}_{stage}.ipynb"


def require(run: Run, stage: str) -> dict[str, Any]:
    """Return the report of an earlier stage, whose files are all as they were written.

    Raises:
        MissingArtifact: it is not there, or an earlier lesson was run again since; the message
            names the notebook to run first.
        Damaged: a file is gone, cut off or another one.
    """
    path = run.report(stage)
    if not path.exists():
        raise MissingArtifact(f"{path} is missing: run {notebook_of(stage)} first.")
    way_out = f"delete {path} and run {notebook_of(stage)} again"
    report = read_json(path, way_out)
    files, built_on = report.get("files", {}), report.get("built_on", {})
    if not isinstance(files, dict) or not isinstance(built_on, dict):
        raise Damaged(f"{path} is damaged: {way_out}.")
    for earlier, made in _built_on(run, stage).items():
        if built_on.get(earlier, made) != made:
            raise MissingArtifact(
                f"{notebook_of(earlier)} was run again after {path} was made: run "
                f"{notebook_of(stage)} again, too."
            )
    if fault := damage(run.folder, files):
        raise Damaged(f"{fault}: {way_out}.")
    return report


def save_report(run: Run, stage: str, report: dict[str, Any]) -> Path:
    """Write a stage's report, as the last act of the stage, with what it was built on."""
    from utils.environment.machine import peak_gib  # torch: seconds that a first line need not wait

    files = [one for name in MADE.get(stage, ()) for one in files_below(run.folder / name)]
    report = {
        **report,
        "peak_gib": round(peak_gib(), 2),
        "files": sealed(files, run.folder),
        "built_on": _built_on(run, stage),
    }
    write_json(run.report(stage), report)
    return run.report(stage)


def _built_on(run: Run, stage: str) -> dict[str, str]:
    """Return the digests of the earlier reports whose results a stage uses."""
    before = STAGES[: STAGES.index(stage)]
    reports = {name: run.report(name) for name in BUILT_ON if name in before}
    return {name: digest(path) for name, path in reports.items() if path.exists()}


def digest(*paths: Path) -> str:
    """Return the SHA-256 over the contents of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()
