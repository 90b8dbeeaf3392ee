"""The conversion from CTranslate2 is exact: exported again, it gives back the published files."""

import hashlib
import json
import logging
import shutil
import struct
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pytest

from utils.embedded import carried, conversion
from utils.embedded import fetch as embedded
from utils.embedded.conversion import read_ct2

MODELS = {"whisper-base": 51865, "whisper-tiny.en": 51864}


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(name):
    return embedded.resolve(f"embedded/{name}")


@pytest.fixture(scope="module")
def model(checkpoint):
    import torch
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)


@pytest.fixture(scope="module")
def processor(checkpoint):
    from transformers import WhisperProcessor

    return WhisperProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    from ctranslate2.converters import TransformersConverter

    folder = tmp_path_factory.mktemp("export") / "model"
    TransformersConverter(checkpoint).convert(str(folder), quantization="float16")
    yield folder
    shutil.rmtree(folder)  # 145 MB


def write_ct2(arrays: dict[str, np.ndarray], aliases: dict[str, str]) -> bytes:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = [struct.pack("<I", 6), string("WhisperSpec"), struct.pack("<II", 3, len(arrays))]
    codes = {np.dtype(dtype): code for code, dtype in conversion._DTYPES.items()}
    for name, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        head = struct.pack("<BI", codes[array.dtype], array.nbytes)
        out += [string(name), shape, head, array.tobytes()]
    out.append(struct.pack("<I", len(aliases)))
    return b"".join([*out, *(string(a) + string(b) for a, b in aliases.items())])


def test_exporting_again_gives_back_the_published_arrays_byte_by_byte(name, exported):
    arrays = read_ct2((exported / "model.bin").read_bytes())
    # The one alias: the output layer is the embedding. Stacked q, k, v, and the zero bias of k that
    # the conversion leaves out, are CTranslate2's own doing: it must stack them the same again.
    assert arrays.pop("decoder/projection/weight") is arrays["decoder/embeddings/weight"]
    # Newer converters note two more flags, which the published file has not.
    for flag in ("decoder/alibi_use_positive_positions", "decoder/scale_alibi"):
        arrays.pop(flag, None)
    again = write_ct2(arrays, {"decoder/projection/weight": "decoder/embeddings/weight"})
    assert hashlib.sha256(again).hexdigest() == carried.MODELS[name].files["model.bin"][1]


def test_exporting_again_gives_back_the_published_vocabulary(name, exported):
    tokens = json.loads((exported / "vocabulary.json").read_text(encoding="utf-8"))
    text = "".join(f"{token}\n" for token in tokens)
    published = carried.MODELS[name].files["vocabulary.txt"][1]
    assert hashlib.sha256(text.encode()).hexdigest() == published


# Base alone: the lang_ids that tiny.en's file lists are off by one, and mean nothing to it.
@pytest.mark.parametrize("name", ["whisper-base"], indirect=True)
def test_exporting_base_again_gives_back_its_languages_suppressed_tokens_and_heads(name, exported):
    got = hashlib.sha256((exported / "config.json").read_bytes()).hexdigest()
    assert got == carried.MODELS[name].files["config.json"][1]


def test_no_parameter_is_missing_or_left_over(checkpoint):
    from transformers import WhisperForConditionalGeneration

    _, info = WhisperForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert set(info) >= {"missing_keys", "unexpected_keys", "mismatched_keys"}
    assert not any(info.values()), info


def test_logits_span_the_vocabulary(name, model):
    import torch

    with torch.no_grad():
        features = torch.zeros(1, model.config.num_mel_bins, 3000)
        start = torch.tensor([[model.config.decoder_start_token_id]])
        logits = model(input_features=features, decoder_input_ids=start).logits
    assert logits.shape == (1, 1, MODELS[name])
    assert torch.isfinite(logits).all()


