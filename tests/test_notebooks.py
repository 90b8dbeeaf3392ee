"""The rules that every lesson keeps, and those of the code around the lessons."""

import ast
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
from test_build import build

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PARAMETERS = """\
RECIPE: str = "recipes/embedded.toml"  # which experiment to run
RUNS: str = "runs"  # where results are kept; in Colab a Drive folder survives the runtime"""
SECTIONS = [
    "By hand",
    "By helper",
    "When this is good, and when to expect trouble",
    "Save",
    "Check",
    "What you saw",
    "Try it",
    "Next",
]
# Imports run down this list only: DESIGN's house. One row, one floor.
FLOORS = [
    ["recorder", "__main__"],
    ["demo", "export"],
    ["evaluation", "training"],
    *(["preprocessing"], ["streaming"], ["whisper"], ["scoring"], ["embedded"]),
    ["environment", "artifacts", "config", "text"],
]
FORBIDDEN_WORDS = re.compile(r"\b(restart\w*|simply)\b", re.IGNORECASE)
EMOJI = re.compile("[\U0001f000-\U0001faff\ufe0f\u2705\u274c\u2728\u26a0\u2b50]")
SECRET = re.compile(r"hf_[A-Za-z0-9]{20,}")
SHOWS = {"print", "display", "show"}
PYTHON = sorted(
    path
    for folder in ("notebooks/source", "utils", "tests", "benchmarks", "spaces")
    for path in (ROOT / folder).rglob("*.py")
)


def read(path):
    return nbformat.read(path, as_version=4)


def tags(cell):
    return cell.metadata.get("tags", [])


def code_cells(path):
    """The writer's code cells: neither generated ones nor the parameters."""
    own = {"bootstrap", "parameters"}
    return [c for c in read(path).cells if c.cell_type == "code" and not own & set(tags(c))]


def headings(cells):
    """The `##` headings of the markdown cells, without those inside code fences."""
    markdown = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    return [heading.strip() for heading in re.findall(r"^## (.+)$", prose, re.MULTILINE)]


def sections(path):
    """Heading → its cells, for every `##` section in order; what comes before is under ''."""
    result = {"": []}
    for cell in read(path).cells:
        for heading in headings([cell]):
            result[heading] = []
        result[list(result)[-1]].append(cell)
    return result


def code_of(cells):
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def line_count(source):
    """Lines that a reader reads: no blank ones, and a wrapped import counts once."""
    imports = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
    wrapped = sum(node.end_lineno - node.lineno for node in imports)
    return sum(1 for line in source.splitlines() if line.strip()) - wrapped


def asserts(source):
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def called(node):
    """The last name of what a call calls: `plt.show()` → `show`."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def is_visible(source):
    """Tell whether a cell ends in something a reader sees, or has an assert."""
    tree = ast.parse(source)
    last = tree.body[-1]
    prints = any(isinstance(n, ast.Call) and called(n) in SHOWS for n in ast.walk(last))
    return isinstance(last, ast.Expr) or prints or bool(asserts(source))


def dangers(source):
    """Name what runs or publishes more than it says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        on = {
            k.arg
            for k in node.keywords
            if isinstance(k.value, ast.Constant) and k.value.value is True
        }
        found += [f"{name}=True" for name in {"trust_remote_code", "share"} & on]
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if owner in {"pickle", "dill", "joblib"} and called(node) in {"load", "loads", "Unpickler"}:
            found.append(f"{owner}.{called(node)}")
        if owner == "torch" and called(node) == "load" and "weights_only" not in on:
            found.append("torch.load without weights_only=True")
    return found


