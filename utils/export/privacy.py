"""What is nobody's business: folders of this machine, its name and its users', out of files."""

import contextlib
import json
import os.path
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.environment.whole import read_json

# An absolute path: of Unix, of Windows, of a share, below a home, or as a URL. Between quotes it
# may have spaces; elsewhere it needs two parts, for "/" also divides words. Not part of a URL.
_START = r"(?:file:(?://)?/|~[\w.-]*/|/(?!/)|[A-Za-z]:[\\/]|\\\\)"
_QUOTED = re.compile(rf"""(?P<quote>["'`])(?P<path>{_START}[^"'`\n]+)(?P=quote)""")
_BARE = re.compile(
    r"(?<![\w:/.<~\\)\]+])(?!/(?:etc|proc|dev|sys|usr/lib|usr/bin)/)(?P<path>(?:file:(?://)?/|~[\w.-]*/|/(?=[^\s/]+/)|[A-Za-z]:\\|\\\\(?=\w))"
    r"[^\s\"'`<>|,;()\[\]]+)"
)
PUBLIC_TEXTS = {".json", ".md", ".toml", ".ipynb", ".txt"}  # the code of the page is ours
# Vocabularies hold every piece of text there is.
WORDS = {"tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "vocabulary.json"}
_DATA = re.compile(r"(base64,[\w+/=]+)")  # sound and pictures inside a page


def _last_part(found: re.Match) -> str:
    """Return what a path is called, in the quotes that it had."""
    path = re.sub(r"^file:/*", "/", found["path"])
    quote = found.groupdict().get("quote") or ""
    name = re.split(r"[\\/]", path.rstrip("\\/. "))[-1] or "…"
    end = path[len(path.rstrip(".")) :] if not quote else ""  # the full stop of the sentence
    return f"{quote}{name if name != '~' else '…'}{end}{quote}"


def scrub(text: str, places: Sequence[Path] = ()) -> str:
    """Return a text in which paths are their last part, and this machine is "this-machine".

    Working folder, home and temporary folder go first, so that what lies below them keeps the rest
    of its path: "/home/alice/whisper/runs/x" is "runs/x".

    Args:
        text: with or without paths.
        places: further folders like these. In one that is not known a space or a quotation mark
            would end the path.
    """
    for folder, name in (
        (Path.cwd(), ""),
        (Path(tempfile.gettempdir()), "tmp/"),
        (Path(os.path.expanduser("~")), ""),  # "~" for a user without one
        *((place.absolute(), "") for place in places),
    ):
        if len(folder.parts) > 1:
            text = re.sub(rf"(?<![\w/]){re.escape(str(folder))}/", name, text)
            text = re.sub(rf"(?<![\w/]){re.escape(str(folder))}(?![\w/-])", folder.name, text)
    parts = _DATA.split(text)
    parts[::2] = [_BARE.sub(_last_part, _QUOTED.sub(_last_part, part)) for part in parts[::2]]
    text = "".join(parts)
    host = socket.gethostname()
    if len(host) > 3 and host != "localhost":
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", "this-machine", text)
    return text


def scrub_notebook(path: Path, is_published: bool = False, places: Sequence[Path] = ()) -> str:
    """Return a notebook without what is private in its outputs and parameters.

    Args:
        path: of the notebook.
        is_published: its code is scrubbed too, and its outputs are left out.
        places: see `scrub`.
    """
    notebook = read_json(path, "run the lesson again, or `git checkout notebooks`")
    notebook["metadata"] = _scrub_all(notebook.get("metadata", {}), places)
    for cell in notebook.get("cells", []):
        if is_published or "injected-parameters" in cell["metadata"].get("tags", []):
            cell["source"] = _scrub_all(cell["source"], places)
        if cell["cell_type"] == "code":
            cell["outputs"] = [] if is_published else _scrub_all(cell["outputs"], places)
            if is_published:
                cell["execution_count"] = None
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _scrub_all(value: Any, places: Sequence[Path] = ()) -> Any:
    """Scrub every text in what JSON holds, but pictures."""
    if isinstance(value, str):
        return scrub(value, places)
    if isinstance(value, Mapping):
        return {
            key: one if key.startswith(("image/", "audio/")) else _scrub_all(one, places)
            for key, one in value.items()
        }
    return [_scrub_all(one, places) for one in value] if isinstance(value, Sequence) else value


def find_private(folder: Path, names: Sequence[Path]) -> list[str]:
    """Return the text files that hold a path of this machine, or its name."""
    found = []
    for name in names:
        if name.suffix not in PUBLIC_TEXTS or name.name in WORDS:
            continue
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        # Of JSON its texts: between them are quotes and backslashes that are not theirs.
        told: Any = text
        if name.suffix in (".json", ".ipynb"):
            with contextlib.suppress(ValueError, RecursionError):  # damaged, it is searched as text
                told = json.loads(text)
        if _scrub_all(told) != told:
            found.append(str(folder / name))
    return found
