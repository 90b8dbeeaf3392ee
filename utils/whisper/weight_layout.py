"""Weights as the CPU multiplies them fastest, for as long as a model reads and does not learn.

PyTorch gives a linear layer of float32 to MKL, which lays the whole matrix out anew at every call.
Where a decoder multiplies it by the one newest token of a few clips, that costs several times what
the product does. oneDNN, which PyTorch carries as well, takes a matrix that was laid out once.
"""

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def _packs(layer: nn.Module) -> bool:
    """Tell whether a layer is an ordinary one of float32 on the CPU, and not packed already."""
    return (
        type(layer) is nn.Linear
        and type(layer.weight.data) is torch.Tensor  # not one that processes share
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and "forward" not in vars(layer)
    )


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Let a model's linear layers multiply by copies of their weights that are laid out for it.

    Sums are added in another order, so that results differ in the last bits. The copies take as
    much memory as the weights, and know nothing of a change to them. Without an x86 CPU, on a GPU,
    in another precision or with PyTorch's oneDNN switched off, nothing is changed.
    """
    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    usable = onednn and platform.machine() in ("x86_64", "AMD64")
    autocast = torch.is_autocast_enabled("cpu")
    layers = [layer for layer in model.modules() if usable and not autocast and _packs(layer)]
    try:
        for layer in layers:
            # Neither has a public name; torch.compile calls both for a model that it has frozen.
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
