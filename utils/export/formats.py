"""The fine-tuned model in the files of other programs: what each reads, and CTranslate2's."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from utils.environment.whole import fits

# What each program reads of the model's folder. Transformers 5 itself writes only its own.
READS: Mapping[str, tuple[str, ...]] = {
    "Transformers": (
        *("config.json", "generation_config.json", "model.safetensors"),
        *("processor_config.json", "tokenizer.json", "tokenizer_config.json"),
    ),
    "faster-whisper": ("tokenizer.json", "preprocessor_config.json"),
    "whisper.cpp's converter": ("config.json", "vocab.json", "added_tokens.json"),
    "older tokenizers": ("vocab.json", "merges.txt", "added_tokens.json"),
}


def to_ctranslate2(model: Path, folder: Path, quantization: str) -> None:
    """Convert a Whisper folder with CTranslate2's own converter; the result is complete or absent.

    Args:
        model: a folder that `save_model` wrote.
        folder: where model.bin goes, with all other files that faster-whisper needs.
        quantization: how matrices are stored: "float16" or "int8".
    """
    # Not at the top: only an export needs CTranslate2.
    from ctranslate2.converters import TransformersConverter

    copied = list(READS["faster-whisper"])
    place = folder.resolve()  # a link stays one
    partial = place.with_name(f".{place.name}.partial")
    try:
        with fits(partial):
            TransformersConverter(str(model), copy_files=copied).convert(
                str(partial), quantization=quantization, force=True
            )
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def size_mb(path: Path) -> float:
    """Return the size of a file, or of all files in a folder, in millions of bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
