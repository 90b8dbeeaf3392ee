import logging

import pytest
import torch
from safetensors.torch import save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.checkpoints import MARKER, damage, find_valid_checkpoint, mark_complete, save_model


@pytest.fixture
def checkpoints(tmp_path):
    """Three whole checkpoints: 5, 10 and 100."""
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.full((64,), float(step))}, folder / "model.safetensors")
        (folder / "optimizer.pt").write_bytes(b"state" * 100)
        (folder / "trainer_state.json").write_text("{}")
        mark_complete(folder)
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def test_the_newest_is_found_by_number_not_by_name(checkpoints):
    assert find_valid_checkpoint(checkpoints).name == "checkpoint-100"


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("model.safetensors", cut),
        ("optimizer.pt", cut),
        ("optimizer.pt", lambda path: path.unlink()),
        ("trainer_state.json", lambda path: path.unlink()),
        (MARKER, lambda path: path.unlink()),
        (MARKER, cut),
    ],
)
def test_a_damaged_newest_one_is_skipped_with_a_warning_that_names_the_file(
    checkpoints, caplog, name, spoil
):
    spoil(checkpoints / "checkpoint-100" / name)
    with caplog.at_level(logging.WARNING):
        assert find_valid_checkpoint(checkpoints).name == "checkpoint-10"
    assert f"checkpoint-100/{name}" in caplog.text


def test_bytes_that_are_no_weights_are_noticed_though_the_size_is_right(checkpoints):
    path = checkpoints / "checkpoint-100" / "model.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert "cannot be read" in damage(path.parent)


def test_nothing_whole_means_none(checkpoints, tmp_path_factory):
    for folder in checkpoints.glob("checkpoint-*"):
        (folder / MARKER).unlink()
    assert find_valid_checkpoint(checkpoints) is None
    assert find_valid_checkpoint(tmp_path_factory.mktemp("empty")) is None


def test_a_saved_model_has_every_file_that_a_runtime_needs_and_no_pickle(
    tiny_model, base, tmp_path
):
    save_model(tiny_model, base[1], tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names >= {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "processor_config.json", "preprocessor_config.json"),
        *("vocab.json", "merges.txt", "added_tokens.json"),
    }
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert damage(tmp_path / "model") == ""
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert all(
        torch.equal(value, tiny_model.state_dict()[name])
        for name, value in loaded.state_dict().items()
    )
    WhisperProcessor.from_pretrained(tmp_path / "model")


def test_a_save_that_fails_leaves_the_old_model_as_it_was(tiny_model, base, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save_model(tiny_model, base[1], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base[1], "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(tiny_model, base[1], folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
