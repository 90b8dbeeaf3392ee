"""A recipe's `[training]`: its defaults, its names and values, checked before hours are spent."""

import dataclasses
import warnings
from collections.abc import Mapping
from enum import EnumType
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from utils.environment.recipe_keys import CPU, NEEDED, nearest, shown, unknown_key

# Keys that follow from the hardware, the run folder or the account, or that nothing here asks: with
# them a recipe would not run the same elsewhere, would hold a secret, or would promise an effect.
RESERVED: Mapping[str, str] = {
    "output_dir": "checkpoints always go into the run folder",
    **dict.fromkeys(
        ("bf16", "fp16", "bf16_full_eval", "fp16_full_eval"),
        "precision follows the hardware (utils/environment/machine.py says why)",
    ),
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision"),
            "hub_always_push",
        ),
        "lesson 7 pushes the finished model, after looking for secrets in it",
    ),
    "hub_token": "a token in a recipe is a token in public: use `hf auth login`",
    "remove_unused_columns": "the collator needs the audio column",
    "label_names": "the collator names the labels",
    "save_only_model": "training could not go on from a checkpoint without its optimizer",
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed", "parallelism_config"),
        "shard = true in [method] divides a model that one card cannot hold among several",
    ),
    "auto_find_batch_size": "it changes how many clips an update sees; memory is handled anyway",
    **dict.fromkeys(
        (
            *("train_sampling_strategy", "length_column_name", "sortish_sampler"),
            *("dataloader_drop_last", "data_seed"),
        ),
        "each batch is made of about as much speech, in an order that follows from seed",
    ),
    **dict.fromkeys(
        ("dataloader_multiprocessing_context", "dataloader_in_order", "dataloader_prefetch_factor"),
        "the trainer's own loader does not ask it",
    ),
    **dict.fromkeys(
        (
            *("predict_with_generate", "generation_max_length", "generation_num_beams"),
            *("generation_config", "prediction_loss_only", "include_for_metrics"),
            *("batch_eval_metrics", "eval_do_concat_batches", "eval_use_gather_object"),
            "eval_accumulation_steps",
        ),
        "dev is always decoded, greedily, and its errors are counted",
    ),
    "per_device_eval_batch_size": "[evaluation] batch_size says how many clips are decoded at once",
    **dict.fromkeys(
        ("metric_for_best_model", "greater_is_better"),
        "the checkpoint is chosen by the errors on dev; [evaluation] normalized says in which text",
    ),
    **dict.fromkeys(
        ("do_train", "do_eval", "do_predict"), "each lesson does one thing: run those that you want"
    ),
    "resume_from_checkpoint": "training goes on from the newest whole checkpoint of the run folder",
    "local_rank": "torchrun sets it",
    "average_tokens_across_devices": "the loss is per token of the whole update, of all processes",
    "use_cpu": CPU,
}
# What the project decides where a recipe does not.
DEFAULTS: Mapping[str, Any] = {
    "eval_strategy": "steps",
    "save_strategy": "steps",
    # The one that `Selection` takes on dev: test is not looked at before lesson 5.
    "load_best_model_at_end": True,
    "metric_for_best_model": "wer",  # "cer" where the language has no words
    "greater_is_better": False,
    "report_to": "none",  # build_trainer adds TensorBoard, with a folder of the run's
}
# What people publish with full fine-tuning, by the width of the model. small: 1e-5 in nearly every
# public run. turbo and large-v3 are equally wide: 1e-5 (Galician, Romanian, 5,000 steps and more),
# turbo also 2e-5 and, with batches of 256, 5e-5; large also 5e-6. The smaller the model, the larger
# the rate: tiny and base follow OpenAI's own rates (Radford et al. 2022, table 17) divided by 40.
LEARNING_RATES = {384: 3.75e-5, 512: 2.5e-5, 768: 1e-5, 1024: 1e-5, 1280: 1e-5}
ADAPTER_FACTOR = 10  # a thin matrix that starts at zero has further to go
# The least value that means something and, where there is one, the largest. What is left out here
# is checked by Transformers, PyTorch's optimizer or the schedule, which are made on trial.
LIMITS: Mapping[str, tuple[float, float]] = {
    "per_device_train_batch_size": (1, 100_000),
    "gradient_accumulation_steps": (1, 1_000_000),
    "num_train_epochs": (0.001, 1_000_000),
    "max_steps": (-1, 1_000_000_000),  # -1: num_train_epochs counts
    "learning_rate": (0, 1),  # 5 or 1e5 is a slip for 1e-5
    "warmup_steps": (0, 1_000_000_000),
    "weight_decay": (0, 10),
    "max_grad_norm": (0, 1e9),
    "label_smoothing_factor": (0, 0.99),
    "logging_steps": (1e-9, 1_000_000_000),
    "eval_steps": (1e-9, 1_000_000_000),
    "save_steps": (1e-9, 1_000_000_000),
    "eval_delay": (0, 1_000_000_000),
    "save_total_limit": (1, 1_000_000),
    "seed": (0, 2**32 - 1),  # NumPy takes no other
    "dataloader_num_workers": (0, 1024),
    "ddp_timeout": (1, 10_000_000),
}


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


