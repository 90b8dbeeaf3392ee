"""A Whisper checkpoint, loaded so that it can be fine-tuned, read and saved."""

import torch
from transformers import BitsAndBytesConfig, WhisperForConditionalGeneration, WhisperProcessor

from utils.config import Recipe
from utils.embedded.fetch import resolve


def load_model(
    recipe: Recipe, quantized: BitsAndBytesConfig | None = None
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Load the recipe's checkpoint, ready to be fine-tuned, and its processor."""
    name, revision = resolve(recipe.model.checkpoint), recipe.model.revision
    model = WhisperForConditionalGeneration.from_pretrained(
        name,
        revision=revision,
        # Float32 whatever the file holds: an update of 4e-5 is lost in a float16 weight.
        dtype=torch.float32,
        use_safetensors=True,
        quantization_config=quantized,
    )
    # Without this the Trainer takes the loss for already divided by the accumulation steps, and
    # Whisper's is not: loss and gradients come out multiplied (transformers 5.23, issue 47688).
    model.accepts_loss_kwargs = False
    settings = model.generation_config
    settings.forced_decoder_ids = None  # the old way to set a language, kept in old checkpoints
    if settings.is_multilingual and len(recipe.languages) == 1:
        settings.language, settings.task = recipe.languages[0], "transcribe"
    return model, WhisperProcessor.from_pretrained(name, revision=revision)
