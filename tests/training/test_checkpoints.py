import errno
import json
import logging

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.environment.whole import DiskFull, fits
from utils.training.checkpoints import (
    MARKER,
    copy_checkpoints,
    damage,
    drop_old,
    find_valid_checkpoint,
    mark_complete,
    new_checkpoint,
    save_model,
    whole_checkpoints,
)


@pytest.fixture
def checkpoints(tmp_path):
    """Three whole checkpoints: 5, 10 and 100."""
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.full((64,), float(step))}, folder / "model.safetensors")
        (folder / "optimizer.pt").write_bytes(b"state" * 100)
        (folder / "trainer_state.json").write_text("{}")
        for name in ("scheduler.pt", "rng_state.pth"):
            (folder / name).write_bytes(b"state")
        mark_complete(folder)
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def zero(path):
    """What a bad disk leaves: the same size, and nothing in it."""
    path.write_bytes(bytes(path.stat().st_size))


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
        (MARKER, lambda path: path.write_text("{}")),
        (MARKER, lambda path: path.write_text("[1]")),
        *((name, zero) for name in ("model.safetensors", "optimizer.pt", "scheduler.pt")),
        *((name, zero) for name in ("rng_state.pth", "trainer_state.json")),
    ],
)
@pytest.mark.fault(3, 4)
def test_a_damaged_newest_one_is_skipped_with_a_warning_that_names_the_file(
    checkpoints, caplog, name, spoil
):
    spoil(checkpoints / "checkpoint-100" / name)
    with caplog.at_level(logging.WARNING):
        assert find_valid_checkpoint(checkpoints).name == "checkpoint-10"
    assert f"checkpoint-100/{name}" in caplog.text


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json", "scheduler.pt"])
def test_a_checkpoint_without_its_state_is_skipped_though_its_marker_agrees(
    checkpoints, caplog, name
):
    (checkpoints / "checkpoint-100" / name).unlink()
    mark_complete(checkpoints / "checkpoint-100")
    assert find_valid_checkpoint(checkpoints).name == "checkpoint-10"
    assert f"checkpoint-100/{name[:9]}" in caplog.text


def test_old_checkpoints_go_but_neither_the_newest_nor_the_best(checkpoints):
    drop_old(checkpoints, None, "checkpoint-5")
    assert len(whole_checkpoints(checkpoints)) == 3
    drop_old(checkpoints, 2, "checkpoint-5")
    assert [path.name for path in whole_checkpoints(checkpoints)] == [
        "checkpoint-5",
        "checkpoint-100",
    ]
    drop_old(checkpoints, 1, "checkpoint-0")
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-100"]


def test_a_checkpoint_that_fails_to_be_written_leaves_nothing_and_the_error_as_it_was(checkpoints):
    with pytest.raises(ZeroDivisionError), new_checkpoint(checkpoints / "checkpoint-200", 0):
        (checkpoints / "checkpoint-200" / "model.safetensors").write_bytes(b"half")
        raise ZeroDivisionError
    assert not (checkpoints / "checkpoint-200").exists()


def test_a_new_checkpoint_takes_the_place_of_a_damaged_one_and_keeps_no_pickled_arguments(
    checkpoints,
):
    folder = checkpoints / "checkpoint-100"
    cut(folder / "optimizer.pt")
    with new_checkpoint(folder, 0):
        assert list(folder.iterdir()) == []
        for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (folder / name).write_bytes(b"new")
        (folder / "training_args.bin").write_bytes(b"a pickle")
    assert find_valid_checkpoint(checkpoints) == folder
    assert not (folder / "training_args.bin").exists()


@pytest.mark.fault(5)
def test_a_checkpoint_larger_than_the_disk_is_refused_before_it_is_written(checkpoints):
    with (
        pytest.raises(
            DiskFull, match=r"1,125,899,906,842,624 bytes are needed.*checkpoint-100 is whole"
        ),
        new_checkpoint(checkpoints / "checkpoint-200", 2**50),
    ):
        pytest.fail("the block ran")
    assert not (checkpoints / "checkpoint-200").exists()


def test_copies_appear_whole_and_follow_their_source(checkpoints, tmp_path_factory):
    goal = tmp_path_factory.mktemp("drive") / "checkpoints"
    cut(checkpoints / "checkpoint-10" / "optimizer.pt")
    copy_checkpoints(checkpoints, goal)
    assert sorted(path.name for path in goal.iterdir()) == ["checkpoint-100", "checkpoint-5"]
    cut(goal / "checkpoint-100" / "optimizer.pt")  # a copy that was damaged is made again
    drop_old(checkpoints, 1, "checkpoint-0")
    copy_checkpoints(checkpoints, goal)
    assert [path.name for path in goal.iterdir()] == ["checkpoint-100"]
    assert find_valid_checkpoint(goal).name == "checkpoint-100"


def test_a_copy_that_fails_leaves_nothing_half_and_names_both_places(
    checkpoints, tmp_path_factory, monkeypatch
):
    goal = tmp_path_factory.mktemp("drive")

    def full(source, partial):
        partial.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(DiskFull, match=f"checkpoint-5 is whole, but .* to {goal}: .*No space"):
        copy_checkpoints(checkpoints, goal)
    assert list(goal.iterdir()) == []


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
    processor = WhisperProcessor.from_pretrained(tmp_path / "model")
    assert processor.tokenizer.extra_special_tokens == base[1].tokenizer.extra_special_tokens
    config = json.loads((tmp_path / "model/tokenizer_config.json").read_text(encoding="utf-8"))
    assert not isinstance(config.get("extra_special_tokens"), list), "Transformers 4 fails at it"
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1, "the weights are for their owner alone"


def test_a_save_that_fails_leaves_the_old_model_as_it_was(tiny_model, base, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    save_model(tiny_model, base[1], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(base[1], "save_pretrained", full_disk)
    with pytest.raises(DiskFull, match="bytes are needed"):
        save_model(tiny_model, base[1], folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.fault(5)
def test_a_quota_that_the_system_does_not_show_says_what_is_needed_and_free(tmp_path, error):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/part").write_bytes(bytes(1234))
    sentence = r"model does not fit: more than 1,234 .* free .* quota"
    with pytest.raises(DiskFull, match=sentence), fits(tmp_path / "model"):
        raise error


def test_an_error_that_is_not_the_disk_s_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match=r"^other$"), fits(tmp_path):
        raise RuntimeError("other")
