"""Suggestions for a key that a recipe does not have, and values as TOML writes them."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

# What other programs and older versions call a key: table and key here -> names elsewhere. They
# are asked before the spelling, by which "batch_size" resembles "auto_find_batch_size".
NAMES_ELSEWHERE: Mapping[str, str] = {
    " [[sources]]": "source data dataset datasets language",
    " [training]": "train trainer training_args training_arguments trainer_args",
    " [evaluation]": "eval test",
    " [method]": "lora peft adapter",
    " [augmentation]": "augment augmentations",
    "[model] checkpoint": "name model path base_model model_id model_name model_name_or_path",
    "[model] revision": "model_revision",
    "[[sources]] language": "lang locale language_code",
    "[[sources]] dataset": "path dataset_path dataset_name repo repo_id",
    "[[sources]] name": "folder config config_name dataset_config_name subset speaker voice",
    "[[sources]] train": "train_split train_split_name split",
    "[[sources]] dev": "validation valid val eval eval_split eval_split_name dev_split",
    "[[sources]] test": "test_split",
    "[[sources]] text_column": "column text_column_name transcription sentence",
    "[[sources]] max_clips": "limit max_samples num_samples max_train_samples max_eval_samples",
    "[preprocessing] max_seconds": "max_duration max_duration_in_seconds max_length",
    "[preprocessing] min_seconds": "min_duration min_duration_in_seconds min_length",
    "[preprocessing] lower_case": "lowercase do_lower_case",
    "[preprocessing] remove_punctuation": "do_remove_punctuation",
    "[preprocessing] max_label_tokens": "max_label_length max_target_length",
    "[augmentation] spec_augment": "apply_spec_augment specaugment",
    "[method] rank": "r lora_r lora_rank",
    "[method] weights": "type peft_type finetuning_type",
    "[method] patience": "early_stopping early_stopping_patience",
    "[method] base_8bit": "load_in_8bit int8",
    "[evaluation] batch_size": "eval_batch_size per_device_eval_batch_size",
    "[training] per_device_train_batch_size": "batch_size train_batch_size batch bs "
    "per_gpu_train_batch_size train_micro_batch_size_per_gpu",
    "[training] num_train_epochs": "epochs num_epochs max_epochs n_epochs",
    "[training] max_steps": "steps num_steps train_steps max_train_steps num_train_steps",
    "[training] learning_rate": "lr max_lr peak_lr base_lr",
    "[training] lr_scheduler_type": "scheduler lr_scheduler lr_schedule",
    "[training] warmup_steps": "warmup num_warmup_steps lr_warmup_steps",
    "[training] gradient_accumulation_steps": "grad_accum grad_accum_steps accumulation_steps "
    "accumulate_grad_batches gradient_accumulation",
    "[training] optim": "optimizer optimiser",
    "[training] weight_decay": "wd l2",
    "[training] max_grad_norm": "grad_clip clip_grad gradient_clip_val max_gradient_norm",
    "[training] label_smoothing_factor": "label_smoothing",
    "[training] activation_checkpointing": "checkpointing grad_checkpointing",
    "[training] eval_strategy": "evaluation_strategy",
    "[training] eval_steps": "evaluation_steps eval_every",
    "[training] save_steps": "save_every checkpoint_every",
    "[training] logging_steps": "log_every log_steps log_every_n_steps",
    "[training] dataloader_num_workers": "num_workers workers preprocessing_num_workers",
    "[training] seed": "random_seed manual_seed",
    "[training] report_to": "tracker trackers logger wandb",
}
# One lesson without the GPU would still train in its precision, and the others would use it.
CPU = "WHISPER_CPU=1 in the environment does without the GPU, in every lesson"
# Names elsewhere of what has no key here, in any table, and why.
GONE: Mapping[str, str] = {
    "task": "recipes train transcription; the page of lesson 6 has a button that translates",
    "warmup_ratio": "write warmup_steps: below 1 it is a share of all steps",
    **dict.fromkeys(("no_cuda", "cpu"), CPU),
    "adafactor": 'write optim = "adafactor"',
    "group_by_length": "each batch is made of about as much speech anyway",
    "overwrite_output_dir": "a run folder is never overwritten: delete it to start over",
    "logging_dir": "TensorBoard's files go into the run folder",
    "save_safetensors": "weights are always saved as safetensors",
    **dict.fromkeys(
        ("mixed_precision", "precision", "half", "amp", "fp16_opt_level", "torch_dtype", "dtype"),
        "precision follows the hardware: lesson 1 says which it is and why",
    ),
}


def nearest(key: str, known: Iterable[str]) -> str:
    """Return `; did you mean "…"?` for a misspelt key, else the known ones if a line has room."""
    known = list(known)
    if close := get_close_matches(key, known, n=1):
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(sorted(known))}." if len(known) < 40 else "."


def unknown_key(key: str, table: str, tables: Mapping[str, Iterable[str]]) -> str:
    """Return the sentence on a key that a table of a recipe does not have, without its place.

    Args:
        key: as written in the recipe.
        table: "[training]", "[[sources]]" …; "" for the recipe itself.
        tables: the keys of every table.
    """
    plain = key.lower().replace("-", "_")
    if plain in GONE:
        return f'must not set "{key}": {GONE[plain]}.'
    said = f'has the unknown key "{key}"'
    meant = [where for where, names in NAMES_ELSEWHERE.items() if plain in names.split()]
    meant += [f"{name} {key}" for name, keys in tables.items() if key in keys]
    # Of this table first; then a typing error, which is likelier than a key of another table.
    here = [where.removeprefix(f"{table} ") for where in meant if where.startswith(f"{table} ")]
    here += get_close_matches(key, list(tables[table]), n=1, cutoff=0.8)
    if guess := (here or meant):
        return f'{said}; did you mean "{guess[0].strip()}"?'
    return said + nearest(key, tables[table])


# pydantic's kinds of faults by their first word: what is needed, in TOML's words.
NEEDED = {
    "string": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "finite": "a number that is finite",
    "bool": "true or false",
    "list": "a list",
    "dict": "a table",
    "enum": "text in quotes",
    "is-instance": "text in quotes",
}


def shown(value: Any) -> str:
    """Return a value as TOML writes it, cut to what fits into a sentence."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)  # a date
    return text if len(text) <= 60 else f"{text[:60]}…"
