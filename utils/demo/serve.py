"""The Gradio page: speak or upload, and compare what the base and the fine-tuned model transcribe.

`python -m utils.demo recipes/embedded.toml` serves it in the foreground."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from utils.artifacts import Run
from utils.config import Recipe
from utils.demo.answers import Transcriber
from utils.demo.guard import (
    FRAMED_BY,
    LOOPBACK,
    Guard,
    ask_without_proxy,
    patient,
    private_folder,
)
from utils.demo.shown import CSS
from utils.environment.colab import in_colab
from utils.whisper.captions import Segment

if TYPE_CHECKING:
    import datasets
    import gradio

HOST = "127.0.0.1"  # this machine alone: over SSH, forward the port

FRAME = "demo-page"  # where `show` puts the page and `close` replaces it

MAX_UPLOAD = 200 * 2**20  # bytes: an hour of 16-bit WAV at 16 kHz is 115 MB

MAX_WAITING = 16  # requests in the queue; one more is told that the page is busy

COLAB = (".googleusercontent.com", ".colab.dev", ".google.com")

# Whatever opens something is closed by name: `run_history` keeps what visitors record in their
# browser, and `share`, which `launch` always gives, would be True on Colab if it were not.
CLOSED = {
    **dict.fromkeys(
        ("inline", "show_error", "enable_monitoring", "run_history", "ssr_mode"), False
    ),
    **dict.fromkeys(("quiet", "prevent_thread_lock", "strict_cors"), True),
    "footer_links": [],
}

GUEST = "guest"  # who logs in where the page is shared


def load_transcribers(recipe: Recipe, run: Run) -> dict[str, Transcriber]:
    """Load the base and the fine-tuned model, in this order, each under the name it is shown by.

    Both decode at 30 s, as wherever else they are used.
    """
    from utils.embedded.fetch import resolve

    start = load_transcriber(resolve(recipe.model.checkpoint), recipe.model.revision)
    return {model_name(recipe.model.checkpoint): start, "Fine-tuned": load_transcriber(run.model)}


def model_name(checkpoint: str) -> str:
    """Return what people call a checkpoint: "Whisper base"; no folder of this machine is in it."""
    name = Path(checkpoint).name
    return f"Whisper {name.removeprefix('whisper-')}" if name.startswith("whisper-") else name


def load_transcriber(path: str | Path, revision: str | None = None) -> Transcriber:
    """Load one model, to be asked as `transcriber(samples, language, task)`."""
    # Imported here, as above and below: the recorder serves a page without any model.
    from utils.environment.machine import device
    from utils.whisper.load import load_checkpoint
    from utils.whisper.long_recordings import transcribe_long

    model, processor = load_checkpoint(path, revision)
    model.to(device())

    def transcriber(
        samples: np.ndarray, language: str, task: str
    ) -> Iterator[tuple[float, list[Segment]]]:
        return transcribe_long(model, processor, samples, language=language, task=task)

    return transcriber


def example_rows(run: Run, count: int = 3) -> "datasets.Dataset":
    """Return prepared test rows in which fine-tuning changed most words for the better.

    They are characters in languages without word spaces.
    Before lesson 5 nothing is known of that. Clips below two seconds come last, each text once, and
    among equals those of about four seconds first: in a word or two there is little to get wrong.
    """
    import datasets

    from utils.scoring.predictions import count_row_errors, first_unit, load_predictions

    rows = datasets.load_from_disk(str(run.prepared))["test"]
    gained: dict[str, int] = {}
    if run.predictions.exists():
        told = load_predictions(run.predictions)
        at_30s = all(row.get("after_30s") is not None for row in told)  # as the page decodes
        sides = "before", "after_30s" if at_30s else "after"
        unit = first_unit(told)
        before, after = (count_row_errors(told, side, unit)[:, 0] for side in sides)
        gained = dict(zip((row["id"] for row in told), before - after, strict=True))
    ids, seconds, texts = (rows[name][:] for name in ("id", "seconds", "text"))
    ranked = sorted(
        range(len(rows)),
        key=lambda at: (seconds[at] < 2, -gained.get(ids[at], 0), abs(seconds[at] - 4)),
    )
    best = {texts[at]: at for at in reversed(ranked)}  # one clip a text
    others = [at for at in ranked if best[texts[at]] != at]
    return rows.select([*sorted(best.values(), key=ranked.index), *others][:count])


def credits(recipe: Recipe) -> str:
    """Return who speaks in the embedded clips of the test split; "" where there are none.

    Their licences ask that this is shown wherever they are played.
    """
    from utils.embedded.fetch import speech

    sources = [source for source in recipe.sources if source.dataset == "embedded" and source.train]
    return "\n".join(speech(source.language, source.name).attribution for source in sources)


def launch(page: "gradio.Blocks", port: int | None = None, password: str = "") -> str:
    """Serve a page on this machine alone, in the background; `close` ends it.

    Args:
        page: from `utils.demo.page.build_page`.
        port: None takes a free one.
        password: share the page under a public address too, with whoever logs in as `GUEST` with
            it. Gradio downloads and runs its tunnel program for that.

    Returns:
        The address on this machine, `http://127.0.0.1:PORT/`; the public one is
        `page.share_url`.

    Raises:
        OSError: the port is taken, or there is no such port.
    """
    import gradio
    from starlette.middleware import Middleware

    if port is not None and not 1 <= port <= 65535:
        raise OSError(f"There is no port {port}: choose one from 1024 to 65535.")
    ask_without_proxy()
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    hosts, framed_by = [*LOOPBACK], FRAMED_BY
    if in_colab():  # its proxy shows the page in a frame, under a name of its own
        hosts += COLAB
        framed_by += "".join(f" https://*{name}" for name in COLAB)
    guard = Middleware(Guard, hosts=hosts, max_upload=MAX_UPLOAD, framed_by=framed_by)
    try:
        _, url, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=bool(password),
            auth=(GUEST, password) if password else None,
            max_file_size=MAX_UPLOAD,
            **CLOSED,
            # Named system fonts: the default theme fetches its fonts from Google.
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=CSS,
            app_kwargs={"middleware": [guard]},
        )
    except OSError:
        raise OSError(f"Port {port} of {HOST} is taken: choose another one.") from None
    hosts += [urlsplit(page.share_url).hostname] if page.share_url else []
    settings = page.server.config
    settings.http_protocol_class = patient(settings.http_protocol_class)
    return url


def announce(url: str, port: int) -> None:
    """Print where a page is, for whoever sits here and for whoever comes over SSH."""
    print(f"{url} is open; Ctrl+C closes it.")
    print(f"From another machine: ssh -N -L {port}:{HOST}:{port} THIS_MACHINE")


def show(url: str, height: int = 760) -> None:
    """Show a page that is open below the cell."""
    from IPython.display import IFrame, display

    if in_colab():  # the browser cannot reach the runtime's 127.0.0.1; Colab forwards the port
        from google.colab import output

        port = int(url.rstrip("/").rpartition(":")[2])
        output.serve_kernel_port_as_iframe(port, height=height)
    else:
        display(IFrame(url, width="100%", height=height), display_id=FRAME)


def close(page: "gradio.Blocks") -> None:
    """Stop serving a page, delete what was recorded, and say so where the page was shown."""
    from IPython.display import Markdown, update_display

    page.close(verbose=False)
    for path in private_folder().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    update_display(Markdown("The page was here; it is closed."), display_id=FRAME)
