"""What `[training]` is where a recipe leaves it open: by the size of the checkpoint."""

from typing import Any

# Whisper's own largest rates by width (Radford et al. 2022, table 17; turbo and large-v3 as large).
# A fortieth of them is what published fine-tuning scripts use: 3.75e-5 for tiny, say.
PRETRAINING_RATES = {384: 1.5e-3, 512: 1e-3, 768: 5e-4, 1024: 2.5e-4, 1280: 1.75e-4}
FINE_TUNING_SHARE = 1 / 40
ADAPTER_FACTOR = 10  # a thin matrix that starts at zero has further to go


def preset(width: int, weights: str) -> dict[str, Any]:
    """Return the learning rate and warm-up for a checkpoint.

    Args:
        width: `model.config.d_model`; an unusual one takes the rate of the nearest.
        weights: of the recipe's `[method]`.
    """
    nearest = min(PRETRAINING_RATES, key=lambda known: abs(known - width))
    factor = ADAPTER_FACTOR if weights in ("lora", "dora") else 1
    return {
        "learning_rate": PRETRAINING_RATES[nearest] * FINE_TUNING_SHARE * factor,
        "warmup_steps": 0.1,  # below 1 it is a share of all steps
    }
