"""What the page shows and does: Gradio components around two models, and nothing that listens."""

import atexit
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from utils.demo.kept import UnusableRecording, keep_recording, read_recording
from utils.demo.live import Live, listen, to_mono
from utils.evaluation.mistakes import word_diff_html
from utils.preprocessing.prepare import waveform
from utils.text import has_word_spaces
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.captions import FORMATS, Segment, clock

if TYPE_CHECKING:
    import gradio

# 16 kHz samples, language code, task → after each window: seconds heard, and what was said in it.
Transcriber = Callable[[np.ndarray, str, str], Iterator[tuple[float, list[Segment]]]]

MODELS = "models"  # the line in which all wait that send a recording: one is served at a time
LIVE_SECONDS = 600  # that a microphone may stay open
LIVE_SPEAKERS = 4  # at once; each keeps a place as long as the microphone is open
CSS = """
/* The label of a box lies over its first line. */
#changes, #timestamps {padding-top: 2.2em; min-height: 4.5em}
#timestamps {max-height: 16em; overflow-y: auto}
#progress progress {width: 100%}
/* Long sentences on the buttons of the test clips wrap, also on a phone. */
#clips button {text-align: start; white-space: normal}
/* Who moves by keyboard sees where they are, in light and dark. */
button:focus-visible, input:focus-visible, textarea:focus-visible, label:has(:focus-visible) {
    outline: 3px solid var(--color-accent); outline-offset: 2px}
"""
# Written in the browser: no file lies on the server for it.
SAVE = """(captions) => {
    if (!captions) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([captions.%(kind)s], {type: "text/plain"}));
    link.download = "captions.%(kind)s";
    link.click();
    URL.revokeObjectURL(link.href);
}"""


def join(segments: Iterable[Segment]) -> str:
    """Return the text of segments, without their times."""
    return " ".join(segment.text for segment in segments)


def in_turn(transcriber: Transcriber, turn: threading.Lock) -> Transcriber:
    """Return a transcriber that hears each window alone: who speaks live takes turns with it."""

    def hear(*asked: Any) -> Iterator[tuple[float, list[Segment]]]:
        windows = transcriber(*asked)
        while True:
            with turn:
                window = next(windows, None)
            if window is None:
                return
            yield window

    return hear


def hear_together(
    transcribers: Sequence[Transcriber], samples: np.ndarray, language: str, task: str
) -> Iterator[tuple[float, list[list[Segment]]]]:
    """Transcribe a recording with several models, whichever is behind going on.

    Yields:
        After each window, the seconds that all have heard and the segments of each so far.
    """
    hearing = [hear(samples, language, task) for hear in transcribers]
    heard, segments = [0.0] * len(hearing), [[] for _ in hearing]
    waiting = set(range(len(hearing)))
    while waiting:
        behind = min(waiting, key=lambda index: (heard[index], index))
        window = next(hearing[behind], None)
        if window is None:
            waiting.remove(behind)
            continue
        heard[behind] = window[0]
        segments[behind].extend(window[1])
        yield min(heard), segments


def progress_html(heard: float, total: float, stopped: bool = False) -> str:
    """Return a bar with its words; screen readers speak the words."""
    words = f"{'Stopped: heard' if stopped else 'Heard'} {clock(heard)[:-2]} of {clock(total)[:-2]}"
    bar = f'<progress aria-label="{words}" value="{heard:.1f}" max="{total:.1f}"></progress>'
    return f'<div role="status">{bar}<br>{words}</div>'


def timestamps_html(segments: Iterable[Segment]) -> str:
    """Return a line for each segment; what was heard is text from outside, and escaped."""
    lines = (
        f"<code>{clock(start)[:-2]} – {clock(end)[:-2]}</code> {escape(text)}"
        for start, end, text in segments
    )
    return f'<div dir="auto">{"<br>".join(lines)}</div>'


def changes_html(before: str, after: str, language: str, task: str) -> str:
    """Return the difference of two transcripts: by words, or by characters where there are none."""
    spaced = task == "translate" or has_word_spaces(language)  # a translation is English
    return word_diff_html(before, after, "word" if spaced else "char")


