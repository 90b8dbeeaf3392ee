"""Relative links lead to files, and every badge to its own notebook."""

import re
from pathlib import Path

import nbformat
import pytest
from test_build import build

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FOLDERS = ("notebooks", "utils", "recipes", "tests", "benchmarks", "docs")
PAGES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])
COLAB = re.compile(r"https://colab\.research\.google\.com/github/([^)\s\"]*)")
HOME = build.recorded_home(ROOT)


def relative_links(text):
    """The targets of markdown links and images that are files, without their anchors."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    targets = re.findall(r"\]\(\s*([^)\s]+)[^)]*\)", prose)
    targets += re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, re.MULTILINE)
    targets += re.findall(r"(?:href|src)=\"([^\"]+)\"", prose)
    local = (t.split("#")[0] for t in targets if not re.match(r"[a-z]+:", t, re.IGNORECASE))
    return [target for target in local if target]


def markdown(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_to_files(path):
    missing = [link for link in relative_links(markdown(path)) if not (path.parent / link).exists()]
    assert missing == []


def colab_path(notebook):
    """What follows Colab's address of GitHub: nothing while the series has no known home."""
    return HOME.notebook(notebook.stem).partition("/github/")[2]


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda p: str(p.relative_to(ROOT)))
def test_colab_links_name_this_repository_and_a_notebook_of_it(path):
    assert set(COLAB.findall(markdown(path))) <= {*map(colab_path, NOTEBOOKS)}


def test_rule_on_links_sees_files_and_nothing_else():
    text = '[a](b.md#c) ![i](d.png "t") [w](https://x.y) [h](#here) `[n](no.md)`\n\n[r]: e.md\n'
    assert relative_links(text) == ["b.md", "d.png", "e.md"]
