"""Sharing: the folder of a model repository, and the push to the Hub."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from utils.artifacts import Run, notebook_of, write_atomically, write_json
from utils.config import Recipe, UserError
from utils.export.card import write_card
from utils.export.privacy import find_private, scrub, scrub_notebook

NOBODY = "YOU"  # a placeholder for your name on the Hub

# What may leave this machine, and nothing else: the trainer's pickles (training_args.bin may hold a
# token) and the optimizer's state are not in the list.
MODEL_FILES = (
    *("config.json", "generation_config.json"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("processor_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
)

CONVERTED_FILES = (
    *("model.bin", "config.json", "tokenizer.json", "preprocessor_config.json"),
    "vocabulary.json",
)

ALLOWED: Mapping[str, tuple[str, ...]] = {
    "model": (
        *MODEL_FILES,
        *(f"ctranslate2-{kind}/{name}" for kind in ("float16", "int8") for name in CONVERTED_FILES),
        *("ggml-model.bin", "README.md", "recipe.toml", "04_training.ipynb"),
    ),
    "space": (
        *("app.py", "guard.py", "settings.json", "requirements.txt", "README.md"),
        *(f"model/{name}" for name in CONVERTED_FILES),
    ),
}

TEXTS = {".json", ".md", ".txt", ".toml", ".ipynb", ".py"}

SECRET = re.compile(r"hf_[A-Za-z0-9]{20,}")

TRANSIENT = (412, 429, 500, 502, 503, 504)  # 412: another push was quicker
ATTEMPTS, LONGEST_WAIT = 5, 30  # seconds; the Hub's client tries uploads again, but no commit


class PushError(UserError):
    """Something must not or cannot be pushed; the message says what, where and the way out."""


class Pushed(NamedTuple):
    """The result of a push."""

    url: str
    commit: str
    is_new: bool  # False: the Hub had all of it already
    is_private: bool


def place(source: Path, target: Path) -> None:
    """Put a file into another folder too, as a hard link where the disk supports it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # Google Drive, or another disk
        shutil.copyfile(source, target)


def stage_model(recipe: Recipe, run: Run, repository: str, exported: Mapping[str, Any]) -> Path:
    """Fill the folder of the model's repository, beside what was converted into it.

    Args:
        recipe: the experiment; its file goes along.
        run: with a finished model and evaluation.
        repository: `owner/name`, which the card's examples name.
        exported: what lesson 7 measured, see `write_card`.

    Returns:
        The folder, `run.repository`.
    """
    folder = run.repository
    for pattern in MODEL_FILES:
        for path in run.model.glob(pattern):
            place(path, folder / path.name)
    told = (run.folder / "recipe.toml").read_text(encoding="utf-8")
    write_atomically(folder / "recipe.toml", scrub(told))
    lesson = Path(notebook_of("training"))
    write_atomically(folder / lesson.name, scrub_notebook(lesson, is_published=True))
    write_atomically(folder / "README.md", scrub(write_card(recipe, run, repository, exported)))
    return folder


def address(recipe: Recipe, run: Run, repository: str, exported: Mapping[str, Any]) -> None:
    """Let the card name another repository; whatever else a person has changed in it stays.

    Args:
        recipe: the experiment.
        run: with a staged model.
        repository: `owner/name`, as the card will have it.
        exported: lesson 7's report; it says which name the card has now.
    """
    card = run.repository / "README.md"
    before = exported.get("repository", f"{NOBODY}/whisper-{recipe.name}")
    name = re.compile(rf"(?<![\w./-]){re.escape(before)}(?![\w/-])")
    text = card.read_text(encoding="utf-8")
    write_atomically(card, name.sub(lambda _: repository, text))
    write_json(run.report("export"), {**exported, "repository": repository})


def contents(folder: Path, kind: str) -> list[Path]:
    """Return the files of a folder that a push would take, relative to it, sorted."""
    allowed = {path for pattern in ALLOWED[kind] for path in folder.glob(pattern)}
    return sorted(path.relative_to(folder) for path in allowed if path.is_file())


def find_secrets(folder: Path, names: Sequence[Path]) -> list[str]:
    """Return the text files among `names` that hold the token in use, or what looks like one."""
    token = get_token()
    found = []
    for name in names:
        if name.suffix in TEXTS:
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            if SECRET.search(text) or (token and token in text):
                found.append(str(folder / name))
    return found


def _passes(error: BaseException) -> bool:
    """Tell whether the Hub may succeed at the next attempt."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    # No answer at all; httpx's or httpx2's, by the client's version.
    return any(cls.__name__ == "TransportError" for cls in type(error).__mro__)


def _persist(call: Any, *arguments: Any, **settings: Any) -> Any:
    """Call until it succeeds, at most `ATTEMPTS` times."""
    attempts = Retrying(
        retry=retry_if_exception(_passes),
        wait=wait_exponential(max=LONGEST_WAIT),
        stop=stop_after_attempt(ATTEMPTS),
        reraise=True,
    )
    return attempts(call, *arguments, **settings)


def push(folder: Path, repository: str, kind: str = "model", private: bool = True) -> Pushed:
    """Push a folder in one commit, or in none if the Hub already has all of it.

    Args:
        folder: of `stage_model` or `stage_space`.
        repository: `owner/name`; made if need be.
        kind: "model" or "space": only `ALLOWED` of that kind is uploaded.
        private: for a new repository; one that exists stays as it is.

    Raises:
        PushError: no login, a token in a file, or the Hub says no.
    """
    if not get_token():
        raise PushError("No token is set: log in with `hf auth login`, then push again.")
    names = contents(folder, kind)
    if not names:
        raise PushError(f"{folder} is empty: run {notebook_of('export')} first.")
    if leaks := find_private(folder, names):
        raise PushError(
            f"{', '.join(leaks)}: a folder or the name of this machine stands in it, and would be "
            "public. Take it out, or run the export again."
        )
    if leaks := find_secrets(folder, names):
        raise PushError(f"{', '.join(leaks)}: a token stands in it. Take it out, and revoke it.")
    api, asked = HfApi(), {"repo_type": kind}
    try:
        made = {"space_sdk": "gradio"} if kind == "space" else {}
        _persist(api.create_repo, repository, private=private, exist_ok=True, **asked, **made)
        before = _persist(api.repo_info, repository, **asked)
        commit = _persist(
            api.upload_folder,
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[name.as_posix() for name in names],
            commit_message="Model, card and conversions" if kind == "model" else "Page and model",
            **asked,
        )
    except (HfHubHTTPError, ValueError) as error:  # ValueError: metadata that the Hub refuses
        raise PushError(f"The Hub did not take {repository}: {error}") from None
    prefix = "spaces/" if kind == "space" else ""
    url = f"{api.endpoint}/{prefix}{repository}"
    return Pushed(url, commit.oid, commit.oid != before.sha, before.private)


def push_line(done: Pushed) -> str:
    """Return the result of a push as a sentence."""
    what = f"commit {done.commit[:8]}" if done.is_new else "nothing new to push"
    return f"{done.url}: {what}, {'private' if done.is_private else 'public'}."
