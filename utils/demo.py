"""The Gradio page: speak or upload, and read what the base and the fine-tuned model hear.

`python -m utils.demo recipes/embedded.toml` serves it in the foreground.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from utils.artifacts import Run, RunMismatch, open_run, require
from utils.audio_context import STOCK_SECONDS
from utils.config import Recipe, RecipeError, load_recipe
from utils.decoding import transcribe
from utils.embedded import FetchError, resolve, speech
from utils.environment import device, in_colab
from utils.mistakes import word_diff_html
from utils.preprocessing import waveform
from utils.streaming import SAMPLING_RATE, AudioError, decode_audio
from utils.text import has_word_spaces

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"  # this machine alone: over SSH, forward the port
FRAME = "demo-page"  # where `show` puts the page and `close` replaces it
MAX_FILE_SIZE = "25mb"  # 30 s of 24-bit stereo WAV at 96 kHz are 17 MB
MAX_WAITING = 16  # requests in the queue; one more is told that the page is busy
SILENCE = 1e-3  # a peak of -60 dBFS: Whisper makes up words for silence
# The label of a box lies over its first line.
CSS = "#changes {padding-top: 2.2em; min-height: 4.5em}"

Transcriber = Callable[[np.ndarray, str], str]  # 16 kHz samples, language code → text


class UnusableAudio(ValueError):
    """A recording that cannot be transcribed; the message is what the page says."""


def read_recording(path: str | None) -> np.ndarray:
    """Return the samples of a recording that came through the page.

    Returns:
        float32 at 16 kHz, at most 30 s.

    Raises:
        UnusableAudio: with one sentence for the person at the page.
    """
    if path is None:
        raise UnusableAudio("There is no recording yet: speak into the microphone or add a file.")
    try:
        # The header first: an hour of compressed speech would decode to hundreds of megabytes.
        seconds = soundfile.info(path).duration
        if seconds > STOCK_SECONDS:
            raise UnusableAudio(
                f"This recording lasts {seconds:.0f} s, and Whisper hears {STOCK_SECONDS:.0f} s at "
                "once: cut it, and try again."
            )
        clip = decode_audio(Path(path).read_bytes())
    except (soundfile.SoundFileError, AudioError):
        raise UnusableAudio(
            "This file holds no readable audio: WAV, FLAC, MP3 and Ogg can be read."
        ) from None
    if np.abs(clip).max() < SILENCE:
        raise UnusableAudio("This recording is silent: check the microphone, and try again.")
    return clip


def load_transcribers(recipe: Recipe, run: Run) -> dict[str, Transcriber]:
    """Load the base and the fine-tuned model, in this order, each under the name it is shown by.

    Both hear the stock 30 s window, as they will wherever else they are used.
    """
    checkpoints = {
        f"Before: {recipe.model.checkpoint}": resolve(recipe.model.checkpoint),
        f"After: {recipe.name}, fine-tuned": str(run.model),
    }
    return {name: _transcriber(path, recipe) for name, path in checkpoints.items()}


def _transcriber(path: str, recipe: Recipe) -> Transcriber:
    processor = WhisperProcessor.from_pretrained(path, revision=recipe.model.revision)
    model = WhisperForConditionalGeneration.from_pretrained(
        path, revision=recipe.model.revision, dtype=torch.float32, use_safetensors=True
    ).to(device())

    def hear(clip: np.ndarray, language: str) -> str:
        return transcribe(model, processor, [clip], language=language, task=recipe.model.task)[0]

    return hear


def example_rows(run: Run, count: int = 3) -> datasets.Dataset:
    """Return prepared rows of the test split, longer than three quarters of it.

    Half of the embedded clips are a word or two, in which there is little to mishear.
    """
    rows = datasets.load_from_disk(str(run.prepared))["test"]
    start = max(0, min(len(rows) * 3 // 4, len(rows) - count))
    return rows.select(np.argsort(rows["seconds"][:], kind="stable")[start : start + count])


def credits(recipe: Recipe) -> str:
    """Return who speaks in the embedded clips of the test split; "" where there are none.

    Their licences ask that this is shown wherever they are played.
    """
    sources = [source for source in recipe.sources if source.dataset == "embedded" and source.train]
    return "\n".join(speech(source.language, source.name).attribution for source in sources)


def build_page(
    transcribers: Mapping[str, Transcriber],
    languages: Sequence[str],
    examples: Iterable[Mapping[str, Any]] = (),
    credit: str = "",
) -> "gradio.Blocks":
    """Build the page; nothing listens until `launch`.

    Args:
        transcribers: two, by the name they are shown by; the second is compared with the first.
        languages: Whisper's codes, to choose from.
        examples: prepared rows to try.
        credit: whom to name for them.
    """
    # The page's own folder, open to this user alone: what visitors record lies there. Gradio's
    # default, /tmp/gradio, belongs to whoever on a shared machine started Gradio first.
    folder = tempfile.TemporaryDirectory(prefix="whisper-demo-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    import gradio  # 2 s, and no other module needs it

    (first, hear_first), (second, hear_second) = transcribers.items()

    def answer(path: str | None, language: str) -> tuple[str, str, str]:
        try:
            clip = read_recording(path)
        except UnusableAudio as problem:
            # duration=None: the sentence stays until it is closed.
            raise gradio.Error(str(problem), duration=None, print_exception=False) from None
        before, after = hear_first(clip, language), hear_second(clip, language)
        unit = "word" if has_word_spaces(language) else "char"
        return before, after, word_diff_html(before, after, unit)

    choices = [(LANGUAGES.get(code, code).title(), code) for code in languages]
    # delete_cache: recordings of visitors are removed after an hour.
    with gradio.Blocks(title="Whisper", delete_cache=(3600, 3600)) as page:
        gradio.Markdown(
            "# Whisper, before and after fine-tuning\nSpeak, or add a file of up to 30 s."
        )
        with gradio.Row():
            with gradio.Column(scale=2):
                audio = gradio.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label="Recording",
                    buttons=[],  # one of the defaults shares the recording on the Hub
                )
            with gradio.Column(scale=1):
                language = gradio.Dropdown(choices, value=languages[0], label="Spoken language")
                button = gradio.Button("Transcribe", variant="primary")
        with gradio.Row():
            before = gradio.Textbox(label=first, lines=3, buttons=["copy"])
            after = gradio.Textbox(label=second, lines=3, buttons=["copy"])
        changes = gradio.HTML(
            label="What changed", show_label=True, container=True, elem_id="changes"
        )
        files = [_write_example(folder.name, *example) for example in enumerate(examples, 1)]
        if files:
            label = "Clips of the test split"
            gradio.Examples(files, [audio, language], label=label, cache_examples=False)
            gradio.Markdown(credit)
        button.click(answer, [audio, language], [before, after, changes], api_name="transcribe")
    page.folder = folder  # deleted by `close`, or when Python ends
    return page


def _write_example(folder: str, number: int, row: Mapping[str, Any]) -> list[str]:
    path = f"{folder}/test_{number}.wav"
    soundfile.write(path, waveform(row), SAMPLING_RATE)
    return [path, row["language"]]


def launch(page: "gradio.Blocks", port: int | None = None) -> str:
    """Serve a page on this machine alone, in the background; `close` ends it.

    Args:
        page: from `build_page`.
        port: None takes a free one.

    Returns:
        The address, `http://127.0.0.1:PORT/`.

    Raises:
        OSError: the port is taken.
    """
    import gradio

    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    try:
        # Whatever opens something is closed by name: `share` unset would be True on Colab, and
        # `run_history` keeps what visitors record in their browser.
        _, url, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inline=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_FILE_SIZE,
            show_error=False,
            strict_cors=True,
            enable_monitoring=False,
            run_history=False,
            ssr_mode=False,
            footer_links=[],
            # Named system fonts: the default theme fetches its fonts from Google.
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=CSS,
        )
    except OSError:
        raise OSError(f"Port {port} of {HOST} is taken: choose another one.") from None
    return url


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
    page.folder.cleanup()
    update_display(Markdown("The page was here; it is closed."), display_id=FRAME)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page of a recipe until Ctrl+C; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m utils.demo", description=main.__doc__)
    parser.add_argument("recipe", help="the experiment, for example recipes/embedded.toml")
    parser.add_argument("--runs", default="runs", help="the folder of results (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        recipe = load_recipe(chosen.recipe)
        run = open_run(recipe, chosen.runs)
        require(run, "training")
        transcribers, languages = load_transcribers(recipe, run), recipe.languages
        page = build_page(transcribers, languages, example_rows(run), credits(recipe))
        url = launch(page, chosen.port)
    except (OSError, FetchError, RecipeError, RunMismatch) as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{url} is open; Ctrl+C closes it.")
    print(f"From another machine: ssh -N -L {chosen.port}:{HOST}:{chosen.port} THIS_MACHINE")
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
