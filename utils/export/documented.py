"""The call of each program that is documented: by using.md, card and Space, and by measuring it.

One place, so that what is recommended is what was measured. All decode without timestamps, as the
labels of training had none, in the window of 30 s that these programs know.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.text import word_gap

FASTER_WHISPER: Mapping[str, Any] = {
    # Removes silence, for which Whisper invents words, and cuts long recordings in their pauses.
    "vad_filter": True,
    "without_timestamps": True,
    # Its own default. With 1 nothing ends a phrase that repeats itself: two of the 118 Czech clips
    # of voices that the default was not trained on ran away.
    "beam_size": 5,
}
WHISPER_CPP: Mapping[str, Any] = {"no_timestamps": True, "print_progress": False}
TRANSFORMERS: Mapping[str, Any] = {"chunk_length_s": 30}

SNIPPETS: Mapping[str, str] = {
    "Transformers": """\
import librosa
from transformers import pipeline

transcribe = pipeline("automatic-speech-recognition", model="{model}", {options})
samples, _ = librosa.load("speech.wav", sr=16_000)
print(transcribe(samples{asked})["text"])
""",
    "faster-whisper": """\
import librosa
from faster_whisper import BatchedInferencePipeline, WhisperModel

model = BatchedInferencePipeline(WhisperModel("{model}"))
samples, _ = librosa.load("speech.wav", sr=16_000)
segments, _ = model.transcribe(samples, language="{language}", {options})
print("{gap}".join(segment.text.strip() for segment in segments))
""",
    "whisper.cpp": """\
import librosa
from pywhispercpp.model import Model

model = Model("{model}", {options})
samples, _ = librosa.load("speech.wav", sr=16_000)
segments = model.transcribe(samples, language="{language}")
print("{gap}".join(segment.text.strip() for segment in segments))
""",
}
OPTIONS = {
    "Transformers": TRANSFORMERS,
    "faster-whisper": FASTER_WHISPER,
    "whisper.cpp": WHISPER_CPP,
}


def snippet(program: str, model: str, language: str, is_multilingual: bool = True) -> str:
    """Return the Python code that transcribes `speech.wav` as it was measured.

    Args:
        program: of `SNIPPETS`.
        model: the folder, file or Hub id that the program opens.
        language: Whisper's code.
        is_multilingual: False for an English-only checkpoint, which takes no language.
    """
    options = ", ".join(f"{name}={value!r}" for name, value in OPTIONS[program].items())
    asked = f', generate_kwargs={{"language": "{language}", "task": "transcribe"}}'
    return SNIPPETS[program].format(
        model=model,
        options=options,
        gap=word_gap(language),
        language=language if is_multilingual else "en",
        asked=asked if is_multilingual else "",
    )


def whisper_cli(model: str, language: str, is_multilingual: bool = True) -> str:
    """Return the same call of whisper.cpp in a shell."""
    code = language if is_multilingual else "en"
    return f"whisper-cli -m {model} -l {code} -nt -f speech.wav"


def is_multilingual(model: Path) -> bool:
    """Tell whether a saved checkpoint has languages, as its own generation config says."""
    config = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    # Checkpoints of 2022 do not say it; English-only ones have one token less.
    vocabulary = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    return config.get("is_multilingual", vocabulary >= 51865)
