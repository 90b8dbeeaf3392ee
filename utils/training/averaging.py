"""Weights put together after training: the mean of checkpoints, and a blend with the start."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration


def average(model: WhisperForConditionalGeneration, checkpoints: list[Path]) -> None:
    """Set a model's weights to the mean of those in checkpoint folders, in place.

    The last steps circle around a point that none of them hits; their mean lies nearer to it.
    """
    total: dict[str, torch.Tensor] = {}
    for folder in checkpoints:  # one at a time: large-v3 alone is 6 GB
        for name, weight in load_file(folder / "model.safetensors").items():
            share = weight / len(checkpoints)
            total[name] = total[name] + share if name in total else share
    # The output layer is the embedding, and not stored a second time.
    fault = model.load_state_dict(total, strict=False)
    if fault.unexpected_keys or set(fault.missing_keys) - {"proj_out.weight"}:
        raise ValueError(f"{checkpoints[-1]} holds other weights than the model: {fault}")


@torch.no_grad()
def blend(
    model: WhisperForConditionalGeneration,
    start: Mapping[str, torch.Tensor],
    tuned_share: float,
) -> None:
    """Move a model's weights back towards where they started, in place.

    Args:
        model: fine-tuned.
        start: its `state_dict` before training.
        tuned_share: 1 keeps the fine-tuned weights, 0 would undo the training.
    """
    # Not state_dict: it lists the tied embedding twice, which would then move twice.
    for name, weight in model.named_parameters():
        weight.lerp_(start[name].to(weight.device), 1 - tuned_share)
