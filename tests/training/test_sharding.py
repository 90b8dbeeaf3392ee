"""What a sharded model keeps and gives back; test_distributed.py trains one in two processes."""

import pytest
import torch
import torch.distributed
from transformers import WhisperForConditionalGeneration

from utils.training.sharding import gather, shard


@pytest.fixture
def alone():
    """A group of one process."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def weights_kept(model):
    """Return the bytes that a forward under autocast leaves for the backward pass, in matrices."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    inputs = {"input_features": torch.zeros(1, 80, 3000), "labels": torch.zeros(1, 2).long()}
    with hooks, torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs).loss
    loss.backward()
    return loss.item(), sum(storage.nbytes() for storage in kept.values())


def test_what_is_gathered_is_the_model_and_loads_as_one(alone, tiny_model, tmp_path):
    before = {name: weight.clone() for name, weight in tiny_model.state_dict().items()}
    shard(tiny_model, bf16=False)
    whole = gather(tiny_model)
    assert type(whole) is WhisperForConditionalGeneration
    assert whole.proj_out.weight is whole.model.decoder.embed_tokens.weight
    whole.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config.architectures == ["WhisperForConditionalGeneration"]
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert whole.generation_config is tiny_model.generation_config


def test_layers_gathered_in_bf16_leave_no_copy_of_the_weights(alone, tiny_model):
    tiny_model.requires_grad_(True)
    plain, of_plain = weights_kept(tiny_model)
    shard(tiny_model, bf16=True)
    sharded, of_sharded = weights_kept(tiny_model)
    assert sharded == pytest.approx(plain, rel=1e-2)
    # Autocast's copy of the embedding, the largest matrix of all, is gone.
    copy = tiny_model.config.vocab_size * tiny_model.config.d_model * 2
    assert of_sharded < of_plain - copy / 2, (of_plain, of_sharded, copy)
    for weight in tiny_model.parameters():
        assert weight.dtype == torch.float32 and weight.grad.dtype == torch.float32
