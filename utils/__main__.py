"""`python -m utils RECIPE`: the seven lessons in order through papermill, then the results.

A lesson is reused if it is complete and was made by the same recipe and the same code; from the
first one that is not, all are run.
"""

import argparse
import hashlib
import json
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from utils.artifacts import (
    STAGES,
    MissingArtifact,
    Run,
    digest,
    notebook_of,
    open_run,
    recipe_of,
    require,
    write_atomically,
)
from utils.config import Recipe, UserError, load_recipe
from utils.environment.command import command
from utils.environment.lock import only_writer
from utils.environment.whole import Damaged, fits, read_json
from utils.export.privacy import scrub_notebook
from utils.text import languages

# Widget bars, and bars redrawn a hundred times, are noise in a stored notebook.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
CELL_SECONDS = 7 * 24 * 3600  # training is one cell; one that hangs ends the run some day


class LessonFailed(UserError):
    """A lesson stopped; the message is the lesson's own, with the path of the notebook."""


def places_of_recordings(recipe: Recipe) -> list[Path]:
    """Return where the sources are, if they are on this machine."""
    kinds = ("recordings", "common_voice")  # these are named by `name`, other folders by `dataset`
    named = [one.name if one.dataset in kinds else one.dataset for one in recipe.sources]
    return [Path(name).expanduser() for name in named if name not in ("", "embedded")]


def state_of_recordings(recipe: Recipe) -> str:
    """Return name, size and time of each file of the sources on this machine."""
    places = places_of_recordings(recipe)
    files = [path for place in places for path in (place, *sorted(place.rglob("*")))]
    stats = [(str(path), path.stat()) for path in files if path.is_file()]
    return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def fingerprint(run: Run, stage: str, recordings: str = "") -> str:
    """Return a digest of a lesson's inputs: recipe, recordings, `utils`, its own code.

    Its prose does not count: a better sentence is no reason to train again.
    """
    path = Path(notebook_of(stage))
    cells = read_json(path, "`git checkout notebooks` brings it back").get("cells", [])
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code_and_data = (path for path in Path("utils").rglob("*.*") if path.suffix != ".pyc")
    told = recipe_of(stage, run.folder / "recipe.toml")
    parts = [told, digest(*sorted(code_and_data)), recordings, *code]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_complete(run: Run, stage: str, done: dict, recordings: str) -> bool:
    """Return whether a stage's results exist, complete, and match the current inputs."""
    last = done.get(stage)
    if not isinstance(last, dict) or last.get("fingerprint") != fingerprint(run, stage, recordings):
        return False
    try:
        require(run, stage)
    except Damaged as fault:
        print(fault, file=sys.stderr)
        return False
    except MissingArtifact:
        return False
    return executed(run, stage).exists()


def executed(run: Run, stage: str) -> Path:
    """Return the path of the executed notebook of a stage."""
    return run.notebooks / Path(notebook_of(stage)).name


def execute(run: Run, stage: str, recipe: Recipe, runs: str) -> None:
    """Run one lesson and write its notebook and HTML, even if the lesson fails.

    Raises:
        LessonFailed: a cell raised, or the kernel died.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    run.report(stage).unlink(missing_ok=True)  # a stage being replaced is not complete
    output = executed(run, stage)
    output.parent.mkdir(parents=True, exist_ok=True)
    fault = ""
    # With TCP, other users of the machine could listen: use sockets in a folder of this user.
    with tempfile.TemporaryDirectory(prefix="whisper-kernel-") as sockets:
        kernel = {"transport": "ipc", "ip": f"{sockets}/kernel"}
        try:
            papermill.execute_notebook(
                notebook_of(stage),
                output,
                parameters={"RECIPE": str(recipe.path), "RUNS": runs},
                kernel_name="python3",
                cwd=".",
                log_output=True,
                progress_bar=sys.stderr.isatty(),
                execution_timeout=CELL_SECONDS,
                config=Config({"KernelManager": kernel}),
            )
        except papermill.PapermillExecutionError as error:
            fault = f"{error.ename}: {error.evalue}"
        except DeadKernelError:
            fault = "the kernel died, most likely for want of memory: make batches smaller"
        except CellTimeoutError:
            fault = f"a cell ran for more than {CELL_SECONDS // 86400} days"
    if output.exists():
        places = [Path(runs).expanduser(), recipe.path.parent]
        places += [place.parent for place in places_of_recordings(recipe)]
        write_atomically(output, scrub_notebook(output, places=places))
    write_html(output)
    if fault:
        raise LessonFailed(f"{notebook_of(stage)} stopped. {fault}\nSee {output}.")


def write_html(notebook: Path) -> None:
    """Write a notebook as one HTML file beside it, without the set-up's code."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    if notebook.exists():
        lesson = nbformat.read(notebook, as_version=4)
        hidden = {"enabled": True, "remove_input_tags": {"bootstrap"}}
        exporter = HTMLExporter(config=Config(TagRemovePreprocessor=hidden))
        page, _ = exporter.from_notebook_node(lesson, {"metadata": {"name": notebook.stem}})
        write_atomically(notebook.with_suffix(".html"), page)


