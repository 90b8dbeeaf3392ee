"""Conversions: complete, small, and transcribing alike in every program, called as documented."""

import ast
import re

import numpy as np
import pytest
from datasets import Dataset

from tests.conftest import ROOT
from tests.examples import recipe
from utils.config import AudioContext
from utils.embedded.fetch import speech
from utils.export import formats, programs
from utils.export.documented import FASTER_WHISPER, SNIPPETS, is_multilingual, snippet, whisper_cli
from utils.export.measure import measure_documented, rate_programs, run_programs
from utils.streaming.sound import decode_audio
from utils.text import normalize


def test_the_model_folder_holds_what_every_program_reads(exported):
    for program, names in formats.READS.items():
        for name in names:
            assert (exported.model / name).exists(), f"{program}: {name}"


def test_int8_is_at_most_30_percent_of_float32(exported):
    whole = formats.size_mb(exported.model / "model.safetensors")
    assert formats.size_mb(exported.repository / "ctranslate2-int8") <= 0.3 * whole
    assert formats.size_mb(exported.repository / "ctranslate2-float16") <= 0.55 * whole
    assert not list(exported.repository.glob(".*"))  # nothing half-written is left


def test_every_program_writes_what_transformers_writes(exported, base, clip):
    model, processor = base
    stock = AudioContext(enabled=False)
    int8, float16 = (exported.repository / f"ctranslate2-{kind}" for kind in ("int8", "float16"))
    ggml = exported.repository / "ggml-model.bin"
    returned = run_programs(
        {
            "transformers": programs.with_transformers(model, processor),
            "float16": programs.with_faster_whisper(float16, "float32"),
            "int8": programs.with_faster_whisper(int8),
            "ctranslate2": programs.with_ctranslate2(float16, processor, stock),
            "ggml": programs.with_whisper_cpp(ggml, stock),
            "pipeline": programs.with_pipeline(model, processor),
            "documented ggml": programs.with_documented_whisper_cpp(ggml),
        },
        [clip],
        ["it"],
    )
    # Rounded to 8 bits, the model may leave out the full stop.
    texts = {name: normalize(one["texts"][0], "it") for name, one in returned.items()}
    assert "numero diverso" in texts["transformers"]
    assert set(texts.values()) == {texts["transformers"]}, texts
    assert all(one["seconds"][0] > 0 for one in returned.values())


def test_the_pipeline_stays_on_the_device_of_the_model(base, monkeypatch):
    """Left to itself it moves the model to a GPU, and a comparison on the CPU is none."""
    asked = {}
    monkeypatch.setattr(programs, "pipeline", lambda *_, **given: asked.update(given))
    programs.with_pipeline(*base)
    assert asked["device"] == base[0].device


PLACES = {
    "Transformers": "runs/embedded/model",
    "faster-whisper": "runs/embedded/export/repository/ctranslate2-int8",
    "whisper.cpp": "runs/embedded/export/repository/ggml-model.bin",
}


