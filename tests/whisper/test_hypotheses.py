"""What an unmodified checkpoint transcribes is decoded once, for all recipes and processes."""

import numpy as np
import pytest
import torch

from utils.whisper import hypotheses
from utils.whisper.decoding import transcribe
from utils.whisper.hypotheses import Hypotheses

NOISE = np.random.default_rng(0)
CLIPS = [NOISE.normal(0, 0.1, 8000 + 800 * n).astype(np.float32) for n in range(4)]
LANGUAGES = ["it", "it", "es", "es"]


@pytest.fixture
def opened(base, tiny_model, tmp_path, monkeypatch):
    """Return a function: opens the hypotheses of one small checkpoint in an empty cache."""
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("utils.whisper.decoding.EXTRA_TOKENS", 2)  # random weights write on
    tiny_model.generation_config = base[0].generation_config
    return lambda: Hypotheses(tiny_model, base[1])


def read(kept, clips=CLIPS, languages=LANGUAGES, **how):
    return kept.transcribe(clips, language=languages, **how)


def test_each_clip_is_decoded_once_and_the_texts_are_those_of_transcribe(opened):
    kept = opened()
    expected = transcribe(kept.model, kept.processor, CLIPS, language=LANGUAGES)
    assert read(kept, CLIPS[:3], LANGUAGES[:3]) == (expected[:3], [0, 1, 2])
    assert read(kept) == (expected, [3])
    assert read(opened()) == (expected, [])


def more_weights(kept, monkeypatch):
    with torch.no_grad():
        kept.model.get_decoder().layers[0].fc1.weight[0, 0] += 1e-3


def other_suppression(kept, monkeypatch):
    monkeypatch.setattr(kept.model.generation_config, "suppress_tokens", [5])


def other_code(kept, monkeypatch):
    monkeypatch.setattr(hypotheses, "_code", lambda: b"other")


@pytest.mark.parametrize("change", [more_weights, other_suppression, other_code])
def test_another_checkpoint_or_other_code_decodes_anew(opened, monkeypatch, change):
    kept = opened()
    read(kept)
    change(kept, monkeypatch)
    assert read(opened())[1] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "asked",
    [
        {"languages": ["fr"] * 4},
        {"task": "translate"},
        {"clips": [clip * np.float32(0.5) for clip in CLIPS]},
    ],
    ids=["language", "task", "sound"],
)
def test_another_question_is_decoded_anew(opened, asked):
    read(opened())
    assert read(opened(), **asked)[1] == [0, 1, 2, 3]


def test_two_that_write_at_once_keep_what_each_of_them_decoded(opened):
    one, other = opened(), opened()
    one._load(), other._load()
    texts = read(one, CLIPS[:2], LANGUAGES[:2])[0] + read(other, CLIPS[2:], LANGUAGES[2:])[0]
    assert read(opened()) == (texts, [])
    assert read(one) == (texts, [])  # also what the other one has written since


@pytest.mark.parametrize("damage", ["cut off", "another word", "empty", "no text", "a folder"])
def test_what_is_damaged_is_not_used_and_its_clips_are_decoded_again(opened, caplog, damage):
    texts, _ = read(opened())
    (path,) = opened().folder.glob("*")
    data = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes(
            {
                "cut off": data[: len(data) // 2],
                "another word": data.replace(b'"text": "', b'"text": "X', 1),
                "empty": b"",
                "no text": b"\xff\xfe[1]",
            }[damage]
        )
    assert read(opened()) == (texts, [0, 1, 2, 3])
    assert f"{path} is damaged and not used" in caplog.text
    if damage != "a folder":
        assert read(opened()) == (texts, [])  # written whole


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_result(opened, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder belongs", encoding="utf-8")
    kept = opened()
    assert read(kept, CLIPS[:2], LANGUAGES[:2])[1] == [0, 1]
    assert read(kept)[1] == [2, 3]
    assert caplog.text.count("cannot be kept") == 1 and "WHISPER_CACHE" in caplog.text