def imported_utils(source):
    """The names of the utils modules that a source imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("utils.")}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "utils":
                names |= {alias.name for alias in node.names}
            elif node.module.startswith("utils."):
                names.add(node.module.split(".")[1])
    return names


def test_there_are_lessons():
    assert NOTEBOOKS


def test_notebooks_and_badges_are_what_the_sources_say():
    assert build.find_drift(ROOT) == [], build.CURE


@LESSONS
def test_source_is_spaced_as_the_way_back_from_a_notebook_spaces_it(path):
    source = (ROOT / f"notebooks/source/{path.stem}.py").read_text(encoding="utf-8")
    assert build.write_source(build.read_source(source, path.name)) == source


@LESSONS
@pytest.mark.fault(23)
def test_notebook_is_valid_and_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@LESSONS
def test_lesson_opens_with_title_promises_and_table(path):
    first = read(path).cells[0].source
    number = int(path.stem[:2])
    lines = [line for line in first.splitlines() if line.strip()]
    assert lines[0].startswith(f"# {number} · ")
    assert not lines[1].startswith(("#", "-", "*", "|"))  # the one sentence
    bullets = [line for line in lines if re.match(r"[-*] ", line)]
    assert len(bullets) == 3
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 3  # head, rule, one row
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == ["Needs", "Makes", "Time"]


@LESSONS
def test_parameters_are_the_same_two_in_every_lesson(path):
    tagged = [cell.source for cell in read(path).cells if "parameters" in tags(cell)]
    assert tagged == [PARAMETERS]


@LESSONS
def test_fixed_sections_stand_in_order_and_all_others_are_questions(path):
    found = headings(read(path).cells)
    assert [heading for heading in found if heading in SECTIONS] == SECTIONS
    others = [heading for heading in found if heading not in SECTIONS]
    assert others
    assert [heading for heading in others if not heading.endswith("?")] == []
    last = SECTIONS.index("When this is good, and when to expect trouble")
    assert found[-len(SECTIONS[last:]) :] == SECTIONS[last:]  # the close is the same everywhere


@LESSONS
def test_no_code_cell_has_more_than_20_lines(path):
    assert [c.source for c in code_cells(path) if line_count(c.source) > 20] == []


@LESSONS
def test_half_of_the_code_cells_have_at_most_10_lines(path):
    assert median(line_count(cell.source) for cell in code_cells(path)) <= 10


@LESSONS
def test_code_cells_end_in_something_visible(path):
    exempt = {"Save", "Check"}
    cells = [c for name, part in sections(path).items() if name not in exempt for c in part]
    own = [c.source for c in cells if c in code_cells(path)]
    silent = [source for source in own[1:] if not is_visible(source)]  # the first one imports
    assert silent == []


@LESSONS
def test_by_hand_shows_shapes_and_by_helper_asserts_that_both_agree(path):
    parts = sections(path)
    assert is_visible(code_of(parts["By hand"]))
    assert asserts(code_of(parts["By helper"]))


@LESSONS
def test_check_has_three_to_six_asserts_with_messages(path):
    found = asserts(code_of(sections(path)["Check"]))
    assert 3 <= len(found) <= 6
    assert all(node.msg is not None for node in found)


@LESSONS
def test_code_is_plain_python(path):
    for cell in code_cells(path):
        ast.parse(cell.source)  # a magic or a `!` is a SyntaxError
        assert "get_ipython" not in cell.source


@LESSONS
def test_words_and_signs_that_lessons_do_without(path):
    for cell in read(path).cells:
        assert FORBIDDEN_WORDS.findall(cell.source) == []
        assert EMOJI.findall(cell.source) == []


@LESSONS
@pytest.mark.fault(23)
def test_lesson_runs_nothing_dangerous(path):
    code = "\n".join(c.source for c in read(path).cells if c.cell_type == "code")
    assert dangers(code) == []


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_runs_nothing_dangerous(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.fault(23)
def test_no_file_holds_a_token():
    hidden = [ROOT / ".ci", ROOT / ".github"]
    folders = [
        *hidden,
        *(ROOT / n for n in ("notebooks", "utils", "recipes", "tests", "benchmarks")),
    ]
    files = [p for p in ROOT.iterdir() if p.is_file()]
    files += [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    kinds = {".py", ".ipynb", ".md", ".toml", ".txt", ".yml", ".json", ""}
    texts = {p: p.read_text(encoding="utf-8") for p in files if p.suffix in kinds}
    assert ROOT / "pyproject.toml" in texts
    assert [str(path) for path, text in texts.items() if SECRET.search(text)] == []


def test_utils_import_downwards_only():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upward = [
        f"{path.relative_to(ROOT)} imports {below}"
        for path in (ROOT / "utils").rglob("*.py")
        if (name := path.relative_to(ROOT / "utils").parts[0].removesuffix(".py")) != "__init__"
        for below in imported_utils(path.read_text("utf-8"))
        if floor[below] < floor[name]
    ]
    assert upward == []


def test_each_folder_of_utils_names_its_files():
    unnamed = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "utils").glob("*/*.py")
        if not path.stem.startswith("__")
        and f"`{path.stem}`" not in (path.parent / "__init__.py").read_text("utf-8")
    ]
    assert unnamed == []


# The rules themselves are checked on cells that break them.


@pytest.mark.parametrize(
    ("source", "visible"),
    [
        ("x = 1", False),
        ("x = 1\nx", True),
        ("for x in y:\n    print(x)", True),
        ("plt.plot(x)\nplt.show()", True),
        ("print(1)\nx = 2", False),
        ("assert x == 1, 'x'\ny = 1", True),
        ("def f():\n    return 1", False),
    ],
)
def test_rule_on_visible_cells(source, visible):
    assert is_visible(source) is visible


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", 1),
        ("page.launch(share=True)", 1),
        ("pickle.load(file)", 1),
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("page.launch(share=False)\njson.load(file)", 0),
    ],
)
def test_rule_on_dangerous_calls(source, count):
    assert len(dangers(source)) == count


def test_rule_on_imports_sees_every_form():
    source = "import utils.a, os\nfrom utils import b\nfrom utils.c import d\n"
    source += "def f():\n    from utils.e import g\n"
    assert imported_utils(source) == {"a", "b", "c", "e"}


@pytest.mark.parametrize("text", ["Restart the runtime", "you simply run", "restarting"])
def test_rule_on_words(text):
    assert FORBIDDEN_WORDS.search(text)
    assert not FORBIDDEN_WORDS.search("the rest starts; simple")


def test_rule_on_emoji_and_secrets():
    assert EMOJI.search("done \U0001f389") and not EMOJI.search("22.5 % → 7.6 · × é ✓")
    assert SECRET.search("hf_" + "a" * 30) and not SECRET.search("hf_token")
