"""CTranslate2's `model.bin` → an ordinary Whisper folder of Transformers, value by value."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig, WhisperTokenizer

# CTranslate2's name of a sublayer, Transformers' names of its linear layers, and of its norm.
_SELF = (
    "self_attention",
    ("self_attn.q_proj k_proj v_proj", "self_attn.out_proj"),
    "self_attn_layer_norm",
)
_CROSS = (
    "attention",
    ("encoder_attn.q_proj", "encoder_attn.k_proj v_proj", "encoder_attn.out_proj"),
    "encoder_attn_layer_norm",
)
_FFN = ("ffn", ("fc1", "fc2"), "final_layer_norm")
_SUBLAYERS = {"encoder": (_SELF, _FFN), "decoder": (_SELF, _CROSS, _FFN)}

_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


def read_ct2(data: bytes | memoryview) -> dict[str, np.ndarray]:
    """Read the variables of a CTranslate2 `model.bin`.

    Layout, little-endian: uint32 version, str spec, uint32 revision, uint32 n; per variable str
    name, uint8 rank, uint32 dims[rank], uint8 dtype, uint32 bytes, data; then uint32 n and per
    alias str name, str target. A str is uint16 length, then bytes ending in NUL.

    Returns:
        name -> read-only array (a view into `data`); an alias is the very array it refers to.

    Raises:
        ValueError: a different format version, or bytes missing or left over.
    """
    data, at = memoryview(data), 0

    def number(code: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{code}", data, at)
        at += struct.calcsize(code)
        return value

    def string() -> str:
        nonlocal at
        length = number("H")
        at += length
        return bytes(data[at - length : at - 1]).decode()

    try:
        version, _spec, _revision = number("I"), string(), number("I")
        if version != 6:
            raise ValueError(f"model.bin has format version {version}; 6 is known here")
        arrays = {}
        for _ in range(number("I")):
            name = string()
            shape = [number("I") for _ in range(number("B"))]
            dtype, size = np.dtype(_DTYPES[number("B")]), number("I")
            arrays[name] = np.frombuffer(data[at : at + size], dtype).reshape(shape)
            at += size
        for _ in range(number("I")):
            alias, target = string(), string()
            arrays[alias] = arrays[target]
    except (struct.error, KeyError) as error:
        raise ValueError(f"model.bin is not readable at byte {at}: {error!r}") from None
    if at != len(data):
        raise ValueError(f"model.bin has {len(data) - at} bytes left over")
    return arrays


def to_state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename CTranslate2's variables to Transformers' parameters; no value changes.

    CTranslate2 stacks linear layers with the same input: self-attention's `linear_0` is q, k, v
    and cross-attention's `linear_1` is k, v (its `linear_0` is q). Whisper's k has no bias, so the
    zeros in its place are left out.
    """
    state = {
        "model.encoder.conv1.weight": arrays["encoder/conv1/weight"],
        "model.encoder.conv1.bias": arrays["encoder/conv1/bias"],
        "model.encoder.conv2.weight": arrays["encoder/conv2/weight"],
        "model.encoder.conv2.bias": arrays["encoder/conv2/bias"],
        "model.decoder.embed_tokens.weight": arrays["decoder/embeddings/weight"],
    }

    def linear(source: str, prefix: str, *targets: str) -> None:
        for kind in ("weight", "bias"):
            parts = np.split(arrays[f"{source}/{kind}"], len(targets))
            for target, part in zip(targets, parts, strict=True):
                if not (target == "k_proj" and kind == "bias"):
                    state[f"{prefix}.{target}.{kind}"] = part
                elif part.any():
                    raise ValueError(f"{source}: k has a bias, which Whisper's has not")

    def norm(source: str, target: str) -> None:
        state[f"{target}.weight"] = arrays[f"{source}/layer_norm/gamma"]
        state[f"{target}.bias"] = arrays[f"{source}/layer_norm/beta"]

    for side, sublayers in _SUBLAYERS.items():
        encodings = arrays[f"{side}/position_encodings/encodings"]
        state[f"model.{side}.embed_positions.weight"] = encodings
        norm(side, f"model.{side}.layer_norm")
        for number in range(_layers(arrays, side)):
            source, target = f"{side}/layer_{number}", f"model.{side}.layers.{number}"
            for ours, linears, norm_name in sublayers:
                for place, targets in enumerate(linears):
                    at, _, names = f"{target}.{targets}".rpartition(".")
                    linear(f"{source}/{ours}/linear_{place}", at, *names.split())
                norm(f"{source}/{ours}", f"{target}.{norm_name}")
    return state


