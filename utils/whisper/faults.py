"""What is wrong with a checkpoint that cannot be used, and the way out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, WhisperForConditionalGeneration
from transformers.utils.peft_utils import find_adapter_config_file

from utils.config import UserError

POINTER = b"version https://git-lfs"  # in place of a large file, where git-lfs is not installed


class CheckpointError(UserError, OSError):
    """A checkpoint that cannot be used; the message says why, and the way out."""


def check_files(name: str | Path, revision: str | None) -> None:
    """Refuse a folder or a Hub id that is not a whole Whisper of Transformers; name what it is.

    Raises:
        CheckpointError: always with the way out.
    """
    folder = Path(name)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file: give the folder with config.json in it.")
    if folder.exists():
        _refuse_adapter(name, revision)
    converted = any(folder.glob("vocabulary.*")) and (folder / "model.bin").exists()
    if folder.exists() and not converted:
        _check_folder(folder)
    config = {} if converted else _config(name, revision)
    if converted or "suppress_ids" in config:
        raise CheckpointError(
            f"{name} is a CTranslate2 model, which only faster-whisper can use: give the "
            "Transformers checkpoint that it was made from."
        )
    if (kind := config.get("model_type")) != "whisper":
        raise CheckpointError(f'{name} is a "{kind}" and no Whisper: give a Whisper checkpoint.')
    if "quantization_config" in config:
        raise CheckpointError(
            f"{name} has quantised weights, which can be neither trained nor exported: give the "
            "checkpoint that they were made from."
        )


def _config(name: str | Path, revision: str | None) -> Mapping[str, Any]:
    """Return what config.json says; refuse a Hub id that has none, or is only an adapter."""
    is_on_hub = not Path(name).exists()
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    except OSError as error:
        reason = " ".join(str(error).split())
        if is_on_hub and "not appear to have a file" in reason:
            _refuse_adapter(name, revision)
        where = "is no folder here, and the Hub did not give it" if is_on_hub else "cannot be read"
        raise CheckpointError(f"{name} {where}: {reason}") from None
    if is_on_hub:
        _refuse_adapter(name, revision)
    return config


def _refuse_adapter(name: str | Path, revision: str | None) -> None:
    """Refuse an adapter, also beside whole weights.

    Transformers would put it on top of its model, and save nothing but the adapter afterwards.
    """
    if find_adapter_config_file(str(name), revision=revision):
        raise CheckpointError(
            f"{name} has an adapter, which must be merged into the model that it belongs to: "
            "`PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(BASE), "
            "NAME).merge_and_unload().save_pretrained(FOLDER)`, save the processor of BASE there "
            "too, and give FOLDER. If its weights are merged, delete adapter_config.json there."
        )


def _check_folder(folder: Path) -> None:
    """Refuse a folder without all of its files, or without safetensors."""
    if not (folder / "config.json").exists():
        inside = next((path.parent for path in sorted(folder.glob("*/config.json"))), None)
        way_out = f"give {inside}" if inside else "give the folder of a Whisper checkpoint"
        raise CheckpointError(f"{folder} has no config.json: {way_out}.")
    if (folder / "pytorch_model.bin").exists() and not any(folder.glob("model*.safetensors*")):
        raise CheckpointError(only_a_pickle(folder))
    index = folder / "model.safetensors.index.json"
    parts = json.loads(index.read_text("utf-8"))["weight_map"].values() if index.exists() else ()
    if lost := sorted({part for part in parts if not (folder / part).exists()}):
        raise CheckpointError(f"{folder} lacks {', '.join(lost)}: fetch it once more.")
    for path in folder.glob("model*.safetensors"):
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise CheckpointError(
                    f"{path} is a pointer of git-lfs and not the weights: `git lfs pull` in that "
                    "folder fetches them, or `hf download NAME --local-dir FOLDER`."
                )


def only_a_pickle(name: str | Path) -> str:
    """Return the sentence about a checkpoint without safetensors."""
    return (
        f"{name} has no model.safetensors. If it has a pytorch_model.bin, a pickle, which may "
        "run code when it is loaded, convert it where you trust it: "
        "`WhisperForConditionalGeneration.from_pretrained(NAME, use_safetensors=False)"
        ".save_pretrained(FOLDER)`, save its processor there too, and give FOLDER."
    )


def check_weights(
    model: WhisperForConditionalGeneration, found: Mapping[str, Any], name: str | Path
) -> None:
    """Refuse weights that are not all there, that are another model's, or that are no numbers.

    Transformers fills what is missing with random numbers, and only logs it.

    Args:
        model: as loaded.
        found: Transformers' account of what the files had.
        name: of the checkpoint.

    Raises:
        CheckpointError: always with the way out.
    """
    # The encoder's positions are sines: computed where they were not saved.
    missing = sorted(key for key in found["missing_keys"] if key.endswith(("weight", "bias")))
    missing = [key for key in missing if key != "model.encoder.embed_positions.weight"]
    others = sorted(found["unexpected_keys"])
    if missing and (prefix := _prefix(missing, others)):
        raise CheckpointError(
            f'The weights of {name} are called "{prefix}…", as a script wrapped the model before '
            "it saved it: rename them, with load_file and save_file of safetensors.torch, "
            f'`save_file({{k.removeprefix("{prefix}"): v for k, v in load_file(PATH).items()}}, '
            'PATH, {"format": "pt"})`.'
        )
    if missing:
        instead = f', and has others, such as "{others[0]}"' if others else ""
        raise CheckpointError(
            f'{name} lacks {len(missing)} weights of its model, such as "{missing[0]}"{instead}: '
            "save it whole (with LoRA `model.merge_and_unload()` first), and give that folder."
        )
    if found["mismatched_keys"]:
        weight, has, needed = min(found["mismatched_keys"])
        raise CheckpointError(
            f'The config.json of {name} is not that of its weights: "{weight}" is {tuple(has)}, '
            f"and by the config {tuple(needed)}. Put the one beside them that they were saved with."
        )
    if not all(weight.sum().isfinite() for weight in model.parameters()):
        raise CheckpointError(
            f"{name} has weights that are no numbers: its training diverged. Take an earlier "
            "checkpoint of it."
        )
    if not torch.equal(model.proj_out.weight, model.get_input_embeddings().weight):
        raise CheckpointError(
            f"{name} has an output layer apart from its embedding, which are one in Whisper, and "
            "whisper.cpp knows no other: give a checkpoint with both as one (tie_word_embeddings)."
        )


def _prefix(missing: list[str], others: list[str]) -> str:
    """Return what the names of weights begin with besides: "module.", "_orig_mod."; or ""."""
    if not others:
        return ""
    return next((others[0].removesuffix(one) for one in missing if others[0].endswith(one)), "")
