"""The CPU's layout of weights: the same results, and nothing of it left behind."""

import platform

import pytest
import torch
from torch import nn

from utils.whisper.weight_layout import packed

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86 CPUs have this layout"
)


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 300, bias=False), nn.GELU(), nn.Linear(300, 7))


@torch.inference_mode()
def test_the_layers_compute_the_same_and_are_stock_again_behind_the_block(layers):
    inputs = torch.randn(3, 5, 64)
    expected = layers(inputs)
    with packed(layers):
        assert all("forward" in vars(layers[number]) for number in (0, 2))
        torch.testing.assert_close(layers(inputs), expected, rtol=1e-4, atol=1e-5)
        with packed(layers):
            pass
        assert "forward" in vars(layers[0]), "the inner block is not the one that packed"
    assert torch.equal(layers(inputs), expected)


def test_a_fault_within_leaves_nothing_and_new_weights_are_seen(layers):
    inputs = torch.randn(2, 64)
    with pytest.raises(KeyError), packed(layers):
        raise KeyError
    with torch.inference_mode():
        layers[2].weight.zero_()
        with packed(layers):
            torch.testing.assert_close(layers(inputs), layers[2].bias.expand(2, 7))
    layers(inputs).sum().backward()
    assert layers[0].weight.grad is not None


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("kind", ["bfloat16", "autocast", "switched off"])
def test_other_precisions_are_left_alone(layers, kind):
    with (
        torch.autocast("cpu", enabled=kind == "autocast"),
        torch.backends.mkldnn.flags(enabled=kind != "switched off"),
        packed(layers.bfloat16() if kind == "bfloat16" else layers),
    ):
        assert not any("forward" in vars(layer) for layer in layers)
