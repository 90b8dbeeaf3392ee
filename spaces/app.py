"""A page that transcribes with the fine-tuned Whisper in `model/`, on the CPU; also a Space's app.

`python app.py` serves it on this machine alone. On the Hub, Spaces set the address themselves.
"""

import json
import os
import sys
from itertools import chain
from pathlib import Path

sys.dont_write_bytecode = True  # it names this folder, and would be uploaded with it

from guard import (
    FRAMED_BY,
    LOOPBACK,
    Guard,
    ask_without_proxy,
    end_on_signals,
    patient,
    private_folder,
)

ask_without_proxy()
private_folder()  # its variables are read when Gradio is imported

import av
import gradio
import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from starlette.middleware import Middleware

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
MAX_MINUTES = 10  # longer recordings would keep all others waiting
MAX_UPLOAD = 25 * 2**20  # bytes
RATE = 16_000  # Hz, what Whisper takes
# What FFmpeg may open. Not all that it knows: a playlist would have it open other files of this
# machine, or of the network.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,amr,amrnb,amrwb,asf,asf_o,avi,flv,mpeg,mpegts,mp3,"
    "ogg,wav,w64,flac,caf,aiff,au,ac3,eac3,dts,ape,tta,wv,mpc,mpc8,nistsphere,voc,xwma,gsm,rm,dsf"
)
ON_THE_HUB = "SPACE_ID" in os.environ  # which looks at the Host, and frames the page

whisper = WhisperModel(str(HERE / "model"), device="cpu", local_files_only=True)
model = BatchedInferencePipeline(whisper)


def refuse(sentence: str) -> gradio.Error:
    """Return what shows a visitor a sentence until it is closed."""
    return gradio.Error(sentence, duration=None, print_exception=False)


def read(path: str) -> np.ndarray:
    """Return a recording at 16 kHz, mono, and never hold more than is allowed.

    faster-whisper's own reader hands PyAV an argument that PyAV 19 has dropped (1.2.1), and opens
    whatever FFmpeg knows. Half a megabyte of FLAC holds hours of silence, and a header may name any
    rate and length.
    """
    parts, left = [], 60 * MAX_MINUTES * RATE
    # A file and not a path: FFmpeg itself opens nothing, whatever stands in it.
    with (
        open(path, "rb") as file,
        av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="ignore") as box,
    ):
        stream = box.streams.best("audio")
        if stream is None:
            raise ValueError("no stream of it is audio")
        stream.codec_context.options = {"max_samples": str(2**22)}  # of one frame
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        for frame in chain(box.decode(stream), [None]):  # None: what the resampler still holds
            if frame and not (
                1_000 <= frame.sample_rate <= 1_000_000 and frame.layout.nb_channels < 33
            ):
                raise ValueError("no recording has that rate, or so many channels")
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray()[0])
                left -= piece.samples
                if left < 0:
                    raise refuse(f"At most {MAX_MINUTES} minutes at once, please.")
    samples = np.concatenate(parts)  # a ValueError where there is none
    if not np.isfinite(samples).all():
        raise ValueError("it holds samples that are no numbers")
    return samples


def transcribe(recording: str | None, language: str) -> str:
    """Return what is said in a file, or raise a sentence that the page shows."""
    if recording is None:
        raise refuse("There is no recording yet: speak or add a file.")
    if language not in SETTINGS["languages"]:  # a program may send anything
        raise refuse("Choose a language first.")
    try:
        samples = read(recording)
    except gradio.Error:  # of ours; it is a ValueError, too
        raise
    except (ValueError, OSError, MemoryError):  # PyAV's errors are one of them
        raise refuse("This file holds no readable audio.") from None
    # The very call that the model card documents, and whose error rate it names.
    segments, _ = model.transcribe(samples, language=language, **SETTINGS["call"])
    return SETTINGS["gaps"][language].join(segment.text.strip() for segment in segments)


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
    end_on_signals()
    guard = Middleware(
        Guard,
        hosts=[".hf.space"] if ON_THE_HUB else [*LOOPBACK],
        max_upload=MAX_UPLOAD,
        framed_by="'self' https://huggingface.co https://*.hf.space" if ON_THE_HUB else FRAMED_BY,
        is_host_checked=not ON_THE_HUB,
    )
    page.queue(max_size=16, default_concurrency_limit=1)
    page.launch(
        share=False,
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        prevent_thread_lock=True,
        css="textarea {unicode-bidi: plaintext; text-align: start}",  # Arabic from the right
        app_kwargs={"middleware": [guard]},
    )
    settings = page.server.config
    settings.http_protocol_class = patient(settings.http_protocol_class)
    page.block_thread()