def _write_example(folder: Path, number: int, row: Mapping[str, Any]) -> str:
    path = str(folder / f"test_{number}.wav")
    soundfile.write(path, waveform(row), SAMPLING_RATE)
    return path


@functools.cache
def private_folder() -> Path:
    """Return the folder for the files of all pages of this process, open to this user alone.

    Call it before Gradio is imported. What visitors record lies there until `utils.demo.close`, or
    until Python ends. Gradio's default, /tmp/gradio, belongs to whoever on a shared machine started
    Gradio first. It is one for all pages because parts of Gradio keep the first that they were told
    (6.31): a page opened after it was deleted would make it again, open to all.
    """
    folder = Path(tempfile.mkdtemp(prefix="whisper-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return folder


def delete_recordings() -> None:
    """Delete what lies in the private folder."""
    for path in private_folder().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def refusal(problem: object) -> "gradio.Error":
    """Return what a page raises to tell a visitor a sentence, which stays until it is closed."""
    import gradio

    return gradio.Error(str(problem), duration=None, print_exception=False)


def build_page(
    transcribers: Mapping[str, Transcriber],
    languages: Sequence[str],
    examples: Iterable[Mapping[str, Any]] = (),
    credit: str = "",
    corrections: Path | None = None,
) -> "gradio.Blocks":
    """Build the page; nothing listens until `utils.demo.launch`.

    Args:
        transcribers: two, by the name they are shown by; the second is compared with the first.
        languages: Whisper's codes, to choose from.
        examples: prepared rows to try.
        credit: whom to name for them.
        corrections: where recordings whose text was corrected are kept, a folder for each
            language; None leaves the button out.
    """
    folder = private_folder()
    import gradio  # 2 s, and only pages need it

    turn = threading.Lock()
    (first, second), hearers = transcribers, [in_turn(one, turn) for one in transcribers.values()]

    def finish(state: dict[str, Any], stopped: bool = False) -> tuple:
        """Return what is shown when there is no more to come: all outputs but the state."""
        before, after = (join(segments) for segments in state["segments"])
        spoken = after if state["task"] == "transcribe" else ""
        return (
            progress_html(state["heard"], state["total"], stopped),
            before,
            after,
            changes_html(before, after, state["language"], state["task"]),
            timestamps_html(state["segments"][1]),
            {name: write(state["segments"][1]) for name, write in FORMATS.items()},
            spoken,
        )

    def answer(path: str | None, language: str, task: str) -> Iterator[tuple]:
        try:
            samples = read_recording(path)
        except UnusableRecording as problem:
            raise refusal(problem) from None
        total = len(samples) / SAMPLING_RATE
        state = {"path": path, "language": language, "task": task, "heard": 0.0, "total": total}
        state["segments"] = [[], []]
        clean = ("", "", "", "", None, "")
        yield progress_html(0.0, total), *clean, state
        for heard, segments in hear_together(hearers, samples, language, task):
            state = {**state, "heard": heard, "segments": [list(part) for part in segments]}
            texts = map(join, segments)
            yield (
                progress_html(heard, total),
                *texts,
                "",
                timestamps_html(segments[1]),
                None,
                "",
                state,
            )
        yield *finish(state), state

    def stop(state: dict[str, Any] | None) -> tuple:
        return finish(state, stopped=True) if state else (gradio.skip(),) * 7

    def hear_on(chunk: tuple[int, np.ndarray] | None, live: Live, language: str) -> tuple:
        if chunk is not None:

            def hear(samples: np.ndarray) -> str:
                windows = hearers[1](samples, language, "transcribe")
                return join(segment for _, new in windows for segment in new)

            live = listen(live, to_mono(*chunk), hear)
        return str(live), live

    def keep(text: str, agreed: bool, state: dict[str, Any] | None) -> str:
        try:
            if not state:
                raise UnusableRecording("Transcribe a recording first.")
            if not agreed:
                raise UnusableRecording("Nothing was stored: tick the box if you agree.")
            wav = keep_recording(state["path"], text, corrections / state["language"])
        except UnusableRecording as problem:
            raise refusal(problem) from None
        return f"Stored as `{wav.name}`. Thank you."

    choices = [(LANGUAGES.get(code, code).title(), code) for code in languages]
    tasks = [("Transcribe", "transcribe"), ("Translate into English", "translate")]
    # delete_cache: recordings of visitors are removed after an hour.
    with gradio.Blocks(title="Whisper", delete_cache=(3600, 3600)) as page:
        state = gradio.State()
        gradio.Markdown(
            "# Whisper, before and after fine-tuning\nSpeak, or add a file of up to an hour."
        )
        with gradio.Row():
            language = gradio.Dropdown(choices, value=languages[0], label="Spoken language")
            task = gradio.Radio(tasks, value="transcribe", label="Task")
        audio = gradio.Audio(
            sources=["microphone", "upload"],
            type="filepath",
            label="Recording",
            buttons=[],  # one of the defaults shares the recording on the Hub
        )
        rows = list(examples)
        if rows:
            gradio.Markdown("Or a clip of the test split, on which neither model was trained:")
            with gradio.Row(elem_id="clips"):
                for number, row in enumerate(rows, 1):
                    clip = (_write_example(folder, number, row), row["language"])
                    gradio.Button(row["text"], size="sm", min_width=240).click(
                        lambda clip=clip: clip, None, [audio, language], api_visibility="private"
                    )
            gradio.Markdown(credit)
        with gradio.Row():
            start = gradio.Button("Transcribe", variant="primary", scale=3)
            halt = gradio.Button("Stop", min_width=100)
        progress = gradio.HTML(elem_id="progress")
        with gradio.Row():
            # On a phone one above the other.
            column = {"lines": 3, "max_lines": 12, "min_width": 300, "buttons": ["copy"]}
            before, after = (gradio.Textbox(label=name, **column) for name in (first, second))
        box = {"show_label": True, "container": True}
        changes = gradio.HTML(label="What changed", elem_id="changes", **box)
        times = gradio.HTML(label=f"Timestamps · {second}", elem_id="timestamps", **box)
        captions = gradio.JSON(visible=False)
        with gradio.Row():
            for kind in FORMATS:
                save = gradio.Button(f"Save {kind.upper()}", size="sm", min_width=100)
                save.click(None, captions, None, js=SAVE % {"kind": kind})
        with gradio.Accordion("Live: read while you speak", open=False):
            live = gradio.State(Live())
            microphone = gradio.Audio(
                sources=["microphone"], streaming=True, type="numpy", label="Microphone", buttons=[]
            )
            spoken = gradio.Textbox(label=f"Live · {second}", lines=3, elem_id="live")
        microphone.start_recording(
            lambda: ("", Live()), None, [spoken, live], api_visibility="private"
        )
        microphone.stream(
            hear_on,
            [microphone, live, language],
            [spoken, live],
            stream_every=1.0,
            time_limit=LIVE_SECONDS,
            # Not in the line of the models: an open microphone would hold it until it is closed.
            concurrency_limit=LIVE_SPEAKERS,
            show_progress="hidden",
            api_visibility="private",
        )
        with gradio.Accordion("That was wrong?", open=False, visible=corrections is not None):
            said = gradio.Textbox(label="What was really said", lines=2)
            agreed = gradio.Checkbox(
                label="I agree that my recording and this text are kept on this machine, to train "
                "the model with. Nothing is kept otherwise."
            )
            correct = gradio.Button("That was wrong: keep the correction")
            thanks = gradio.Markdown()
        shown = [progress, before, after, changes, times, captions, said]
        started = start.click(
            answer,
            [audio, language, task],
            [*shown, state],
            api_name="transcribe",
            concurrency_id=MODELS,
            show_progress_on=progress,
        )
        halt.click(stop, state, shown, cancels=started, queue=False, api_visibility="private")
        correct.click(keep, [said, agreed, state], thanks, api_visibility="private")
    return page
