"""A page that transcribes with the fine-tuned Whisper in `model/`, on the CPU; also a Space's app.

`python app.py` serves it on this machine alone. On the Hub, Spaces set the address themselves.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported

import gradio
from faster_whisper import WhisperModel

HERE = Path(__file__).parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
MAX_MINUTES = 10  # longer recordings would keep all others waiting

model = WhisperModel(str(HERE / "model"), device="cpu", local_files_only=True)


def transcribe(recording: str | None, language: str) -> str:
    """Return what is said in a file, or raise a sentence that the page shows."""
    if recording is None:
        raise gradio.Error(
            "There is no recording yet: speak or add a file.", duration=None, print_exception=False
        )
    try:
        segments, info = model.transcribe(
            recording,
            language=language,
            beam_size=1,
            vad_filter=True,  # Whisper makes up words for silence: it hears none
            condition_on_previous_text=False,  # one mistake does not repeat itself to the end
        )
    except (ValueError, OSError):  # PyAV's errors are one or the other
        raise gradio.Error(
            "This file holds no readable audio.", duration=None, print_exception=False
        ) from None
    if info.duration > 60 * MAX_MINUTES:
        raise gradio.Error(
            f"At most {MAX_MINUTES} minutes at once, please.", duration=None, print_exception=False
        )
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
