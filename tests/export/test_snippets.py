"""The documented code, run as it is printed: each snippet transcribes a recording.

The card shows the same, from utils.export.documented: see test_hub and test_formats.
"""

import contextlib
import importlib.util
import io
import json
import re
import shutil

import pytest
import soundfile

from tests.conftest import ROOT
from utils.export.documented import FASTER_WHISPER
from utils.whisper.audio_context import SAMPLING_RATE

PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
USING = (ROOT / "docs/using.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", PYTHON.findall(USING))
def test_a_documented_snippet_transcribes(code, place, monkeypatch):
    monkeypatch.chdir(place)
    said = io.StringIO()
    code = code.replace('"cs"', '"it"')  # of the recording here
    with contextlib.redirect_stdout(said):
        exec(compile(code, "snippet", "exec"), {})
    assert "numero diverso" in said.getvalue().lower()


@pytest.fixture(scope="module")
def app(exported, tmp_path_factory):
    """The page of lesson 7, as its folder is staged."""
    page = tmp_path_factory.mktemp("space") / "page"
    shutil.copytree(exported.repository / "ctranslate2-int8", page / "model")
    settings = {
        "title": "t",
        "languages": {"it": "Italian"},
        "gaps": {"it": " "},
        "credit": "",
        "call": dict(FASTER_WHISPER),
    }
    (page / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    for file in ("spaces/app.py", "utils/demo/guard.py"):
        shutil.copy(ROOT / file, page)
    spec = importlib.util.spec_from_file_location("space_app", page / "app.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(page)  # as `python app.py` in the folder has it
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg"])
def test_the_page_transcribes_files_of_each_kind(app, clip, tmp_path, ending):
    soundfile.write(tmp_path / f"speech.{ending}", clip, SAMPLING_RATE)
    assert "numero diverso" in app.transcribe(str(tmp_path / f"speech.{ending}"), "it").lower()


def test_the_page_reads_what_a_phone_or_a_browser_records(app, phone, tmp_path):
    for name, how in {
        "memo.m4a": ("ipod", "aac"),
        "live.webm": ("webm", "libopus", 48_000),
    }.items():
        (tmp_path / name).write_bytes(phone(*how))
        assert len(app.read(str(tmp_path / name))) == pytest.approx(16_000, abs=1_100)


def test_the_page_refuses_what_is_no_recording_or_too_long(app, tmp_path, monkeypatch):
    import gradio

    (tmp_path / "notes.wav").write_bytes(b"no sound")
    monkeypatch.setattr(app, "MAX_MINUTES", 0.01)
    soundfile.write(tmp_path / "long.wav", [0.0] * 16_000, 16_000)
    for recording, sentence in [
        (None, "no recording yet"),
        (str(tmp_path / "notes.wav"), "no readable audio"),
        (str(tmp_path / "long.wav"), "At most"),
    ]:
        with pytest.raises(gradio.Error, match=sentence):
            app.transcribe(recording, "it")


def test_whoever_installs_faster_whisper_is_told_which_pyav():
    """PyAV 19 lacks an argument with which faster-whisper 1.2.1 opens files."""
    assert "pip install faster-whisper 'av<19'" in USING
    assert re.search(r"^av[>=<\d.,]*<19", (ROOT / "requirements.txt").read_text("utf-8"), re.M)
    assert '"av"' in (ROOT / "utils/export/space.py").read_text("utf-8")