def test_generation_config_keeps_its_languages(name, model, processor):
    generation, tokenizer = model.generation_config, processor.tokenizer
    assert generation.max_length == 448
    assert generation.no_timestamps_token_id == tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    assert generation.begin_suppress_tokens == [220, tokenizer.eos_token_id]
    assert generation.is_multilingual is (name == "whisper-base")
    if generation.is_multilingual:
        assert len(generation.lang_to_id) == 99
        assert generation.lang_to_id["<|it|>"] == 50274
        assert generation.task_to_id == {"transcribe": 50359, "translate": 50358}
    else:
        assert not hasattr(generation, "lang_to_id")


@pytest.mark.parametrize(
    "text", ["Perché no? È così.", " नमस्ते दुनिया", "こんにちは", "Здравствуй, мир!", "ที่นี่", "  a  b"]
)
def test_tokenizer_gives_back_text_in_every_script(processor, text):
    ids = processor.tokenizer(text, add_special_tokens=False).input_ids
    assert processor.tokenizer.decode(ids) == text


def test_tokenizer_has_the_timestamps(name, processor):
    tokenizer = processor.tokenizer
    first = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    assert len(tokenizer) == MODELS[name]
    assert tokenizer.timestamp_ids() == list(range(first, MODELS[name]))
    text = tokenizer.decode([first, 34, first + 50], decode_with_timestamps=True)
    assert (text.startswith("<|0.00|>"), text.endswith("<|1.00|>")) == (True, True)
    assert tokenizer.decode([first, first + 50], skip_special_tokens=True) == ""


def test_labels_have_the_prefix_of_their_language(name, processor):
    if name == "whisper-tiny.en":  # English-only: no language, no task
        assert processor.tokenizer("").input_ids == [50257, 50362, 50256]
    else:
        processor.tokenizer.set_prefix_tokens(language="it", task="transcribe")
        assert processor.tokenizer("").input_ids == [50258, 50274, 50359, 50363, 50257]


def test_every_runtime_finds_its_feature_extractor(checkpoint):
    for file in ("preprocessor_config.json", "processor_config.json"):
        text = (Path(checkpoint) / file).read_text(encoding="utf-8")
        assert '"feature_size": 80' in text


def test_a_real_clip_is_transcribed(name, model, processor):
    import librosa
    import soundfile

    who, prompt, options = {
        "whisper-base": (("it", "carlo"), "vm-sorry", {"language": "it", "task": "transcribe"}),
        "whisper-tiny.en": (("en", "allison"), "vm-sorry", {}),
    }[name]
    clips = {clip.id.split("/")[-1]: clip for clip in embedded.speech(*who).clips}
    samples, rate = soundfile.read(clips[prompt].path, dtype="float32")
    samples = librosa.resample(samples, orig_sr=rate, target_sr=16000)
    features = processor(samples, sampling_rate=16000, return_tensors="pt").input_features

    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    ids = model.generate(features, **options)
    logger.removeHandler(handler)
    text = processor.batch_decode(ids, skip_special_tokens=True)[0]
    assert SequenceMatcher(None, text.strip().lower(), clips[prompt].text.lower()).ratio() > 0.8
    assert not [line for line in said if "outdated" in line]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-3], "not readable|left over"),
        (lambda data: data[:60], "not readable"),
        (lambda data: data + b"\0", "1 bytes left over"),
        (lambda data: struct.pack("<I", 5) + data[4:], "format version 5"),
    ],
)
def test_read_ct2_refuses_a_damaged_file(damage, says):
    arrays = {"a": np.arange(6, dtype="<f2").reshape(2, 3), "n": np.array(8, dtype="<i2")}
    data = write_ct2(arrays, {"b": "a"})
    read = read_ct2(data)
    assert (read["a"] == arrays["a"]).all()
    assert (read["n"], read["b"] is read["a"]) == (8, True)
    with pytest.raises(ValueError, match=says):
        read_ct2(damage(data))