def run_lessons(recipe: Recipe, run: Run, runs: str) -> dict[str, dict]:
    """Run lessons that are not complete; return seconds and fingerprint by stage."""
    ledger = run.folder / "lessons.json"
    done = read_json(ledger, "delete it; all lessons run again") if ledger.exists() else {}
    reuse, recordings = True, state_of_recordings(recipe)
    for number, stage in enumerate(STAGES, 1):
        title = f"[{number}/{len(STAGES)}] {notebook_of(stage)}"
        reuse = reuse and is_complete(run, stage, done, recordings)
        if reuse:
            print(f"{title}: complete, reused", flush=True)
            continue
        print(f"{title} …", flush=True)
        started = time.perf_counter()
        with fits(executed(run, stage)):
            execute(run, stage, recipe, runs)
        seconds = time.perf_counter() - started
        made_from = fingerprint(run, stage, recordings)
        done[stage] = {"seconds": round(seconds, 1), "fingerprint": made_from}
        write_atomically(ledger, json.dumps(done, indent=2) + "\n")
        print(f"{title}: {seconds:.0f} s", flush=True)
    return done


def print_results(recipe: Recipe, run: Run, runs: str, done: dict) -> None:
    """Print the final table of `make run`, and where everything is."""
    # Imported here: the first line of progress should not wait for SciPy.
    from utils.evaluation.report import results_text

    print(f"\n{results_text(require(run, 'evaluation')['languages'])}")
    peak = max(require(run, stage)["peak_gib"] for stage in STAGES)
    times = ", ".join(f"{stage} {done[stage]['seconds']:.0f}" for stage in STAGES)
    print(f"\nseconds:   {times}; all {sum(done[stage]['seconds'] for stage in STAGES):.0f}")
    print(f"memory:    {peak:.1f} GiB at most")
    print(f"notebooks: {run.notebooks}/*.ipynb and *.html")
    print(f"model:     {run.model}")
    print(f"to share:  {run.repository}")
    command = [sys.executable, "-m", "utils.demo", str(recipe.path), "--runs", runs]
    print(f"demo:      {shlex.join(command)}")


def is_progress(record: logging.LogRecord) -> bool:
    """Return whether a log record is progress that a waiting person wants to see."""
    record.msg = str(record.msg).strip()
    return record.msg.startswith(("step ", "fetching "))


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the lessons of a recipe, or list Whisper's languages."""
    parser = argparse.ArgumentParser(prog="python -m utils", description=__doc__)
    parser.add_argument(
        "recipe",
        nargs="?",
        default="recipes/embedded.toml",
        help='a TOML file (%(default)s); or "languages", for the codes that a recipe may have',
    )
    parser.add_argument("--runs", default="runs", help="the folder for results")
    options = parser.parse_args(arguments)
    if options.recipe == "languages":
        print(*(f"{code:4}{name.title()}" for code, name in languages().items()), sep="\n")
        return
    os.environ.update(QUIET)
    logging.basicConfig(format="      %(message)s", level=logging.ERROR)
    papermill_log = logging.getLogger("papermill")
    papermill_log.setLevel(logging.INFO)
    papermill_log.addFilter(is_progress)
    recipe = load_recipe(options.recipe)
    run = open_run(recipe, options.runs)
    with only_writer(run.folder):
        done = run_lessons(recipe, run, options.runs)
    print_results(recipe, run, options.runs, done)


if __name__ == "__main__":
    sys.exit(main())
