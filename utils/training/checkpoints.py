"""Checkpoints that are complete or absent, and the saved model with every file a runtime needs.

The Trainer writes a checkpoint file by file and resumes from the highest number, complete or not; a
missing optimizer.pt is silently replaced by a fresh optimizer, and older checkpoints are deleted
before the new one is on disk (transformers 5.23). Here a marker, written last, lists every file
with its size and digest. Only a folder that still matches it is resumed from, and only then older
ones are deleted.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from utils.artifacts import write_atomically
from utils.environment import whole
from utils.environment.whole import DiskFull, files_below, fits, sealed

MARKER = "complete.json"
# Without one of these, training would not continue from where it was. Patterns, because a sharded
# optimizer is a folder.
NEEDED = ("trainer_state.json", "optimizer*", "scheduler.pt", "rng_state*.pth")
PICKLED_ARGUMENTS = "training_args.bin"  # a pickle that nothing here reads

logger = logging.getLogger(__name__)


def mark_complete(folder: Path) -> None:
    """Mark a folder as complete, after its files have reached the disk."""
    files = [path for path in files_below(folder) if path.name != MARKER]
    write_atomically(folder / MARKER, json.dumps(sealed(files, folder, flush=True)))


def damage(folder: Path) -> str:
    """Return what is wrong with a marked folder, or "" if it is complete."""
    try:
        seal = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{folder / MARKER} is missing: it was not written to its end"
    except ValueError:
        return f"{folder / MARKER} is not JSON"
    if not seal or not isinstance(seal, dict):
        return f"{folder / MARKER} names no files"
    return whole.damage(folder, seal)


def _checkpoint_damage(folder: Path) -> str:
    """Return why training cannot resume exactly from a checkpoint, or ""."""
    missing = [pattern for pattern in NEEDED if not any(folder.glob(pattern))]
    return damage(folder) or (f"{folder / missing[0]} is missing" if missing else "")


def _numbered(folder: Path) -> list[Path]:
    """Return the folders named `checkpoint-N`, oldest first."""
    matches = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in folder.glob("*"))
    return [path for _, path in sorted((int(match[1]), path) for match, path in matches if match)]


def find_valid_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete `checkpoint-N` of a folder or None; warn of each skipped one."""
    for path in reversed(_numbered(folder)):
        fault = _checkpoint_damage(path)
        if not fault:
            return path
        logger.warning("Skipped a damaged checkpoint: %s.", fault)
    return None


def whole_checkpoints(folder: Path) -> list[Path]:
    """Return every complete `checkpoint-N` in a folder, oldest first."""
    return [path for path in _numbered(folder) if not _checkpoint_damage(path)]


def stored_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return how large a checkpoint will be; one of an adapter leaves the other weights out."""
    whole = not hasattr(model, "peft_config")
    weights = sum(weight.nbytes for weight in model.parameters() if whole or weight.requires_grad)
    states = (value for state in optimizer.state.values() for value in state.values())
    return weights + sum(value.nbytes for value in states if torch.is_tensor(value))


@contextmanager
def new_checkpoint(folder: Path, needed: int) -> Iterator[None]:
    """Mark the checkpoint that a block writes as complete; after a failure, remove what it left.

    Args:
        folder: `checkpoint-N`; what is there already is an abandoned attempt.
        needed: bytes of weights and optimizer.

    Raises:
        DiskFull: it does not fit; complete checkpoints are kept.
    """
    kept = whole_checkpoints(folder.parent)
    kept = f"{kept[-1]} is whole: free" if kept else "Free"
    # An old marker beside new files could pass for whole.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        then = f"{kept} space and run the same again; it goes on from there."
        with fits(folder, needed, then):
            yield
            (folder / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            mark_complete(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def drop_old(folder: Path, keep: int | None, best: str) -> None:
    """Remove the oldest complete checkpoints until `keep` are left; None keeps all.

    The newest one, and the one whose name is `best`, stay whatever `keep` says.
    """
    whole = whole_checkpoints(folder)
    spare = [path for path in whole[:-1] if path.name != best]
    for path in spare[: max(len(whole) - (keep or len(whole)), 0)]:
        shutil.rmtree(path, ignore_errors=True)


def copy_checkpoints(source: Path, goal: Path) -> None:
    """Copy the complete checkpoints of `source` to `goal`, remove others; each appears whole.

    Colab's own disk is fast and lost with the runtime, Drive is slow and permanent: checkpoints are
    written to the first and copied to the second, and back in a new runtime.
    """
    there = {path.name for path in whole_checkpoints(goal)}
    wanted = whole_checkpoints(source)
    for path in wanted:
        if path.name not in there:
            partial = goal / f".{path.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(goal / path.name, ignore_errors=True)
            goal.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copytree(path, partial)
                sealed(files_below(partial), partial, flush=True)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise DiskFull(
                    f"{path} is whole, but could not be copied to {goal}: {error}. Free space "
                    "there and run the same again; training goes on from there."
                ) from error
            partial.rename(goal / path.name)
    # After the copies, so that a crash in between leaves too many checkpoints and not too few.
    for name in there - {path.name for path in wanted}:
        shutil.rmtree(goal / name, ignore_errors=True)


def save_model(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: Path
) -> None:
    """Save a model and its processor so that Transformers and the other runtimes load it.

    The folder is written under another name and then renamed, so that it is never incomplete. It
    holds no pickle: the Trainer's training_args.bin is left out.
    """
    place = folder.resolve()  # of a link, what it leads to is replaced
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with fits(partial, sum(weight.nbytes for weight in model.parameters())):
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
            # Transformers 5 writes processor_config.json alone. faster-whisper reads
            # preprocessor_config.json (and takes 80 mel bands for granted without it);
            # whisper.cpp's converter reads vocab.json and added_tokens.json.
            processor.feature_extractor.save_pretrained(partial)
            processor.tokenizer.save_vocabulary(str(partial))
            added = json.dumps(processor.tokenizer.get_added_vocab(), ensure_ascii=False)
            (partial / "added_tokens.json").write_text(added, encoding="utf-8")
            _open_to_others(partial)
            mark_complete(partial)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open_to_others(folder: Path) -> None:
    """Let Transformers 4, and what runs under another name on this machine, load a saved model."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # Transformers 4 takes this key for a dict and fails; both versions read it by its older name.
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for weights in folder.glob("*.safetensors"):  # which safetensors lets only their owner read
        shutil.copymode(path, weights)
