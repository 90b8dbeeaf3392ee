"""Weights, gradients and optimizer divided among processes, for a model that one card can't hold.

Full training in float32 holds 16 bytes a weight: the weight, its gradient and Adam's two means. Of
n cards each keeps one n-th, and gathers one layer at a time from all of them while it computes
(FSDP2; Zhao et al. 2023). What is written to disk is an ordinary, undivided
checkpoint, and training can continue with more cards, or with one that can hold everything.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import Seq2SeqTrainer, WhisperForConditionalGeneration

WHOLE = StateDictOptions(full_state_dict=True)  # in every process
WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)  # in the first one alone
# The output layer is the embedding, and not stored a second time.
WHOLE_WEIGHTS = StateDictOptions(full_state_dict=True, strict=False)


def shard(model: WhisperForConditionalGeneration, bf16: bool) -> None:
    """Divide a model's weights among the processes, layer by layer, in place.

    With `bf16` layers are gathered in that precision; the parts and their gradients stay float32.
    Autocast alone would keep a whole copy of the weights in bf16 for the backward pass.
    """
    gathered = torch.bfloat16 if bf16 else None
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32)
    for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


def gather(model: WhisperForConditionalGeneration) -> WhisperForConditionalGeneration:
    """Return an ordinary Whisper with the weights of a sharded one; all processes must call it."""
    with torch.device("meta"):
        whole = WhisperForConditionalGeneration(model.config)
    whole.load_state_dict(get_model_state_dict(model, options=WHOLE), assign=True, strict=False)
    whole.tie_weights()
    whole.generation_config = model.generation_config
    return whole


def rename(adam: dict[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """Return an optimizer's state with weights by name in place of number; names stay."""
    groups = [
        {**group, "params": [names.get(key, key) for key in group["params"]]}
        for group in adam["param_groups"]
    ]
    state = {names.get(key, key): means for key, means in adam["state"].items()}
    return {"state": state, "param_groups": groups}


class Sharded(Seq2SeqTrainer):
    """What a trainer does differently if its model is sharded; a mixin, first of the bases."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        shard(self.model, self.args.bf16)
        # The Trainer's name for "divided already, do not wrap it"; a model which says so from the
        # start may not save its optimizer (transformers 5.23).
        self.is_distributed_loading_by_transformers = True

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        sharded, self.model = self.model, gather(self.model)
        try:
            yield
        finally:
            self.model = sharded

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the whole model: a decoder that gathers its layers for each token is slow."""
        with self._gathered():
            return super().evaluate(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with self._gathered():
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        adam = get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=WHOLE_ON_CPU)
        if self.args.should_save:
            torch.save(adam, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        adam, schedule = (
            torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True)
            for name in ("optimizer.pt", "scheduler.pt")
        )
        # What one process alone has written numbers the weights.
        names = {weight: name for name, weight in self.model.named_parameters()}
        groups = self.optimizer.param_groups
        order = [names[weight] for group in groups for weight in group["params"]]
        adam = rename(adam, dict(enumerate(order)))
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, adam, options=WHOLE)
        self.lr_scheduler.load_state_dict(schedule)

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        weights = load_file(Path(checkpoint) / "model.safetensors")
        set_model_state_dict(self.model, weights, options=WHOLE_WEIGHTS)
