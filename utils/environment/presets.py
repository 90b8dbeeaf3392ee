"""Defaults of `[training]` by the size of the checkpoint."""

from typing import Any

# What people publish with full fine-tuning, by the width of the model. small: 1e-5 in nearly every
# public run. turbo and large-v3 are equally wide: 1e-5 (Galician, Romanian, 5,000 steps and more),
# turbo also 2e-5 and, with batches of 256, 5e-5; large also 5e-6. The smaller the model, the larger
# the rate: tiny and base follow OpenAI's own rates (Radford et al. 2022, table 17) divided by 40.
LEARNING_RATES = {384: 3.75e-5, 512: 2.5e-5, 768: 1e-5, 1024: 1e-5, 1280: 1e-5}
ADAPTER_FACTOR = 10  # a thin matrix that starts at zero has further to go


def preset(width: int, weights: str) -> dict[str, Any]:
    """Return the learning rate and warm-up for a checkpoint.

    Args:
        width: `model.config.d_model`; an unusual one takes the rate of the nearest.
        weights: of the recipe's `[method]`.
    """
    nearest = min(LEARNING_RATES, key=lambda known: abs(known - width))
    factor = ADAPTER_FACTOR if weights in ("lora", "dora") else 1
    return {
        "learning_rate": LEARNING_RATES[nearest] * factor,
        "warmup_steps": 0.1,  # below 1 it is a share of all steps
    }
