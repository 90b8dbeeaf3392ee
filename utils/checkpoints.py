"""Checkpoints that are whole or not there, and the finished model with every file a runtime needs.

The Trainer writes a checkpoint file by file and takes the highest number for the newest, whole or
not; a missing optimizer.pt is silently replaced by a fresh optimizer (transformers 5.23). Here a
marker, written last, lists every file with its size, and only a marked folder is resumed from.
"""

import json
import logging
import os
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import WhisperForConditionalGeneration, WhisperProcessor

MARKER = "complete.json"

logger = logging.getLogger(__name__)


def _flush(folder: Path) -> dict[str, int]:
    """Force every file of a folder to disk; return their sizes in bytes by name."""
    sizes = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != MARKER:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.name] = path.stat().st_size
    return sizes


def mark_complete(folder: Path) -> None:
    """Say that a folder is whole, after its files have reached the disk."""
    sizes = _flush(folder)
    partial = folder / f".{MARKER}"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(sizes, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / MARKER)


def damage(folder: Path) -> str:
    """Return what is wrong with a checkpoint folder, or "" if it is whole."""
    try:
        sizes = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{folder / MARKER} is missing: it was not written to its end"
    except ValueError:
        return f"{folder / MARKER} is not JSON"
    for name, size in sizes.items():
        path = folder / name
        if not path.exists():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes and not {size}"
        if path.suffix == ".safetensors":
            try:
                safe_open(path, framework="pt").keys()
            except SafetensorError as error:
                return f"{path} cannot be read: {error}"
    return ""


def find_valid_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole `checkpoint-N` in a folder, or None; warn of each that is skipped."""
    numbered = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for step in sorted(numbered, reverse=True):
        fault = damage(numbered[step])
        if not fault:
            return numbered[step]
        logger.warning("Skipped a damaged checkpoint: %s.", fault)
    return None


def save_model(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: Path
) -> None:
    """Save a model and its processor so that Transformers and the other runtimes load it.

    The folder appears whole: it is written beside its place and then moved there. It holds no
    pickle: the Trainer's training_args.bin stays behind.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        # Transformers 5 writes processor_config.json alone. faster-whisper reads
        # preprocessor_config.json (and takes 80 mel bands for granted without it); whisper.cpp's
        # converter reads vocab.json and added_tokens.json.
        processor.feature_extractor.save_pretrained(partial)
        processor.tokenizer.save_vocabulary(str(partial))
        added = json.dumps(processor.tokenizer.get_added_vocab(), ensure_ascii=False)
        (partial / "added_tokens.json").write_text(added, encoding="utf-8")
        mark_complete(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
