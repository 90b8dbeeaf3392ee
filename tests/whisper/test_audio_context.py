import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from utils.config import AudioContext
from utils.whisper.audio_context import audio_context, context_seconds


@pytest.mark.parametrize(
    ("longest", "tail", "expected"),
    [(2.0, 0.0, 2.0), (2.01, 0.0, 2.5), (2.0, 0.5, 2.5), (29.9, 1.0, 30.0), (35.0, 0.0, 30.0)],
)
def test_the_context_is_on_the_grid_and_at_most_30_seconds(longest, tail, expected):
    assert context_seconds(longest, tail, AudioContext(step_seconds=0.5)) == expected


def test_one_setting_turns_it_off():
    assert context_seconds(1.0, 0.5, AudioContext(enabled=False)) == 30.0


def test_at_30_seconds_loss_and_gradients_are_those_of_the_stock_model(tiny_model):
    features = torch.randn(2, 80, 3000)
    labels = torch.tensor([[50259, 50359, 50363, 11, 12, 50257]] * 2)

    def loss_and_gradient():
        tiny_model.zero_grad()
        loss = tiny_model(input_features=features, labels=labels).loss
        loss.backward()
        return loss.item(), tiny_model.model.encoder.conv1.weight.grad.clone()

    stock_loss, stock_gradient = loss_and_gradient()
    with audio_context(tiny_model, 3000):
        loss, gradient = loss_and_gradient()
    assert loss == stock_loss
    assert torch.equal(gradient, stock_gradient)


def test_a_short_input_gets_the_first_positions_and_the_model_is_stock_afterwards(tiny_model):
    encoder = tiny_model.get_encoder()
    with audio_context(tiny_model, 200):
        assert encoder(torch.randn(1, 80, 200)).last_hidden_state.shape == (1, 100, 16)
    assert encoder(torch.randn(1, 80, 3000)).last_hidden_state.shape == (1, 1500, 16)
    with pytest.raises(ValueError, match="length 3000"):
        encoder(torch.randn(1, 80, 200))


def test_the_model_is_stock_after_an_error_too(tiny_model):
    with pytest.raises(RuntimeError), audio_context(tiny_model, 200):
        raise RuntimeError
    assert tiny_model.config.max_source_positions == 1500
    assert tiny_model.get_encoder().embed_positions.num_embeddings == 1500


@pytest.mark.parametrize("frames", [0, -2, 201, 3002])
def test_frames_that_do_not_fit_are_refused(tiny_model, frames):
    with (
        pytest.raises(ValueError, match="even number from 2 to 3000"),
        audio_context(tiny_model, frames),
    ):
        pass


def test_what_is_saved_between_two_batches_is_an_ordinary_whisper(tiny_model, tmp_path):
    with audio_context(tiny_model, 200):
        tiny_model.get_encoder()(torch.randn(1, 80, 200))
    tiny_model.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config.max_source_positions == 1500
    assert set(loaded.state_dict()) == set(tiny_model.state_dict())


def test_other_models_are_not_touched(tiny_model, base):
    with audio_context(tiny_model, 200):
        assert base[0].config.max_source_positions == 1500
        logits = base[0].get_encoder()(torch.zeros(1, 80, 3000)).last_hidden_state
    assert np.isfinite(logits.detach().numpy()).all()