@pytest.mark.parametrize("program", SNIPPETS)
def test_the_handbook_shows_the_measured_call(program):
    """That it runs: test_snippets."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/using.md").read_text(), re.DOTALL)
    code = re.search(r'"?language"?[=:] ?"(\w+)"', "".join(blocks))[1]
    shown = [ast.dump(ast.parse(block)) for block in blocks]  # broken into lines or not
    assert ast.dump(ast.parse(snippet(program, PLACES[program], code))) in shown


def test_the_shell_and_the_space_make_the_documented_call():
    manual = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    code = re.search(r"whisper-cli .* -l (\w+)", manual)[1]
    assert whisper_cli(PLACES["whisper.cpp"], code) in manual
    app = (ROOT / "spaces/app.py").read_text(encoding="utf-8")
    assert "BatchedInferencePipeline(" in app and '**SETTINGS["call"]' in app
    for name in FASTER_WHISPER:
        assert f"{name}=" not in app, f"the Space has a {name} of its own"


def test_english_only_is_asked_of_the_checkpoint(tmp_path, exported):
    assert is_multilingual(exported.model)
    (tmp_path / "generation_config.json").write_text('{"is_multilingual": false}')
    (tmp_path / "config.json").write_text('{"vocab_size": 51864}')
    assert not is_multilingual(tmp_path)
    (tmp_path / "generation_config.json").write_text("{}")
    assert not is_multilingual(tmp_path)
    assert 'language="en"' in snippet("faster-whisper", "x", "de", is_multilingual=False)
    assert "generate_kwargs" not in snippet("Transformers", "x", "de", is_multilingual=False)


@pytest.mark.parametrize("program", ["faster-whisper", "whisper.cpp"])
def test_segments_are_joined_as_the_language_is_written(program):
    assert '"".join(' in snippet(program, "x", "ja") and '" ".join(' in snippet(program, "x", "it")


def test_what_is_documented_is_measured_source_by_source(rows):
    test = rows.map(lambda row: {"source": f"it {int(row['id']) % 2}", "text": "uno due"})
    found = measure_documented(lambda clip, language: "uno", {"test": test}, recipe())
    assert found.keys() == {"it 0", "it 1"}
    assert (found["it 0"]["clips"], found["it 0"]["wer"], found["it 0"]["split"]) == (
        4,
        0.5,
        "test",
    )
    assert found["it 0"]["wer_low"] < 0.5 < found["it 0"]["wer_high"]
    few = measure_documented(lambda clip, language: "", {"unseen": test}, recipe(), most=2)
    assert sum(one["clips"] for one in few.values()) == 2
    foreign = test.map(lambda row: {"language": "nl"})
    told = measure_documented(lambda clip, language: "", {"unseen": foreign}, recipe())
    assert {one["split"] for one in told.values()} == {"untrained"}, "as the evaluation calls it"


def test_several_workers_return_what_one_does(exported):
    clips = [one for one in speech("it", "carlo").clips if one.split == "dev"][:4]
    rows = [
        {"audio": decode_audio(one.path.read_bytes()), "text": one.text, "language": "it"}
        | {"source": str(number)}
        for number, one in enumerate(clips)
    ]
    rows = Dataset.from_list(rows).with_format("numpy", ["audio"], output_all_columns=True)
    one, several = (
        measure_documented(
            programs.with_faster_whisper(exported.repository / "ctranslate2-int8", workers=workers),
            {"test": rows},
            recipe(),
            workers=workers,
        )
        for workers in (1, 3)
    )
    assert one == several


def test_programs_are_judged_against_transformers_in_the_same_window():
    returned = {
        "Transformers float32, 30 s": {"texts": ["Uno, due.", "tre"], "seconds": [3.0, 1.0]},
        "Transformers float32, short": {"texts": ["uno due", "quattro"], "seconds": [1.0, 1.0]},
        "CTranslate2 int8, short": {"texts": ["uno due", "tre"], "seconds": [0.5, 0.5]},
    }
    stock, short, int8 = rate_programs(returned, ["uno due", "tre"], ["it", "it"]).values()
    same = {"differing": 0, "apart": 0.0, "clips": 2, "first_rate": "wer"}
    for one in (stock, short, int8):
        assert 0 <= one.pop("cer") < 1
    assert stock == {"wer": 0.0, "speed": 1.0, **same}
    assert short == {"wer": pytest.approx(1 / 3), "speed": 2.0, **same}
    # From "quattro" to "tre" are five edits; "uno due" and it have fourteen characters.
    other = same | {"differing": 1, "apart": pytest.approx(5 / 14)}
    assert int8 == {"wer": 0.0, "speed": 4.0, **other}


def test_programs_take_turns_and_the_first_call_does_not_count():
    calls = []

    def hearer(name):
        return lambda clip, language: calls.append(name) or name

    clips = [np.zeros(1), np.zeros(1)]
    run_programs({"a": hearer("a"), "b": hearer("b")}, clips, ["it", "it"])
    assert calls == ["a", "b"] + 2 * ["a", "b"]
