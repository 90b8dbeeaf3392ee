"""Sharing: the folders of a model repository and of a Space, and the push to the Hub."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from utils.artifacts import Run, notebook_of, render, write_atomically
from utils.config import Recipe, UserError
from utils.embedded.fetch import speech
from utils.export.card import language_name, write_card
from utils.export.documented import FASTER_WHISPER, is_multilingual
from utils.export.privacy import find_private, scrub, scrub_notebook

SPACE_README = Path(__file__).with_name("space.md")
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


def _place(source: Path, target: Path) -> None:
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
            _place(path, folder / path.name)
    told = (run.folder / "recipe.toml").read_text(encoding="utf-8")
    write_atomically(folder / "recipe.toml", scrub(told))
    lesson = Path(notebook_of("training"))
    write_atomically(folder / lesson.name, scrub_notebook(lesson, is_published=True))
    write_atomically(folder / "README.md", scrub(write_card(recipe, run, repository, exported)))
    return folder


def stage_space(recipe: Recipe, run: Run) -> Path:
    """Fill the folder of a Space: the page, its requirements and the int8 model.

    Returns:
        The folder, `run.space`; `python app.py` in it serves the page on this machine.
    """
    folder = run.space
    for name in CONVERTED_FILES:
        _place(run.repository / "ctranslate2-int8" / name, folder / "model" / name)
    shutil.copyfile("spaces/app.py", folder / "app.py")
    shutil.copyfile("utils/demo/guard.py", folder / "guard.py")
    spoken = ", ".join(map(language_name, recipe.languages))
    title, has_languages = f"Whisper for {spoken}", is_multilingual(run.model)
    sources = [source for source in recipe.sources if source.dataset == "embedded" and source.train]
    credit = [speech(source.language, source.name).attribution for source in sources]
    settings = {
        "title": title,
        # An English-only model was trained on its language under the name of English.
        "languages": {
            code if has_languages else "en": language_name(code) for code in recipe.languages
        },
        "call": dict(FASTER_WHISPER),  # as documented and measured
        "credit": "\n\n".join(credit and ["Trained on:", *credit]),
    }
    write_atomically(
        folder / "settings.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    )
    programs = ("faster-whisper", "ctranslate2", "av")
    needs = "".join(f"{name}=={version(name)}\n" for name in programs)
    write_atomically(folder / "requirements.txt", needs)
    page = render(
        SPACE_README,
        title=title,
        gradio=version("gradio"),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
    )
    write_atomically(folder / "README.md", page)
    return folder


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


@contextmanager
def serve_space(folder: Path, seconds: float = 90) -> Iterator[str]:
    """Serve a Space's folder on this machine while the block runs; yields its address.

    Raises:
        PushError: the page ended or did not open in time; with what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The page needs no account: it gets no token.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    places = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    log = folder.with_name("space.log")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=kept | places, stdout=file, stderr=file
        )
    url, started = f"http://127.0.0.1:{port}/", time.perf_counter()
    try:
        while True:
            try:
                httpx.get(url, timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.perf_counter() - started > seconds:
                told = log.read_text(encoding="utf-8")[-2000:]
                raise PushError(f"{folder}/app.py does not serve a page: {told}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def push_line(done: Pushed) -> str:
    """Return the result of a push as a sentence."""
    what = f"commit {done.commit[:8]}" if done.is_new else "nothing new to push"
    return f"{done.url}: {what}, {'private' if done.is_private else 'public'}."
