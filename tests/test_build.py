"""The builder: sources to notebooks and back, and every kind of drift noticed."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
FIRST = """\
# %% [markdown]
# # 1 · First
#
# One sentence.

# %% tags=["parameters"]
RUNS: str = "runs"  # where

# %%
import os

print(os.sep)


# %%
def double(x):
    return 2 * x


# %% [markdown]
# ## What is twice two?
#
# ```
# # %% looks like a cell, and is none
# ```

# %%
double(2)

# %%
double(2)
"""
SECOND = "# %% [markdown]\n# # 2 · Second\n\n# %%\nprint(2)\n"
ROW = {"language": "it", "source": "it carlo", "clips": 54, "p_holm_30s": 0.0005}
ROW |= {"wer_before": 0.225, "wer_before_low": 0.18, "wer_before_high": 0.271, "cer_before": 0.079}
ROW |= {"wer_after": 0.076, "wer_after_low": 0.05, "wer_after_high": 0.1}
ROW |= {"wer_after_30s": 0.082, "wer_after_30s_low": 0.06, "cer_after_30s": 0.023}
ROW |= {"wer_after_30s_high": 0.11}
ROW |= {"run_seconds": 600, "peak_gib": 4.0}
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"}


COLAB = "https://colab.research.google.com/github"


def load_builder():
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks/source/build.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


build = load_builder()


@pytest.fixture
def root(tmp_path):
    source = tmp_path / "notebooks/source"
    source.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/source/bootstrap.py", source)
    (source / "01_first.py").write_text(FIRST, encoding="utf-8")
    (source / "02_second.py").write_text(SECOND, encoding="utf-8")
    assert build.main(["--repository", "me/fork"], tmp_path) == 0
    return tmp_path


def generated(root):
    return {path.name: path.read_bytes() for path in [*root.rglob("*.ipynb"), *root.glob("*.md")]}


def read(root, name="01_first"):
    return nbformat.read(root / f"notebooks/{name}.ipynb", as_version=4)


def add_results(root):
    results = {"rows": [ROW], "command": "make run", "machine": {"cores": 2, "gpu": None}}
    path = root / "benchmarks/results/lessons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results | {"versions": VERSIONS}), encoding="utf-8")
    markers = "# Title\n<!-- results -->\n<!-- /results -->\nthe end\n"
    (root / "README.md").write_text(markers, encoding="utf-8")


def test_cell_ids_are_unique_and_an_edit_changes_one_of_them(root):
    before = [cell.id for cell in read(root).cells]
    assert len(set(before)) == len(before)  # although two cells of the lesson have the same text
    source = root / "notebooks/source/01_first.py"
    source.write_text(FIRST.replace("print(os.sep)", "print(os.name)"), encoding="utf-8")
    assert build.main([], root) == 0
    after = [cell.id for cell in read(root).cells]
    assert len(set(before) - set(after)) == 1
    assert not {cell.id for cell in read(root, "02_second").cells} & set(after)


def test_navigation_and_bootstrap_follow_the_first_cell(root):
    first, second = read(root), read(root, "02_second")
    assert first.cells[0].source.startswith("# 1 · First")
    bar = first.cells[1].source
    assert f"{COLAB}/me/fork/blob/main/notebooks/01_first.ipynb" in bar
    assert "Next: [2 · Second](02_second.ipynb)" in bar and "Previous" not in bar
    assert "Previous: [1 · First](01_first.ipynb)" in second.cells[1].source
    assert "Next" not in second.cells[1].source
    assert first.cells[2].metadata == {
        "tags": ["bootstrap"],
        "jupyter": {"source_hidden": True},
        "cellView": "form",
    }
    assert 'RECORDED = ("me/fork", "main")' in first.cells[2].source
    assert "__" not in first.cells[2].source.replace("__file__", "")


def test_notebook_to_source_round_trip_is_exact(root):
    for name, text in (("01_first", FIRST), ("02_second", SECOND)):
        source = root / f"notebooks/source/{name}.py"
        source.unlink()
        assert build.main(["--from-notebook", str(root / f"notebooks/{name}.ipynb")], root) == 0
        assert source.read_text(encoding="utf-8") == text


def test_an_edit_made_in_jupyter_comes_back_without_outputs_and_injected_cells(root):
    notebook = read(root)
    notebook.cells[-1].source = "double(3)"
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="6")]
    notebook.cells[-1].execution_count = 7
    notebook.cells.insert(4, nbformat.v4.new_code_cell("RUNS = 'x'"))
    notebook.cells[4].metadata["tags"] = ["injected-parameters"]
    path = root / "executed/01_first.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)
    assert build.main(["--from-notebook", str(path)], root) == 0
    text = (root / "notebooks/source/01_first.py").read_text(encoding="utf-8")
    assert text == FIRST.removesuffix("double(2)\n") + "double(3)\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: n.cells.append(nbformat.v4.new_raw_cell("x")), "raw cells"),
        (lambda n: n.cells[0].update(attachments={"a.png": {"image/png": ""}}), "pasted images"),
        (lambda n: n.cells.append(nbformat.v4.new_code_cell("!ls")), "not plain Python"),
        (lambda n: n.cells.append(nbformat.v4.new_code_cell("x = 1\n# %%\ny = 2")), "# %%"),
        (lambda n: n.cells.pop(0), "# N · Title"),
    ],
)
def test_what_has_no_source_form_is_refused_and_the_source_stays(root, capsys, change, reason):
    notebook = read(root)
    change(notebook)
    nbformat.write(notebook, root / "notebooks/01_first.ipynb")
    assert build.main(["--from-notebook", str(root / "notebooks/01_first.ipynb")], root) == 1
    assert reason in capsys.readouterr().err
    assert (root / "notebooks/source/01_first.py").read_text(encoding="utf-8") == FIRST


def test_a_notebook_that_is_no_lesson_is_refused(root, capsys):
    shutil.copy(root / "notebooks/01_first.ipynb", root / "01_first (1).ipynb")
    assert build.main(["--from-notebook", str(root / "01_first (1).ipynb")], root) == 1
    assert "03_word.ipynb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os\n" + FIRST, "import os"),
        (FIRST.replace("# One sentence.", "One sentence."), "One sentence."),
        (FIRST.replace("# %% [markdown]\n# # 1", "# %%\n# # 1"), "# N · Title"),
        (FIRST.replace('tags=["parameters"]', "tags=parameters"), "tags=parameters"),
    ],
)
def test_a_malformed_source_is_named_and_nothing_is_written(root, capsys, text, reason):
    before = generated(root)
    (root / "notebooks/source/01_first.py").write_text(text, encoding="utf-8")
    (root / "notebooks/source/02_second.py").write_text(SECOND + "print(3)\n", encoding="utf-8")
    assert build.main([], root) == 1
    error = capsys.readouterr().err
    assert "01_first.py" in error and reason in error
    assert generated(root) == before


def edit_cell(root):
    path = root / "notebooks/02_second.ipynb"
    path.write_text(path.read_text("utf-8").replace("print(2)", "print(3)"), encoding="utf-8")


def edit_source(root):
    (root / "notebooks/source/02_second.py").write_text(SECOND + "print(3)\n", encoding="utf-8")


def edit_metadata(root):
    notebook = read(root, "02_second")
    notebook.metadata["widgets"] = {}
    nbformat.write(notebook, root / "notebooks/02_second.ipynb")


def commit_output(root):
    notebook = read(root, "02_second")
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(notebook, root / "notebooks/02_second.ipynb")


def commit_count(root):
    notebook = read(root, "02_second")
    notebook.cells[-1].execution_count = 1
    nbformat.write(notebook, root / "notebooks/02_second.ipynb")


def leave_orphan(root):
    (root / "notebooks/source/02_second.py").rename(root / "02_second.py")


def delete_notebook(root):
    (root / "notebooks/02_second.ipynb").unlink()


def edit_badges(root):
    path = root / "colab_badges.md"
    path.write_text(path.read_text("utf-8").replace("Open", "Shut"), encoding="utf-8")


@pytest.mark.parametrize(
    ("drift", "sentence"),
    [
        (edit_cell, "notebooks/02_second.ipynb is out of date."),
        (edit_source, "notebooks/02_second.ipynb is out of date."),
        (edit_metadata, "notebooks/02_second.ipynb is out of date."),
        (commit_output, "notebooks/02_second.ipynb holds outputs."),
        (commit_count, "notebooks/02_second.ipynb holds outputs."),
        (leave_orphan, "notebooks/02_second.ipynb has no source in notebooks/source."),
        (delete_notebook, "notebooks/02_second.ipynb is missing."),
        (edit_badges, "colab_badges.md is out of date."),
        (add_results, "README.md is out of date."),
    ],
)
def test_check_names_each_kind_of_drift_and_the_command_to_run(root, capsys, drift, sentence):
    assert build.main(["--check"], root) == 0
    drift(root)
    before = generated(root)
    capsys.readouterr()
    assert build.main(["--check"], root) == 1
    error = capsys.readouterr().err
    assert sentence in error.splitlines()
    assert "python notebooks/source/build.py" in error
    assert generated(root) == before  # a check writes nothing


def test_what_the_last_run_printed_stands_under_the_check_and_does_not_come_back(root):
    source = root / "notebooks/source/01_first.py"
    source.write_text(FIRST + "\n# %% [markdown]\n# ## Check\n\n# %%\nprint(4)\n", encoding="utf-8")
    before = source.read_text(encoding="utf-8")
    results = {"rows": [], "date": "2026-01-02", "machine": {"cpu": "Some CPU", "cores": 2}}
    results["lessons"] = [{"lesson": "01_first", "seconds": 3.2, "check": "all is well"}]
    path = root / "benchmarks/results/lessons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(results), encoding="utf-8")
    (root / "README.md").unlink(missing_ok=True)
    assert build.main([], root) == 0
    notebook = root / "notebooks/01_first.ipynb"
    *_, code, expected = nbformat.read(notebook, as_version=4).cells
    assert code.source == "print(4)"
    for told in ("all is well", "2026-01-02", "2 cores of Some CPU", "3 seconds"):
        assert told in expected.source
    assert build.main(["--from-notebook", str(notebook)], root) == 0
    assert source.read_text(encoding="utf-8") == before


def test_results_go_between_the_markers_and_a_second_build_changes_nothing(root):
    add_results(root)
    assert build.main([], root) == 0
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Title\n<!-- results -->\n| Source | Clips |")
    assert text.endswith("<!-- /results -->\nthe end\n")
    row = "| it carlo | 54 | 22.5 % (18.0 % to 27.1 %) | 8.2 % (6.0 % to 11.0 %) "
    assert row + "| 7.6 % (5.0 % to 10.0 %) | 7.9 % | 2.3 % | < 0.001 |" in text
    assert (
        "Machine: cores 2; python 3.11.7, torch 2.13.0, transformers 5.23.0. Command: `make run`"
        in (text)
    )
    assert "The lessons took 10 minutes and 4.0 GiB of memory at most" in text
    assert build.main([], root) == 0
    assert (root / "README.md").read_text(encoding="utf-8") == text
    assert build.main(["--check"], root) == 0


def test_a_readme_without_markers_is_an_error_that_names_them(root, capsys):
    add_results(root)
    (root / "README.md").write_text("# Title\n", encoding="utf-8")
    assert build.main([], root) == 1
    assert "<!-- results -->" in capsys.readouterr().err


CLONE = "# Title\n<!-- clone -->\n<!-- /clone -->\nthe end\n"


def give_origin(root, address, head="main"):
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(["git", "-C", root, "remote", "add", "origin", address], check=True)
    ref = ["refs/remotes/origin/HEAD", f"refs/remotes/origin/{head}"]
    subprocess.run(["git", "-C", root, "symbolic-ref", *ref], check=True)


def homes(root):
    """Where badges, notebook, set-up cell and the line that clones lead."""
    cells = read(root).cells
    texts = [(root / "colab_badges.md").read_text("utf-8"), cells[1].source, cells[2].source]
    return texts, (root / "docs/ssh.md").read_text("utf-8")


@pytest.fixture
def unknown(tmp_path):
    """A copy that nobody has told where it is, with a page that shows how to clone it."""
    source = tmp_path / "notebooks/source"
    source.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/ssh.md").write_text(CLONE, encoding="utf-8")
    shutil.copy(ROOT / "notebooks/source/bootstrap.py", source)
    (source / "01_first.py").write_text(FIRST, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("origin", "arguments", "home"),
    [
        ("https://github.com/me/fork.git", [], ("me/fork", "trunk")),
        ("git@github.com:me/fork.git", [], ("me/fork", "trunk")),
        ("ssh://git@github.com:22/me/fork", [], ("me/fork", "trunk")),
        ("https://x-access-token:secret@github.com/me/fork/", [], ("me/fork", "trunk")),
        ("https://github.com/me/fork", ["--branch", "dev/1"], ("me/fork", "dev/1")),
        (
            "https://github.com/me/fork",
            ["--repository", "you/their.fork"],
            ("you/their.fork", "trunk"),
        ),
        ("", ["--repository", "https://github.com/you/theirs.git"], ("you/theirs", "main")),
        ("https://example.org/me/fork.git", [], None),
        ("/srv/github.com/me/fork.git", [], None),
        ("nonsense", [], None),
        ("", [], None),
    ],
)
def test_badges_and_set_up_find_where_the_series_is(unknown, capsys, origin, arguments, home):
    if origin:
        give_origin(unknown, origin, "trunk")
    assert build.main(arguments, unknown) == 0
    texts, page = homes(unknown)
    assert "secret" not in "".join([*texts, page])
    assert page.startswith("# Title") and page.endswith("the end\n")
    if home:
        repository, branch = home
        path = f"{COLAB}/{repository}/blob/{branch}/notebooks/01_first.ipynb"
        assert all(path in text for text in texts[:2])
        assert f'RECORDED = ("{repository}", "{branch}")' in texts[2]
        assert f"git clone https://github.com/{repository} whisper-fine-tuning" in page
    else:
        assert "make notebooks REPOSITORY=account/name" in capsys.readouterr().err
        assert all(f"]({COLAB}/)" in text for text in texts[:2])
        assert 'RECORDED = ("", "")' in texts[2]
        assert "git clone ADDRESS whisper-fine-tuning" in page


def test_a_check_compares_with_what_is_recorded_and_asks_no_remote(unknown, capsys):
    assert build.main(["--repository", "me/fork", "--branch", "dev"], unknown) == 0
    give_origin(unknown, "https://github.com/somebody/else")
    assert build.main(["--check"], unknown) == 0
    assert build.main([], unknown) == 0  # but who builds, builds for the copy at hand
    assert "for somebody/else, branch main" in (unknown / "colab_badges.md").read_text("utf-8")
    (unknown / "docs/ssh.md").write_text(CLONE, encoding="utf-8")
    assert build.main(["--check"], unknown) == 1
    assert "docs/ssh.md is out of date." in capsys.readouterr().err


def test_a_build_without_a_remote_keeps_what_is_recorded(unknown):
    assert build.main(["--repository", "me/fork", "--branch", "dev"], unknown) == 0
    before = homes(unknown)
    assert build.main([], unknown) == 0
    assert homes(unknown) == before


@pytest.mark.parametrize(
    "arguments", [["--repository", "fork"], ["--repository", "a/b/c"], ["--branch", "-x y"]]
)
def test_what_is_no_repository_or_branch_is_refused_and_nothing_is_written(
    unknown, capsys, arguments
):
    assert build.main(arguments, unknown) == 1
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "say REPOSITORY=account/name." in sentence or "say BRANCH=main." in sentence
    assert not (unknown / "colab_badges.md").exists()


def test_terms_are_linked_at_their_first_use_and_the_way_back_drops_the_links():
    from glossary import EVERYDAY  # found where build.py finds it

    terms = re.findall(r"^### (.+)$", (ROOT / "docs/glossary.md").read_text("utf-8"), re.MULTILINE)
    lines = [
        line
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.split("\n")
        if not line.startswith(("#", "|"))
    ]
    found = {}
    for term in terms:
        if term.lower() not in EVERYDAY:
            plain = rf"(?i)\b{re.escape(term)}s?\b"
            uses = (line for line in lines if re.search(plain, re.sub(r"`[^`]*`", "", line)))
            found[term] = next(uses, None)
    assert len([line for line in found.values() if line]) > 20
    assert [term for term, line in found.items() if line and "glossary.md#" not in line] == []
    text, page = "A `WER`, [a WER](x) and the WER.\n# WER", "../docs/glossary.md"
    one = build.link_terms(text, ["WER"], page)
    assert one == "A `WER`, [a WER](x) and the [WER](../docs/glossary.md#wer).\n# WER"
    assert build.unlinked(one) == text
