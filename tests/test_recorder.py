"""Reading aloud: sentences in order, kept as a folder that is then a source like any other."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from utils.config import Source
from utils.demo import serve as demo
from utils.recorder import build_recorder, sentences_left
from utils.streaming.sources import stream

SENTENCES = ["Il primo.", "  Il   secondo. ", "", "Il primo.", "Il terzo."]


@pytest.fixture
def client(tmp_path):
    page = build_recorder(SENTENCES, tmp_path / "mine")
    yield Client(demo.launch(page), verbose=False, analytics_enabled=False)
    demo.close(page)


def speak(tmp_path, number, level=0.2):
    path = tmp_path / f"{number}.wav"
    tone = level * np.sin(np.arange(32_000) * (number + 1) / 30)
    soundfile.write(path, tone.astype(np.float32), 16_000)
    return handle_file(str(path))


def test_what_is_read_becomes_a_source_that_streams(client, tmp_path):
    shown = [
        client.predict(speak(tmp_path, number), text, api_name="/keep")
        for number, text in enumerate(["Il primo.", "Il secondo, invece."])
    ]
    assert [place for place, *_ in shown] == ["Sentence 2 of 3", "Sentence 3 of 3"]
    assert [text for _, text, *_ in shown] == ["Il secondo.", "Il terzo."]
    said = {"Il primo.", "Il secondo, invece."}
    rows = stream(Source("recordings", "it", str(tmp_path / "mine")), "test+train")
    assert {row["text"] for row in rows} == said
    assert sentences_left(SENTENCES, tmp_path / "mine") == ["Il secondo.", "Il terzo."]


def test_an_unusable_recording_is_refused_in_a_sentence_and_not_kept(client, tmp_path):
    with pytest.raises(AppError, match="silent"):
        client.predict(speak(tmp_path, 1, level=0), "Il primo.", api_name="/keep")
    with pytest.raises(AppError, match="Write what was said"):
        client.predict(speak(tmp_path, 1), " ", api_name="/keep")
    assert not (tmp_path / "mine/metadata.jsonl").exists()


@pytest.mark.parametrize("text", [None, "\n \n"], ids=["no file", "no sentence"])
def test_the_command_says_in_one_sentence_what_is_missing(tmp_path, text):
    path = tmp_path / "sentences.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "utils.recorder", str(path), str(tmp_path / "mine")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and "sentences.txt" in done.stderr