def _layers(arrays: Mapping[str, np.ndarray], side: str) -> int:
    names = (name.split("/") for name in arrays)
    return len({name[1] for name in names if name[0] == side and "ffn" in name})


def convert(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a CTranslate2 Whisper as a Transformers checkpoint: model (fp16) and processor.

    Args:
        files: the contents of model.bin, config.json and tokenizer.json.
        folder: an empty one.
    """
    from safetensors.numpy import save
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    arrays, carried = read_ct2(files["model.bin"]), json.loads(files["config.json"])
    tokenizer = _tokenizer(json.loads(files["tokenizer.json"]))
    vocabulary = len(arrays["decoder/embeddings/weight"])
    if len(tokenizer) != vocabulary:
        raise ValueError(f"{len(tokenizer)} tokens, but {vocabulary} rows in the embedding")
    ids = tokenizer.get_vocab()
    special = {
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), ids["<|endoftext|>"]),
        "decoder_start_token_id": ids["<|startoftranscript|>"],
    }
    config = _config(arrays, special)
    weights = save(to_state_dict(arrays), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(weights)
    config.save_pretrained(folder)
    _generation_config(config, carried, ids, special).save_pretrained(folder)
    features = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    WhisperProcessor(feature_extractor=features, tokenizer=tokenizer).save_pretrained(folder)
    features.save_pretrained(folder)  # preprocessor_config.json: the only one faster-whisper reads


def _config(arrays: Mapping[str, np.ndarray], special: Mapping[str, int]) -> "WhisperConfig":
    """Return the model's dimensions, from the shapes of its weights."""
    from transformers import WhisperConfig

    vocabulary, d_model = arrays["decoder/embeddings/weight"].shape
    sides = ("encoder", "decoder")
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=d_model,
        num_mel_bins=arrays["encoder/conv1/weight"].shape[1],
        max_source_positions=len(arrays["encoder/position_encodings/encodings"]),
        max_target_positions=len(arrays["decoder/position_encodings/encodings"]),
        begin_suppress_tokens=None,  # they belong to the generation config
        **{f"{side}_layers": _layers(arrays, side) for side in sides},
        # 64 wide in every Whisper
        **{f"{side}_attention_heads": d_model // 64 for side in sides},
        **{f"{side}_ffn_dim": len(arrays[f"{side}/layer_0/ffn/linear_0/bias"]) for side in sides},
        architectures=["WhisperForConditionalGeneration"],
        dtype="float16",
        **special,
    )


def _generation_config(
    config: "WhisperConfig",
    carried: Mapping[str, Any],
    ids: Mapping[str, int],
    special: Mapping[str, int],
) -> "GenerationConfig":
    """Return how the model decodes: its languages, and the tokens that it must not produce.

    Made from nothing: from_pretrained rebuilds one that a model derived from its own config
    (_from_model_config), without lang_to_id, and generate(language=…) then calls it outdated.
    """
    from transformers import GenerationConfig

    # OpenAI's own test; English-only models have 51864 tokens
    is_multilingual = config.vocab_size >= 51865
    languages = {
        "lang_to_id": {token: i for token, i in ids.items() if i in carried["lang_ids"]},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }
    return GenerationConfig(
        max_length=config.max_target_positions,
        max_initial_timestamp_index=50,  # the first timestamp is at most 1.0 s, as OpenAI decodes
        suppress_tokens=carried["suppress_ids"],
        begin_suppress_tokens=carried["suppress_ids_begin"],
        alignment_heads=carried["alignment_heads"],
        is_multilingual=is_multilingual,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        return_timestamps=False,
        **(languages if is_multilingual else {}),
        **special,
    )


def _tokenizer(carried: Mapping) -> "WhisperTokenizer":
    """Return Whisper's tokenizer; the packaged file lacks the timestamps <|0.00|> … <|30.00|>."""
    from transformers import AddedToken, WhisperTokenizer

    merges = [
        tuple(merge.split(" ") if isinstance(merge, str) else merge)
        for merge in carried["model"]["merges"]
    ]
    # In the order of their ids: WhisperTokenizer takes the last one's id + 1 for <|0.00|>.
    special = [token["content"] for token in sorted(carried["added_tokens"], key=lambda t: t["id"])]
    tokenizer = WhisperTokenizer(
        vocab=carried["model"]["vocab"],
        merges=merges,
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in special if token != "<|endoftext|>"],
        model_max_length=448,
    )
    tokenizer.add_tokens(
        [AddedToken(f"<|{i * 0.02:.2f}|>", normalized=False, special=False) for i in range(1501)]
    )
    return tokenizer
