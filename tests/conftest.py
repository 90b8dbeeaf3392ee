import os

# Before any library reads them: no test asks a network beyond the package clients.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_server import Hub

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Recipes and notebooks are named from the repository's root."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def base():
    """The real Whisper base and its processor."""
    from utils.config import load_recipe
    from utils.training import load_model

    return load_model(load_recipe(ROOT / "recipes/embedded.toml"))


@pytest.fixture
def tiny_model(base):
    """A two-layer Whisper of random weights with base's vocabulary: for arithmetic, not text."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sizes = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    sizes |= dict(decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=16)
    config = WhisperConfig(**(base[0].config.to_dict() | sizes))
    return WhisperForConditionalGeneration(config)


@pytest.fixture
def wav():
    """Return a function that encodes a tone: (seconds, rate, channels, format) → bytes."""

    def encode(seconds=1.0, rate=16_000, channels=1, file_format="WAV", subtype=None, samples=None):
        if samples is None:
            time = np.arange(round(seconds * rate)) / rate
            samples = 0.3 * np.sin(2 * np.pi * 440 * time)
        samples = np.repeat(np.asarray(samples, np.float32)[:, None], channels, axis=1)
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=file_format, subtype=subtype)
        return file.getvalue()

    return encode


@pytest.fixture
def row(wav):
    """Return a function that makes a streamed row, with changes."""

    def make(**changes):
        plain = dict(text="Buongiorno a tutti.", language="it", seconds=None, source="it", id="1")
        return {"audio": wav()} | plain | changes

    return make


@pytest.fixture
def hub(tmp_path):
    """A Hub of one's own on localhost; its `run` runs a script that knows no other."""
    hub = Hub(tmp_path / "hub")
    yield hub
    hub.close()


def write_recipe(path: Path, **tables: str) -> Path:
    """Write smoke.toml to `path` with some of its tables' lines replaced."""
    text = (ROOT / "recipes/smoke.toml").read_text(encoding="utf-8")
    for old, new in tables.items():
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path
