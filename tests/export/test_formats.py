"""Conversions: complete, small, and heard alike by every program."""

import numpy as np
import pytest

from utils.config import AudioContext
from utils.embedded.fetch import speech
from utils.export import formats as export
from utils.export.ggml import write_ggml
from utils.streaming.sound import decode_audio
from utils.text import normalize
from utils.training.checkpoints import save_model


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    """The real base model, saved and converted into every format."""
    root = tmp_path_factory.mktemp("export")
    save_model(*base, root / "model")
    for kind in ("float16", "int8"):
        export.to_ctranslate2(root / "model", root / kind, kind)
    write_ggml(*base, root / "ggml-model.bin")
    return root


@pytest.fixture(scope="module")
def clip():
    found = next(clip for clip in speech("it", "carlo").clips if clip.path.stem == "vm-calldiffnum")
    return decode_audio(found.path.read_bytes())


def test_the_model_folder_holds_what_every_program_reads(folders):
    for program, names in export.READS.items():
        for name in names:
            assert (folders / "model" / name).exists(), f"{program}: {name}"


def test_int8_is_at_most_30_percent_of_float32(folders):
    whole = export.size_mb(folders / "model/model.safetensors")
    assert export.size_mb(folders / "int8") <= 0.3 * whole
    assert export.size_mb(folders / "float16") <= 0.55 * whole
    assert not list(folders.glob(".*"))  # nothing half-written is left


def test_every_program_hears_what_transformers_hears(folders, base, clip):
    model, processor = base
    programs = {
        "transformers": export.with_transformers(model, processor),
        "float16": export.with_faster_whisper(folders / "float16", "float32"),
        "int8": export.with_faster_whisper(folders / "int8"),
        "ctranslate2": export.with_ctranslate2(
            folders / "float16", processor, AudioContext(enabled=False)
        ),
        "ggml": export.with_whisper_cpp(folders / "ggml-model.bin"),
    }
    heard = export.compare(programs, [clip], ["it"])
    # Rounded to 8 bits, the model may leave out the full stop.
    texts = {name: normalize(one["texts"][0], "it") for name, one in heard.items()}
    assert "numero diverso" in texts["transformers"]
    assert set(texts.values()) == {texts["transformers"]}
    assert all(one["seconds"][0] > 0 for one in heard.values())


def test_programs_are_judged_against_transformers_in_the_same_window():
    heard = {
        "Transformers float32, 30 s": {"texts": ["Uno, due.", "tre"], "seconds": [3.0, 1.0]},
        "Transformers float32, short": {"texts": ["uno due", "quattro"], "seconds": [1.0, 1.0]},
        "CTranslate2 int8, short": {"texts": ["uno due", "tre"], "seconds": [0.5, 0.5]},
    }
    stock, short, int8 = export.judge(heard, ["uno due", "tre"], ["it", "it"]).values()
    same = {"differing": 0, "apart": 0.0, "clips": 2}
    assert stock == {"wer": 0.0, "speed": 1.0, **same}
    assert short == {"wer": pytest.approx(1 / 3), "speed": 2.0, **same}
    # From "quattro" to "tre" are five edits; "uno due" and it have fourteen characters.
    other = {"differing": 1, "apart": pytest.approx(5 / 14), "clips": 2}
    assert int8 == {"wer": 0.0, "speed": 4.0, **other}


def test_programs_take_turns_and_the_first_call_does_not_count():
    calls = []

    def hearer(name):
        return lambda clip, language: calls.append(name) or name

    clips = [np.zeros(1), np.zeros(1)]
    export.compare({"a": hearer("a"), "b": hearer("b")}, clips, ["it", "it"])
    assert calls == ["a", "b"] + 2 * ["a", "b"]
