"""Which weights are trained: all, the decoder's alone, or small matrices beside them (LoRA, DoRA).

LoRA (Hu et al. 2021) leaves a weight W as it is and trains two thin matrices whose product is added
to it; DoRA (Liu et al. 2024) trains the length of each column besides. A fraction of the gradients
and of the optimizer's memory is enough, at the price of a larger learning rate (about ten times
that of full training) and often of some accuracy. At the end the product is added to W for good, so
that what is saved is an ordinary Whisper.
"""

import importlib.util
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.lora import torchao as lora_torchao
from transformers import BitsAndBytesConfig, WhisperForConditionalGeneration

from utils.config import Method
from utils.environment.gpu import HardwareError

# Every linear layer of encoder and decoder. The convolutions and the embedding stay as they are.
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def require_8bit(key: str) -> None:
    """Stop unless bitsandbytes, which computes in 8 bits, is installed.

    Raises:
        HardwareError: it is not; the message names the key of the recipe.
    """
    if not importlib.util.find_spec("bitsandbytes"):
        raise HardwareError(
            f"{key} needs bitsandbytes, which is not installed: run `pip install bitsandbytes` "
            "(Linux, Windows; made for CUDA), or take the key out of the recipe."
        )


def quantization(method: Method) -> BitsAndBytesConfig | None:
    """Return the quantisation to load the checkpoint with; None loads it unchanged.

    Raises:
        HardwareError: the recipe wants 8 bits, and this machine cannot do them.
    """
    if not method.base_8bit:
        return None
    require_8bit("[method] base_8bit")
    # The output layer shares its weights with the embedding, which stays as it is.
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["proj_out"])


def ignore_old_torchao() -> None:
    """Make PEFT accept a torchao older than 0.16, such as the one that Colab preinstalls.

    PEFT looks for torchao whenever it wraps a layer and raises if it is old, although only weights
    that torchao has quantised need it. Nothing here uses it.
    """
    try:
        lora_torchao.is_torchao_available()
    except ImportError:
        lora_torchao.is_torchao_available = lambda: False


def choose_weights(
    model: WhisperForConditionalGeneration, method: Method
) -> WhisperForConditionalGeneration | PeftModel:
    """Return the model with the weights that the method trains marked as trainable."""
    if method.weights == "frozen_encoder":
        model.freeze_encoder()
    if method.weights not in ("lora", "dora"):
        return model
    ignore_old_torchao()
    if method.base_8bit:
        # Checkpointing is the recipe's choice, as for any other method.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=2 * method.rank,  # customary: the product counts twice
        target_modules=TARGETS,
        use_dora=method.weights == "dora",
        # No task_type: peft's wrapper for sequence to sequence passes input_ids, which speech
        # lacks (peft issue 1988).
    )
    return get_peft_model(model, config)


def save_adapter(model: PeftModel, folder: Path, name: str) -> None:
    """Save an adapter, which names the checkpoint that it belongs to as others know it.

    Left to itself, PEFT writes where that lies on this machine into config and README.
    """
    whisper = model.get_base_model()
    whisper.name_or_path = whisper.config._name_or_path = name
    model.peft_config["default"].base_model_name_or_path = name
    # No embedding is trained; asked to look for one, PEFT would search the Hub for that name.
    model.save_pretrained(folder, save_embedding_layers=False)


def merge(model: WhisperForConditionalGeneration, adapter: Path) -> WhisperForConditionalGeneration:
    """Return a freshly loaded checkpoint with a saved adapter added to its weights."""
    ignore_old_torchao()
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()
