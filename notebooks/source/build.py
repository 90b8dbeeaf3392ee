"""Builds notebooks, badges, the lines that clone the series and the README's results.

python notebooks/source/build.py           write notebooks/*.ipynb, colab_badges.md and those lines
python notebooks/source/build.py --check   write nothing; name what is out of date and exit with 1
python notebooks/source/build.py --from-notebook notebooks/03_x.ipynb   bring back Jupyter's edits
python notebooks/source/build.py --repository me/fork --branch main     say where the series is
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks/source")]

from glossary import link_terms, read_terms, unlinked
from home import Home, HomeError, build_clone, find_home, has_clone, recorded_home, recording

from utils.artifacts import write_atomically

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
METADATA = {
    "accelerator": "GPU",  # Colab opens the lesson on a GPU; elsewhere it means nothing
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
HEADER = re.compile(r'# %%( \[markdown\])?(?: tags=\[((?:"[\w-]+"(?:, )?)+)\])?')
# Cells that are not the writer's: ours, and those that papermill adds to an executed lesson.
GENERATED = {
    "navigation",
    "bootstrap",
    "expected",
    "injected-parameters",
    "papermill-error-cell-tag",
}
CURE = (
    "Run `python notebooks/source/build.py`; where a notebook, not its source, has the newer text, "
    "run it with `--from-notebook NOTEBOOK` first."
)
RESULTS = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)


class BuildError(ValueError):
    """What cannot be built; the message names the file and the place."""


class Cell(NamedTuple):
    """One cell as its writer sees it."""

    kind: str  # "markdown" or "code"
    text: str
    tags: tuple[str, ...] = ()


def title_of(cells: list[Cell]) -> str:
    """Return `1 · Environment` from a lesson's first line."""
    return cells[0].text.split("\n")[0].removeprefix("# ")


def read_source(text: str, name: str) -> list[Cell]:
    """Return the cells of a py:percent source; `name` is for the errors."""
    cells = []
    for block in filter(str.strip, re.split(r"^(?=# %%)", text, flags=re.MULTILINE)):
        header, _, body = block.partition("\n")
        match = HEADER.fullmatch(header.rstrip())
        if not match:
            raise BuildError(f"{name}: expected `# %%` or `# %% [markdown]` before {header!r}.")
        lines = body.strip("\n").split("\n")
        if match[1]:
            for line in lines:
                if line != "#" and not line.startswith("# "):
                    raise BuildError(f"{name}: a markdown line starts with `# `, unlike {line!r}.")
            lines = [line[2:].rstrip() for line in lines]
        tags = tuple(re.findall(r"[\w-]+", match[2] or ""))
        cells.append(Cell("markdown" if match[1] else "code", "\n".join(lines), tags))
    if not cells or cells[0].kind != "markdown" or not cells[0].text.startswith("# "):
        raise BuildError(f"{name}: the first cell is markdown and starts with `# N · Title`.")
    return cells


def write_source(cells: list[Cell]) -> str:
    """Return the py:percent source of cells, spaced as `ruff format` spaces it."""

    def defines(cell: Cell, place: int) -> bool:
        body = ast.parse(cell.text).body if cell.kind == "code" else []
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return bool(body) and isinstance(body[place], definitions)

    source = ""
    for before, cell in zip([None, *cells], cells, strict=False):
        if before:
            source += "\n\n" if defines(before, -1) or defines(cell, 0) else "\n"
        markdown = cell.kind == "markdown"
        tags = f" tags={json.dumps(cell.tags)}" if cell.tags else ""
        lines = [f"# {line}".rstrip() if markdown else line for line in cell.text.split("\n")]
        source += "\n".join([f"# %%{' [markdown]' * markdown}{tags}", *lines, ""])
    return source


def read_notebook(path: Path) -> list[Cell]:
    """Return the writer's cells of a notebook, without what was generated or executed."""
    cells = []
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells, 1):
        tags = tuple(cell.metadata.get("tags", ()))
        text = cell.source.strip("\n")
        if GENERATED.intersection(tags) or not text:
            continue
        if cell.cell_type == "raw" or cell.get("attachments"):
            raise BuildError(f"{path}, cell {number}: raw cells and pasted images have no source.")
        if cell.cell_type == "markdown":
            text = unlinked("\n".join(line.rstrip() for line in text.split("\n")))
        cells.append(Cell(cell.cell_type, text, tags))
    try:
        survives = read_source(write_source(cells), str(path)) == cells
    except SyntaxError as error:
        raise BuildError(f"{path}: a code cell is not plain Python: {error.text!r}.") from None
    if not survives:
        raise BuildError(f"{path}: no line of a code cell may start with `# %%`.")
    return cells


