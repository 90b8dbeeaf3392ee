"""Weights in the form that a machine multiplies fastest, while a model decodes and is not trained.

A GPU multiplies 16 bits two to eight times as fast as 32. Autocast converts a float32 weight once
for the whole block, if no other autocast ends inside of it and gradients are off.

PyTorch passes a float32 linear layer to MKL, which rearranges the whole matrix at every call. Where
a decoder multiplies it by the one newest token of a few clips, that costs several times as much as
the product. oneDNN, which PyTorch also includes, takes a matrix that was rearranged once.
"""

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from utils.environment.machine import precision


def _packs(layer: nn.Module) -> bool:
    """Return whether a layer is an ordinary float32 one on the CPU, and not packed already."""
    return (
        type(layer) is nn.Linear
        and type(layer.weight.data) is torch.Tensor  # not one that processes share
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and "forward" not in vars(layer)
    )


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Let a model multiply by copies of its weights: on a GPU in 16 bits, else as a CPU likes them.

    Sums are added in a different order, so results differ in the last bits. The copies take as
    much memory as the weights, and do not follow changes to them. Without an x86 CPU, in another
    precision or with PyTorch's oneDNN switched off, nothing is changed.
    """
    half = precision().half
    weight = next(model.parameters())
    if half and weight.device.type == "cuda" and weight.dtype == torch.float32:
        with torch.autocast("cuda", half):
            yield
        return
    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    usable = onednn and platform.machine() in ("x86_64", "AMD64")
    autocast = torch.is_autocast_enabled("cpu")
    layers = [layer for layer in model.modules() if usable and not autocast and _packs(layer)]
    try:
        for layer in layers:
            # Neither has a public name; torch.compile calls both for a frozen model.
            layer.forward = functools.partial(
                torch.ops.mkldnn._linear_pointwise,
                W=torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach()),
                B=layer.bias,
                attr="none",
                scalars=[],
                algorithm="",
            )
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