def check_training(table: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Refuse what Seq2SeqTrainingArguments would refuse, misread or never look at.

    Args:
        table: `[training]`.
        tables: the keys of the recipe's other tables, where a key may belong.

    Raises:
        ValueError: a sentence that begins after the table's name.
    """
    hints = _hints()
    for key, value in table.items():
        if key in RESERVED:
            raise ValueError(f"must not set {key}: {RESERVED[key]}.")
        if key not in hints:
            known = [name for name in hints if name not in RESERVED]
            raise ValueError(unknown_key(key, "[training]", {**tables, "[training]": known}))
        _check_value(key, value, hints[key])
    _check_tracker(table.get("report_to", "none"))
    _try(table)


@cache
def _hints() -> dict[str, Any]:
    # Not at the top: the import takes seconds, and only a recipe needs it.
    from transformers import Seq2SeqTrainingArguments

    hints = get_type_hints(Seq2SeqTrainingArguments)
    return {f.name: hints[f.name] for f in dataclasses.fields(Seq2SeqTrainingArguments) if f.init}


def _check_value(key: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type, or beyond what makes sense."""
    # Dataclasses do not check types: learning_rate = "4e-5" would fail only at the first step.
    settings = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        TypeAdapter(hint, config=settings).validate_python(value)
    except ValidationError as error:
        kinds = [one["type"].split("_")[0] for one in error.errors(include_url=False)]
        needed = dict.fromkeys(NEEDED[kind] for kind in kinds if kind in NEEDED)
        raise ValueError(f"{key} = {shown(value)} must be {' or '.join(needed)}.") from None
    for kind in get_args(hint):
        if isinstance(kind, EnumType) and value not in [one.value for one in kind]:
            known = nearest(value, [one.value for one in kind])
            raise ValueError(f"{key} = {shown(value)} is not known{known}")
    low, high = LIMITS.get(key, (-float("inf"), float("inf")))
    if isinstance(value, int | float) and not low <= value <= high:
        raise ValueError(f"{key} = {shown(value)} must be from {low:g} to {high:g}.")


def _check_tracker(names: str | list[str] | None) -> None:
    """Refuse an unknown tracker, or one whose package is missing."""
    from transformers.integrations import integration_utils

    known = [*integration_utils.INTEGRATION_TO_CALLBACK, "all", "none"]
    for name in [names] if isinstance(names, str) else names or []:
        if name not in known:
            raise ValueError(f'report_to = "{name}" is not one of {", ".join(known)}.')
        if name not in ("all", "none", *integration_utils.get_available_reporting_integrations()):
            raise ValueError(
                f'report_to = "{name}" needs the package {name}, which is not installed: run '
                f"`pip install {name.replace('_', '-')}`, or take the key out."
            )


def _try(table: Mapping[str, Any]) -> None:
    """Make the arguments, the optimizer and the schedule on trial."""
    import torch
    from transformers import Seq2SeqTrainingArguments, Trainer, get_scheduler

    class OnTrial(Seq2SeqTrainingArguments):
        # Without a look at the device: that would take the GPU's memory, and under torchrun it
        # would fix how the processes talk.
        _setup_devices = torch.device("cpu")

    weights = [torch.nn.Parameter(torch.zeros(2, 2))]
    try:
        with warnings.catch_warnings(action="ignore"):
            made = OnTrial(output_dir="unused", **{**DEFAULTS, **table})
            if made.optim in ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop"):
                optimizer, options = Trainer.get_optimizer_cls_and_kwargs(made)
                options = {name: options[name] for name in options if name != "fused"}
                optimizer(weights, **options)
            kind, options = made.lr_scheduler_type, made.lr_scheduler_kwargs
            get_scheduler(kind, torch.optim.SGD(weights, 0.1), 1, 10, options)
    except (ArithmeticError, ImportError, KeyError, OSError, TypeError, ValueError) as error:
        said = " ".join(str(error).replace("--", "").split())
        raise ValueError(f"cannot be used: {said}{'' if said.endswith('.') else '.'}") from None
