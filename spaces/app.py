"""A page that transcribes with the fine-tuned Whisper in `model/`, on the CPU; also a Space's app.

`python app.py` serves it on this machine alone. On the Hub, Spaces set the address themselves.
"""

import json
import os
from itertools import chain
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported

import av
import gradio
import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
MAX_MINUTES = 10  # longer recordings would keep all others waiting
RATE = 16_000  # of the samples that Whisper takes

whisper = WhisperModel(str(HERE / "model"), device="cpu", local_files_only=True)
model = BatchedInferencePipeline(whisper)


def refuse(sentence: str) -> gradio.Error:
    """Return the error that the page shows as this sentence."""
    return gradio.Error(sentence, duration=None, print_exception=False)


def read(recording: str) -> np.ndarray:
    """Return the sound of a file as float32 samples at 16 kHz, one channel.

    faster-whisper's own reader hands PyAV an argument that PyAV 19 has dropped (1.2.1).
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    pieces, length = [np.zeros(0, np.float32)], 0
    with av.open(recording) as file:
        if not file.streams.audio:
            raise ValueError("no sound in it")
        for frame in chain(file.decode(audio=0), [None]):  # None: what the resampler still holds
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray()[0])
                length += len(pieces[-1])
            if length > 60 * MAX_MINUTES * RATE:
                raise refuse(f"At most {MAX_MINUTES} minutes at once, please.")
    return np.concatenate(pieces)


def transcribe(recording: str | None, language: str) -> str:
    """Return what is said in a file, or raise a sentence that the page shows."""
    if recording is None:
        raise refuse("There is no recording yet: speak or add a file.")
    try:
        samples = read(recording)
    except gradio.Error:  # of ours; it is a ValueError, too
        raise
    except (ValueError, OSError):  # PyAV's errors are one or the other
        raise refuse("This file holds no readable audio.") from None
    # The very call that the model card documents, and whose error rate it names.
    segments, _ = model.transcribe(samples, language=language, **SETTINGS["call"])
    return " ".join(segment.text.strip() for segment in segments)


with gradio.Blocks(title=SETTINGS["title"], delete_cache=(3600, 3600)) as page:
    gradio.Markdown(f"# {SETTINGS['title']}\nSpeak, or add a file of up to {MAX_MINUTES} minutes.")
    audio = gradio.Audio(sources=["microphone", "upload"], type="filepath", label="Recording")
    choices = [(name, code) for code, name in SETTINGS["languages"].items()]
    language = gradio.Dropdown(choices, value=choices[0][1], label="Spoken language")
    button = gradio.Button("Transcribe", variant="primary")
    text = gradio.Textbox(label="Text", lines=4, buttons=["copy"])
    button.click(transcribe, [audio, language], text, api_name="transcribe")
    gradio.Markdown(SETTINGS["credit"])

if __name__ == "__main__":
    page.queue(max_size=16, default_concurrency_limit=1)
    page.launch(share=False, max_file_size="25mb", ssr_mode=False)