def build_expected(stem: str, results: dict[str, Any]) -> Cell | None:
    """Return what a reader should see after a lesson's Check, as the last full run printed it."""
    for lesson in results.get("lessons", ()):
        if lesson["lesson"] == stem:
            text = (
                f"**You should see** something like this, measured on {results['date']} with the "
                f"default recipe on {machine_of(results)}, where the lesson took "
                f"{lesson['seconds']:.0f} seconds:\n\n```\n{lesson['check']}\n```"
            )
            return Cell("markdown", text, ("expected",))
    return None


def machine_of(results: dict[str, Any]) -> str:
    """Return the machine of a benchmark in a few words."""
    machine = results["machine"]
    return machine.get("gpu") or f"{machine['cores']} cores of {machine['cpu']}"


def build_notebook(
    stem: str, lessons: dict[str, list[Cell]], bootstrap: str, results: dict[str, Any], home: Home
) -> str:
    """Return the text of one lesson's notebook.

    Args:
        stem: of the lesson.
        lessons: all of them, in order, for the links.
        bootstrap: the text of the set-up cell.
        results: of `benchmarks.lessons`; empty before it was first run.
        home: where badge and links lead.
    """
    bar, stems = [f"{BADGE}({home.notebook(stem)})"], list(lessons)
    at = stems.index(stem)
    for word, others in (("Previous", stems[at - 1 : at]), ("Next", stems[at + 1 : at + 2])):
        for other in others:  # none at either end
            link = f"[{title_of(lessons[other])}]({other}.ipynb)"
            # Colab does not follow relative links: it gets one of its own.
            colab = f" ([in Colab]({home.notebook(other)}))" if home.repository else ""
            bar.append(f"{word}: {link}{colab}")
    first, *rest = lessons[stem]
    navigation = Cell("markdown", " | ".join(bar), ("navigation",))
    cells = [first, navigation, Cell("code", bootstrap, ("bootstrap",)), *rest]
    heads = [cell.text.startswith("## Check") for cell in cells]
    if (expected := build_expected(stem, results)) and any(heads):
        cells.insert(heads.index(True) + 2, expected)
    notebook = new_notebook(metadata=METADATA)
    ids: dict[str, int] = {}
    for cell in cells:
        # An id follows from lesson and text, so that an edit changes one cell's id and no other's.
        key = hashlib.sha256(f"{stem}\n{cell.kind}\n{cell.text}".encode()).hexdigest()[:12]
        ids[key] = ids.get(key, 0) + 1
        new_cell = new_markdown_cell if cell.kind == "markdown" else new_code_cell
        metadata: dict[str, Any] = {"tags": list(cell.tags)} if cell.tags else {}
        if "bootstrap" in cell.tags:  # collapsed: in JupyterLab by the first, in Colab by the other
            metadata |= {"jupyter": {"source_hidden": True}, "cellView": "form"}
        unique = key if ids[key] == 1 else f"{key}-{ids[key]}"
        notebook.cells.append(new_cell(cell.text, id=unique, metadata=metadata))
    return nbformat.writes(notebook) + "\n"


def build_results(readme: str, results: dict[str, Any]) -> str:
    """Return the README with the measured table between its markers."""
    shown = {"wer_before": "WER before", "wer_after_30s": "WER after, at 30 s"}
    shown |= {"wer_after": "WER after, short window", "cer_before": "CER before"}
    shown |= {"cer_after_30s": "CER after, at 30 s"}
    table = f"| Source | Clips | {' | '.join(shown.values())} | p |\n"
    table += f"| --- |{' ---: |' * (len(shown) + 2)}\n"
    for row in results["rows"]:
        cells = [f"{row[key]:.1%}" for key in shown]
        for place, key in enumerate(shown):
            if f"{key}_low" in row:
                cells[place] += f" ({row[f'{key}_low']:.1%} to {row[f'{key}_high']:.1%})"
        line = " | ".join(cells).replace("%", " %")
        p = row["p_holm_30s"]  # of the first rate after training, corrected for the number of rows
        p = f"{p:.2g}" if p >= 0.001 else "< 0.001"
        table += f"| {row['source']} | {row['clips']} | {line} | {p} |\n"
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items() if value)
    told = ("python", "torch", "transformers")
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in told)
    table += f"\nIn brackets: 95 % intervals. The lessons took {row['run_seconds'] / 60:.0f} minutes and "
    table += f"{row['peak_gib']:.1f} GiB of memory at most. Machine: {machine}; "
    table += f"{versions}. Command: `{results['command']}`.\n"
    if not RESULTS.search(readme):
        raise BuildError("README.md lacks `<!-- results -->` and `<!-- /results -->`, each a line.")
    return RESULTS.sub(lambda _: table, readme)


