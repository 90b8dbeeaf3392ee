"""Where a reader stands after lesson 7: the files of a run in every format, and a recording."""

import numpy as np
import pytest
import soundfile

from utils.artifacts import Run
from utils.embedded.fetch import speech
from utils.export.formats import to_ctranslate2
from utils.export.ggml import write_ggml
from utils.streaming.sound import decode_audio
from utils.training.checkpoints import save_model
from utils.whisper.audio_context import SAMPLING_RATE


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """One sentence, with "numero diverso" in it."""
    found = next(clip for clip in speech("it", "carlo").clips if clip.path.stem == "vm-calldiffnum")
    return decode_audio(found.path.read_bytes())


@pytest.fixture(scope="session")
def place(base, clip, tmp_path_factory):
    """The folder with `runs/embedded`, made from the real base model, and `speech.wav`."""
    root = tmp_path_factory.mktemp("reader")
    run = Run(root / "runs/embedded")
    save_model(*base, run.model)
    run.repository.mkdir(parents=True)
    for kind in ("float16", "int8"):
        to_ctranslate2(run.model, run.repository / f"ctranslate2-{kind}", kind)
    write_ggml(*base, run.repository / "ggml-model.bin")
    soundfile.write(root / "speech.wav", clip, SAMPLING_RATE)
    return root


@pytest.fixture(scope="session")
def exported(place) -> Run:
    """The run in that folder."""
    return Run(place / "runs/embedded")
