"""A Space: its folder with page and int8 model, and the page served on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx

from utils.artifacts import Run, write_atomically, write_json
from utils.config import Recipe
from utils.demo.guard import ask_without_proxy
from utils.embedded.fetch import speech
from utils.environment.templates import render
from utils.export.documented import FASTER_WHISPER, is_multilingual
from utils.export.hub import CONVERTED_FILES, PushError, place
from utils.text import word_gap

SPACE_README = Path(__file__).with_name("space.md")


def stage_space(recipe: Recipe, run: Run) -> Path:
    """Fill the folder of a Space: the page, its requirements and the int8 model.

    Returns:
        The folder, `run.space`; `python app.py` in it serves the page on this machine.
    """
    folder = run.space
    for name in CONVERTED_FILES:
        place(run.repository / "ctranslate2-int8" / name, folder / "model" / name)
    shutil.copyfile("spaces/app.py", folder / "app.py")
    shutil.copyfile("utils/demo/guard.py", folder / "guard.py")
    title = f"Whisper for {', '.join(recipe.spoken.values())}"
    has_languages = is_multilingual(run.model)
    sources = [source for source in recipe.sources if source.dataset == "embedded" and source.train]
    credit = [speech(source.language, source.name).attribution for source in sources]
    settings = {
        "title": title,
        # An English-only model was trained on its language under the name of English.
        "languages": {
            code if has_languages else "en": name for code, name in recipe.spoken.items()
        },
        "gaps": {code if has_languages else "en": word_gap(code) for code in recipe.languages},
        "call": dict(FASTER_WHISPER),  # as documented and measured
        "credit": "\n\n".join(credit and ["Trained on:", *credit]),
    }
    write_json(folder / "settings.json", settings)
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


@contextmanager
def serve_space(folder: Path, seconds: float = 90) -> Iterator[str]:
    """Serve a Space's folder on this machine while the block runs; yields its address.

    Raises:
        PushError: the page ended or did not open in time; with what it said.
    """
    ask_without_proxy()
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
