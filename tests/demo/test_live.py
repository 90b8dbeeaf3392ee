"""Live speech: transcribed while it is spoken, kept at pauses, and not where there is none."""

import numpy as np

from utils.demo.live import LONGEST_SECONDS, Live, listen

SECOND = np.sin(np.arange(16_000) / 16_000 * 440 * 2 * np.pi).astype(np.float32) / 4
SILENT = np.zeros(16_000, np.float32)


def speak(*chunks):
    """Return what is live after some chunks, and the seconds that were transcribed each time."""
    asked, live = [], Live()

    def transcribe(samples):
        asked.append(len(samples) / 16_000)
        return f"{asked[-1]:.0f} s"

    for chunk in chunks:
        live = listen(live, chunk, transcribe)
    return live, asked


def test_speech_is_heard_every_three_seconds_and_what_is_shown_grows():
    live, asked = speak(*[SECOND] * 7)
    assert asked == [3.0, 6.0]
    assert str(live) == "6 s"


def test_a_pause_ends_a_sentence_which_then_stays():
    live, asked = speak(SECOND, SECOND, SILENT, SECOND, SECOND, SECOND)
    assert asked == [3.0, 3.0]
    assert live.done == ("3 s",) and str(live) == "3 s 3 s"


def test_no_window_grows_past_what_the_model_hears():
    live, asked = speak(*[SECOND] * 60)
    assert max(asked) <= LONGEST_SECONDS + 1
    assert len(live.done) == 2


def test_silence_is_not_heard():
    live, asked = speak(*[SILENT] * 10)
    assert asked == [] and str(live) == "" and not len(live.samples)
