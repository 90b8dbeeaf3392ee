"""Whisper as one ggml file, which whisper.cpp reads: written from a Transformers model."""

import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from utils.environment.whole import fits

MAGIC = 0x67676D6C  # "ggml"
FLOAT32, FLOAT16 = 0, 1

# Transformers' names → OpenAI's, which whisper.cpp looks tensors up by; tried from the top.
_NAMES = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.embed_tokens\.", ".token_embedding."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
)


def openai_name(name: str) -> str:
    """Return OpenAI's name of a parameter: `decoder.blocks.0.attn.query.weight`."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _tokens(processor: WhisperProcessor) -> list[bytes]:
    """Return the text tokens in the order of their ids; whisper.cpp adds the special ones."""
    of_byte = {sign: byte for byte, sign in bytes_to_unicode().items()}
    tokenizer = processor.tokenizer
    names = tokenizer.convert_ids_to_tokens(range(tokenizer.eos_token_id))
    return [bytes(of_byte[sign] for sign in name) for name in names]


def write_ggml(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, path: Path
) -> None:
    """Write a model as ggml with float16 matrices; the file is whole or not there.

    Layout, little-endian (models/convert-pt-to-ggml.py of whisper.cpp): uint32 magic; 11 int32
    sizes, the last of which is 1 for float16; int32 mels, int32 bins and the mel filters as
    float32; int32 tokens and per token int32 length, bytes; then until the end per tensor int32
    rank, int32 length of the name, int32 type, int32 dims (the fastest first), name, data.

    Args:
        model: any Whisper of Transformers.
        processor: the checkpoint's.
        path: the file, such as `ggml-model.bin`.
    """
    config, filters = model.config, processor.feature_extractor.mel_filters.T.astype("<f4")
    # whisper.cpp computes the ids of its special tokens from this number: rows that somebody added
    # to the vocabulary, or filled it up with, would shift them all.
    vocabulary = processor.tokenizer.convert_tokens_to_ids("<|30.00|>") + 1
    sizes = (
        vocabulary,
        *(config.max_source_positions, config.d_model),
        *(config.encoder_attention_heads, config.encoder_layers),
        *(config.max_target_positions, config.d_model),
        *(config.decoder_attention_heads, config.decoder_layers),
        config.num_mel_bins,
        FLOAT16,
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        with fits(partial), partial.open("wb") as file:
            file.write(struct.pack("<I11i", MAGIC, *sizes))
            file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
            tokens = _tokens(processor)
            file.write(struct.pack("<i", len(tokens)))
            for token in tokens:
                file.write(struct.pack("<i", len(token)) + token)
            # named_parameters lists the embedding once, which proj_out shares.
            for name, weight in model.named_parameters():
                array = weight.detach().float().cpu().numpy()
                _write_tensor(file, openai_name(name), array[:vocabulary])
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write_tensor(file: BinaryIO, name: str, array: np.ndarray) -> None:
    if re.fullmatch(r"encoder\.conv\d\.bias", name):
        array = array[:, None]  # added to a convolution's output, channel by channel
    # whisper.cpp expects float16 for what is multiplied and float32 for what is added.
    matrix = array.ndim > 1 and not name.endswith((".positional_embedding", ".bias"))
    array = array.astype("<f2" if matrix else "<f4")
    label = name.encode()
    kind = FLOAT16 if matrix else FLOAT32
    file.write(struct.pack("<3i", array.ndim, len(label), kind))
    file.write(struct.pack(f"<{array.ndim}i", *reversed(array.shape)) + label + array.tobytes())
