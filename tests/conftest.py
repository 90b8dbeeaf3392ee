import os

# Before any library reads them: no test asks a network beyond the package clients.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import io
from fractions import Fraction
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
    from utils.whisper.load import load_model

    return load_model(load_recipe(ROOT / "recipes/embedded.toml"))


def make_tiny_model(config):
    """Return a two-layer Whisper of random weights and a vocabulary: for arithmetic, not text."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sizes = dict(encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    sizes |= dict(decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=16)
    return WhisperForConditionalGeneration(WhisperConfig(**(config.to_dict() | sizes)))


@pytest.fixture
def tiny_model(base):
    return make_tiny_model(base[0].config)


@pytest.fixture
def rows():
    """Eight short clips of noise with labels of one length."""
    from datasets import Dataset

    from utils.preprocessing.examples import PREPARED

    random = np.random.default_rng(0)
    return Dataset.from_list(
        [
            {
                "audio": random.integers(-3000, 3000, 16_000 + 1600 * number).astype(np.int16),
                "labels": [50258, 50274, 50359, 50363, *random.integers(0, 50000, 6), 50257],
                "cut_samples": [16_000 + 1600 * number],
                "cut_tokens": [6],
                "previous": [],
                "text": "rumore",
                "language": "it",
                "seconds": 1 + number / 10,
                "source": "it",
                "id": str(number),
                "start": None,
                "speaker": "",
                "recording": "",
            }
            for number in range(8)
        ],
        features=PREPARED,
    ).with_format("numpy", columns=["audio"], output_all_columns=True)


@pytest.fixture
def tiny_run(tmp_path, tiny_model, base, rows):
    """Return a function: TOML lines of [training], other tables → recipe and run, of a tiny model.

    Everything is real but the sizes: three batches an epoch, dev WER of what the model writes.
    """
    from datasets import DatasetDict

    from utils.artifacts import open_run, save_report
    from utils.config import load_recipe

    settings = base[0].generation_config
    tiny_model.generation_config = settings
    for part in (tiny_model, base[1]):
        part.save_pretrained(tmp_path / "tiny")

    def make(name="tiny", training="", tables="", runs=tmp_path / "runs"):
        path = tmp_path / f"{name}.toml"
        plain = {"max_steps": 8, "per_device_train_batch_size": 3, "learning_rate": 1e-3}
        plain |= {"logging_steps": 1, "eval_steps": 2, "save_steps": 2}
        changed = dict(line.split(" = ", 1) for line in training.splitlines())
        lines = "\n".join(f"{key} = {value}" for key, value in (plain | changed).items())
        path.write_text(
            f'[model]\ncheckpoint = "{tmp_path / "tiny"}"\n[[sources]]\ndataset = "embedded"\n'
            f'language = "it"\nname = "carlo"\n[training]\n{lines}\n{tables}\n',
            encoding="utf-8",
        )
        recipe = load_recipe(path)
        run = open_run(recipe, runs)
        DatasetDict(train=rows, dev=rows.select(range(2))).save_to_disk(str(run.prepared))
        save_report(run, "preprocessing", {})
        return recipe, run

    return make


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
def phone():
    """Return a function that encodes a tone as FFmpeg does: (container, codec, rate) → bytes."""
    import av

    def encode(container, codec, rate=16_000, seconds=1.0, pitch=440):
        file, time = io.BytesIO(), np.arange(round(seconds * rate)) / rate
        tone = (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)
        with av.open(file, "w", format=container) as box:
            stream = box.add_stream(codec, rate=rate, layout="mono")
            stream.bit_rate = 12_200 if "amr" in codec else 64_000
            for at in range(0, len(tone), rate):
                part = tone[None, at : at + rate]
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
                box.mux(stream.encode(frame))
            box.mux(stream.encode(None))
        return file.getvalue()

    return encode


@pytest.fixture
def row(wav):
    """Return a function that makes a streamed row, with changes."""

    def make(**changes):
        plain = dict(text="Buongiorno a tutti.", language="it", seconds=None, source="it", id="1")
        return {"audio": wav(), "speaker": "", "recording": ""} | plain | changes

    return make


@pytest.fixture
def hub(tmp_path):
    """A Hub of one's own on localhost; its `run` runs a script that knows no other."""
    hub = Hub(tmp_path / "hub")
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory):
    """A Hub that the tests of a file share."""
    hub = Hub(tmp_path_factory.mktemp("hub"))
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
