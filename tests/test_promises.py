"""Promises that no lesson's own tests hold: the Hub is gone, FFmpeg is not there, a worker dies."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from tests.conftest import ROOT, make_tiny_model
from utils.training import __main__ as training


def python(script, environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        timeout=300,
    )


@pytest.mark.fault(13)
def test_a_checkpoint_that_is_cached_loads_while_the_hub_is_down(hub, base, tmp_path):
    for part in (make_tiny_model(base[0].config), base[1]):
        part.save_pretrained(tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}
    hub.publish("models", "org/tiny", files)
    script = """
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        WhisperProcessor.from_pretrained("org/tiny")
        print(WhisperForConditionalGeneration.from_pretrained("org/tiny").config.d_model)
    """
    environment = hub.environment(tmp_path / "home")
    for _ in range(2):
        done = python(script, environment)
        assert done.stdout.strip() == b"16", done.stderr.decode()[-2000:]
        hub.close()  # and now without it


@pytest.mark.fault(26)
@pytest.mark.parametrize("place", ["/proc/runs", "a file"])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_fetched(
    tmp_path, monkeypatch, capsys, place
):
    (tmp_path / "a file").write_text("", encoding="utf-8")
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path / "cache"))
    runs = place if place.startswith("/") else str(tmp_path / place)
    assert training.main(["recipes/smoke.toml", "--runs", runs]) == 1
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert runs in sentence and not (tmp_path / "cache").exists()


@pytest.mark.fault(27)
def test_sound_is_decoded_without_torchcodec_and_without_a_program(tmp_path, wav):
    for kind in ("WAV", "FLAC", "MP3", "OGG"):
        (tmp_path / f"a.{kind}").write_bytes(wav(file_format=kind))
    script = f"""
        import sys
        sys.modules |= dict.fromkeys(("torchcodec", "torchaudio"))  # their import fails
        from pathlib import Path
        from utils.streaming.sound import decode_audio
        print([len(decode_audio(path)) for path in sorted(Path({str(tmp_path)!r}).glob("a.*"))])
    """
    done = python(script, os.environ | {"PATH": ""})
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    lengths = json.loads(done.stdout)
    assert len(lengths) == 4 and all(abs(one - 16_000) < 1200 for one in lengths)


class Deadly(torch.utils.data.Dataset):
    """Rows that end the process that asks for one, as a kernel does that lacks memory."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        os._exit(9)


@pytest.mark.fault(28)
@pytest.mark.timeout(120)
def test_a_process_that_makes_batches_and_dies_is_an_error_and_no_hang(tiny_run, monkeypatch):
    from utils.training.run import train
    from utils.training.trainer import WhisperTrainer

    recipe, run = tiny_run("deadly", training="dataloader_num_workers = 1")
    loader = torch.utils.data.DataLoader(Deadly(), num_workers=1)
    monkeypatch.setattr(WhisperTrainer, "get_train_dataloader", lambda _: loader)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        train(recipe, run)


@pytest.mark.fault(30)
def test_files_are_utf_8_in_any_locale_and_time_zone(tmp_path):
    (tmp_path / "sentences.txt").write_text("Perché no?\nกขค\n", encoding="utf-8")
    script = f"""
        import json, sys
        from pathlib import Path
        from utils.artifacts import write_atomically
        from utils.config import load_recipe
        from utils.streaming.files import read_text
        load_recipe("recipes/smoke.toml")
        folder = Path({str(tmp_path)!r})
        text = read_text(folder / "sentences.txt")
        write_atomically(folder / "copy.txt", text)
        assert text == "Perch\\u00e9 no?\\n\\u0e01\\u0e02\\u0e04\\n", ascii(text)
    """
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"}
    done = python(script, os.environ | plain)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-2000:]
    assert (tmp_path / "copy.txt").read_bytes() == (tmp_path / "sentences.txt").read_bytes()
