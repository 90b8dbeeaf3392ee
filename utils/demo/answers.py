"""What the page answers: two models in step, live speech, and corrections that are kept."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.demo.kept import UnusableRecording, keep_recording, read_chunk, read_recording
from utils.demo.live import Live, listen
from utils.demo.shown import changes_html, progress_html, timestamps_html
from utils.text import word_gap
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.captions import FORMATS, Segment

if TYPE_CHECKING:
    import gradio

# 16 kHz samples, language code, task → after each window: seconds done, and what was said in it.
Transcriber = Callable[[np.ndarray, str, str], Iterator[tuple[float, list[Segment]]]]


def join(segments: Iterable[Segment], language: str, task: str = "transcribe") -> str:
    """Return the text of segments, without their times; a translation is English."""
    gap = " " if task == "translate" else word_gap(language)
    return gap.join(segment.text for segment in segments)


def in_turn(transcriber: Transcriber, turn: threading.Lock) -> Transcriber:
    """Return a transcriber that takes each window alone: who speaks live takes turns with it."""

    def transcribe(*asked: Any) -> Iterator[tuple[float, list[Segment]]]:
        windows = transcriber(*asked)
        while True:
            with turn:
                window = next(windows, None)
            if window is None:
                return
            yield window

    return transcribe


def transcribe_together(
    transcribers: Sequence[Transcriber], samples: np.ndarray, language: str, task: str
) -> Iterator[tuple[float, list[list[Segment]]]]:
    """Transcribe a recording with several models, whichever is behind going on.

    Yields:
        After each window, the seconds that all have done and the segments of each so far.
    """
    running = [transcribe(samples, language, task) for transcribe in transcribers]
    done, segments = [0.0] * len(running), [[] for _ in running]
    waiting = set(range(len(running)))
    while waiting:
        behind = min(waiting, key=lambda index: (done[index], index))
        window = next(running[behind], None)
        if window is None:
            waiting.remove(behind)
            continue
        done[behind] = window[0]
        segments[behind].extend(window[1])
        yield min(done), segments


def refusal(problem: object) -> "gradio.Error":
    """Return what a page raises to show a visitor a sentence, which stays until it is closed."""
    import gradio

    return gradio.Error(str(problem), duration=None, print_exception=False)


class Answers:
    """What the page's buttons call; a visitor's state stays on the server, and cannot be forged."""

    def __init__(self, transcribers: Iterable[Transcriber], corrections: Path | None):
        """Take the two models, and the folder of corrections if they may be kept."""
        turn = threading.Lock()
        self.transcribers = [in_turn(one, turn) for one in transcribers]
        self.corrections = corrections

    def transcribe(self, path: str | None, language: str, task: str) -> Iterator[tuple]:
        """Yield, window by window, what the page shows, and the visitor's state at the end."""
        try:
            if not (isinstance(language, str) and isinstance(task, str)):  # a program may send any
                raise UnusableRecording("Choose a language and a task first.")
            samples = read_recording(path)
        except UnusableRecording as problem:
            raise refusal(problem) from None
        total = len(samples) / SAMPLING_RATE
        state = {"path": path, "language": language, "task": task, "done": 0.0, "total": total}
        state["segments"] = [[], []]
        clean = ("", "", "", "", None, "")
        yield progress_html(0.0, total), *clean, state
        for done, segments in transcribe_together(self.transcribers, samples, language, task):
            state = {**state, "done": done, "segments": [list(part) for part in segments]}
            bar, times = progress_html(min(done, total - 0.1), total), timestamps_html(segments[1])
            texts = (join(part, language, task) for part in segments)
            yield bar, *texts, "", times, None, "", state
        state["done"] = total
        yield *self.finish(state), state

    def finish(self, state: dict[str, Any], stopped: bool = False) -> tuple:
        """Return what is shown when there is no more to come: all outputs but the state."""
        asked = state["language"], state["task"]
        before, after = (join(segments, *asked) for segments in state["segments"])
        return (
            progress_html(state["done"], state["total"], stopped),
            before,
            after,
            changes_html(before, after, *asked),
            timestamps_html(state["segments"][1]),
            {name: write(state["segments"][1]) for name, write in FORMATS.items()},
            after if state["task"] == "transcribe" else "",
        )

    def stop(self, state: dict[str, Any] | None) -> tuple:
        """Return what is shown of a transcription that was stopped."""
        import gradio

        return self.finish(state, stopped=True) if state else (gradio.skip(),) * 7

    def go_on(self, chunk: str | None, live: Live, language: str) -> tuple[str, Live]:
        """Return what was said until now, with one more chunk of an open microphone."""

        def transcribe(samples: np.ndarray) -> str:
            windows = self.transcribers[1](samples, language, "transcribe")
            return join((segment for _, new in windows for segment in new), language)

        try:
            live = live if chunk is None else listen(live, read_chunk(chunk), transcribe)
        except UnusableRecording as problem:
            raise refusal(problem) from None
        return str(live), live

    def keep(self, text: str, agreed: bool, state: dict[str, Any] | None) -> str:
        """Keep a recording with its corrected text, if who made it agrees."""
        try:
            if not state:
                raise UnusableRecording("Transcribe a recording first.")
            if not agreed:
                raise UnusableRecording("Nothing was stored: tick the box if you agree.")
            wav = keep_recording(state["path"], text, self.corrections / state["language"])
        except UnusableRecording as problem:
            raise refusal(problem) from None
        return f"Stored as `{wav.name}`. Thank you."
