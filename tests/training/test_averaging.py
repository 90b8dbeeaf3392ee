import pytest
import torch
from safetensors.torch import save_file

from utils.training.averaging import average, blend


def test_blending_moves_every_weight_part_of_the_way_back(tiny_model):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    with torch.no_grad():
        for weight in tiny_model.parameters():
            weight.add_(1.0)
    blend(tiny_model, start, tuned_share=0.25)
    for name, value in tiny_model.state_dict().items():
        assert torch.allclose(value, start[name] + 0.25, atol=1e-6), name


def test_the_mean_is_that_of_every_weight_and_a_stranger_is_refused(tiny_model, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for number, folder in enumerate(folders):
        with torch.no_grad():
            for weight in tiny_model.parameters():
                weight.fill_(number**2)
        tiny_model.save_pretrained(folder)
    average(tiny_model, folders)
    for name, weight in tiny_model.named_parameters():
        assert torch.allclose(weight, torch.tensor(5 / 3)), name
    save_file({"other": torch.zeros(1)}, folders[2] / "model.safetensors")
    with pytest.raises(ValueError, match="holds other weights"):
        average(tiny_model, folders)