def build_badges(lessons: dict[str, list[Cell]], home: Home) -> str:
    """Return colab_badges.md, whose first line is the record of `home`."""
    text = f"{recording(home)}\n# The lessons in Google Colab\n\n"
    if not home.repository:
        text += (
            "The badges do not know yet where this copy is on GitHub. A badge opens Colab's page for "
            "notebooks on GitHub: paste this repository's address there and choose the lesson. Or\n"
            "write the badges anew with `make notebooks REPOSITORY=account/name`, and they open it.\n\n"
        )
    text += "| Lesson | |\n| --- | --- |\n"
    for stem, cells in lessons.items():
        link = f"[{title_of(cells)}](notebooks/{stem}.ipynb)"
        text += f"| {link} | {BADGE}({home.notebook(stem)}) |\n"
    return text


def link_glossary(lessons: dict[str, list[Cell]], page: Path, home: Home) -> None:
    """Link each term of the glossary where the lessons first use it, in place."""
    waiting = read_terms(page.read_text(encoding="utf-8")) if page.exists() else []
    # Colab does not follow relative links.
    where = f"https://github.com/{home.repository}/blob/{home.branch}" if home.repository else ".."
    for cells in lessons.values():
        cells[:] = [
            cell._replace(text=link_terms(cell.text, waiting, f"{where}/docs/glossary.md"))
            if cell.kind == "markdown"
            else cell
            for cell in cells
        ]


def build_all(root: Path, home: Home | None = None) -> dict[Path, str]:
    """Return every generated file's text by its path; without a `home` it is the recorded one."""
    source, notebooks = root / "notebooks/source", root / "notebooks"
    home = recorded_home(root) if home is None else home
    bootstrap = (source / "bootstrap.py").read_text(encoding="utf-8").strip("\n")
    bootstrap = bootstrap.replace("__REPOSITORY__", home.repository)
    bootstrap = bootstrap.replace("__BRANCH__", home.branch)
    lessons = {
        path.stem: read_source(path.read_text(encoding="utf-8"), path.name)
        for path in sorted(source.glob("[0-9]*.py"))
    }
    link_glossary(lessons, root / "docs/glossary.md", home)
    measured = root / "benchmarks/results/lessons.json"
    results = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else {}
    files = {
        notebooks / f"{stem}.ipynb": build_notebook(stem, lessons, bootstrap, results, home)
        for stem in lessons
    }
    files[root / "colab_badges.md"] = build_badges(lessons, home)
    readme = root / "README.md"
    for page in filter(Path.exists, (readme, *sorted((root / "docs").glob("*.md")))):
        text = page.read_text(encoding="utf-8")
        if has_clone(text):
            files[page] = build_clone(text, home)
        if page == readme and results:
            files[page] = build_results(files.get(page, text), results)
    return files


def find_drift(root: Path) -> list[str]:
    """Return one sentence for each generated file that is not what a build would write."""
    files, problems = build_all(root), []
    for path, text in files.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if re.search(r'"outputs": \[\n|"execution_count": \d', found):
            problems.append(f"{path.relative_to(root)} holds outputs.")
        elif found != text:
            problems.append(f"{path.relative_to(root)} is {'out of date' if found else 'missing'}.")
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        if path not in files:
            problems.append(f"{path.relative_to(root)} has no source in notebooks/source.")
    return problems


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Build, check or bring back edits, as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true")
    action.add_argument("--from-notebook", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--repository", default="", help="account/name")
    parser.add_argument("--branch", default="", help="(main)")
    options = parser.parse_args(arguments)
    try:
        if options.from_notebook:
            stem = options.from_notebook.stem
            if not re.fullmatch(r"\d\d_[a-z_]+", stem):
                raise BuildError(f"{stem}.ipynb is no lesson: its name must be like 03_word.ipynb.")
            source = root / f"notebooks/source/{stem}.py"
            write_atomically(source, write_source(read_notebook(options.from_notebook)))
            print(f"Wrote {source}; now run `python notebooks/source/build.py`.")
        elif options.check:
            if problems := find_drift(root):
                raise BuildError("\n".join([*problems, CURE]))
        else:
            home = find_home(root, options.repository, options.branch)
            for path, text in build_all(root, home).items():
                write_atomically(path, text)
                print(f"Wrote {path.relative_to(root)}")
    except (BuildError, HomeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
