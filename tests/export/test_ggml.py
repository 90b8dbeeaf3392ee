"""The ggml file: header, tokens and tensors as whisper.cpp's layout has them."""

import struct

import numpy as np
import pytest

from utils.export.ggml import openai_name, write_ggml


def read(path):
    """Read a ggml file by its documented layout, independently of the writer."""
    data, at = path.read_bytes(), 0

    def numbers(count, code="i"):
        nonlocal at
        values = struct.unpack_from(f"<{count}{code}", data, at)
        at += 4 * count
        return values

    def raw(size):
        nonlocal at
        at += size
        return data[at - size : at]

    (magic,), sizes, (mels, bins) = numbers(1, "I"), numbers(11), numbers(2)
    filters = np.frombuffer(raw(4 * mels * bins), "<f4").reshape(mels, bins)
    tokens = [raw(numbers(1)[0]) for _ in range(numbers(1)[0])]
    tensors = {}
    while at < len(data):
        rank, length, kind = numbers(3)
        shape, name = numbers(rank)[::-1], raw(length).decode()
        dtype = np.dtype(("<f4", "<f2")[kind])
        tensors[name] = np.frombuffer(raw(dtype.itemsize * int(np.prod(shape))), dtype)
        tensors[name] = tensors[name].reshape(shape)
    return magic, sizes, filters, tokens, tensors


@pytest.fixture
def written(tiny_model, base, tmp_path):
    path = tmp_path / "ggml-model.bin"
    write_ggml(tiny_model, base[1], path)
    return path


def test_header_filters_and_tokens(written, base):
    magic, sizes, filters, tokens, _ = read(written)
    assert magic == int.from_bytes(b"ggml", "big")
    assert sizes == (51865, 1500, 16, 2, 1, 448, 16, 2, 1, 80, 1)
    assert np.allclose(filters, base[1].feature_extractor.mel_filters.T)
    assert len(tokens) == 50257  # the text ones: whisper.cpp numbers the special ones itself
    ids = base[1].tokenizer("perché 你好", add_special_tokens=False).input_ids
    assert b"".join(tokens[i] for i in ids).decode() == "perché 你好"


def test_every_weight_is_there_once_under_openais_name_in_the_type_that_is_expected(
    written, tiny_model
):
    tensors = read(written)[-1]
    parameters = dict(tiny_model.named_parameters())
    assert len(tensors) == len(parameters)
    for name, weight in parameters.items():
        found = tensors[openai_name(name)]
        assert np.allclose(found.squeeze(), weight.detach().numpy().squeeze(), atol=1e-3), name
    half = {name for name, array in tensors.items() if array.dtype == np.float16}
    assert {"encoder.conv1.weight", "decoder.blocks.0.cross_attn.query.weight"} <= half
    assert not half & {"encoder.positional_embedding", "decoder.ln.bias", "encoder.conv1.bias"}
    assert tensors["encoder.conv1.bias"].shape == (16, 1)


def test_rows_that_somebody_added_to_the_vocabulary_are_left_out(tiny_model, base, tmp_path):
    tiny_model.resize_token_embeddings(51872)
    write_ggml(tiny_model, base[1], tmp_path / "ggml-model.bin")
    _, sizes, *_, tensors = read(tmp_path / "ggml-model.bin")
    assert sizes[0] == len(tensors["decoder.token_embedding.weight"]) == 51865


def test_a_write_that_fails_leaves_no_file(tiny_model, base, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("utils.export.ggml._write_tensor", fail)
    with pytest.raises(OSError):
        write_ggml(tiny_model, base[1], tmp_path / "ggml-model.bin")
    assert list(tmp_path.iterdir()) == []
