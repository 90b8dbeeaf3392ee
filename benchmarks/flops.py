"""How much arithmetic a training step is, by checkpoint and length; what the saved part can buy.

Counted, not timed: PyTorch's counter follows the real forward and backward on tensors without
contents. The ratio is small at 30 s, the stock recipe, over large-v3-turbo at 5 s: above 1, the
larger model trains for less.
"""

import argparse
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import save_result
from benchmarks.memory import CHECKPOINTS, TOKENS, empty_model, to_fake
from utils.whisper.audio_context import FRAMES_PER_SECOND, audio_context

TARGET = "large-v3-turbo at 5 s trains for no more than small at 30 s"
SECONDS = (5.0, 15.0, 30.0)
METHODS = ("full", "frozen_encoder")


@cache  # the same for every batch of a length, and slow to count
def step_flops(name: str, weights: str, seconds: float) -> int:
    """Return the floating-point operations of one clip's forward and backward."""
    mels, frames = CHECKPOINTS[name][4], round(seconds * FRAMES_PER_SECOND)
    model = empty_model(name, weights)
    # The counter does not know the CPU's fused attention; written out it is the same arithmetic.
    model.set_attn_implementation("eager")
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        to_fake(model)
        with audio_context(model, frames):
            labels = torch.zeros(1, TOKENS, dtype=torch.long)
            model(input_features=torch.empty(1, mels, frames), labels=labels).loss.backward()
    return counter.get_total_flops()


def main() -> None:
    """Count, print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = []
    for name in CHECKPOINTS:
        for weights in METHODS:
            row = {"checkpoint": name, "weights": weights, "label_tokens": TOKENS}
            row |= {
                f"gflop_{seconds:g}s": round(step_flops(name, weights, seconds) / 1e9, 1)
                for seconds in SECONDS
            }
            rows.append(row)
            print(row, flush=True)
    full = {row["checkpoint"]: row for row in rows if row["weights"] == "full"}
    gain = full["small"]["gflop_30s"] / full["large-v3-turbo"]["gflop_5s"]
    ratios = dict.fromkeys(("median", "low", "high"), gain)
    print("wrote", save_result("flops", TARGET, ratios, rows, on_cpu=True))


if __name__ == "__main__":
    main()
