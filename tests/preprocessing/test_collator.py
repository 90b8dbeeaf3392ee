import numpy as np
import pytest
import torch

from utils.config import AudioContext, Augmentation, Windows
from utils.preprocessing.augmentation import without_speech
from utils.preprocessing.collator import IGNORED, SpeechCollator
from utils.preprocessing.windows import cut
from utils.training.trainer import loss_per_token
from utils.whisper.audio_context import audio_context
from utils.whisper.load import SPEC_AUGMENT


def test_a_share_of_the_batches_is_at_30_seconds_and_the_same_ones_again(base, rows):
    windows = {}
    for share in (0.0, 0.5, 1.0):
        collator = SpeechCollator(base[1], AudioContext(stock_share=share))
        pairs = [(a, b) for a in range(8) for b in range(8)]
        drawn = [
            [collator([rows[a], rows[b]])["input_features"].shape[-1] for a, b in pairs]
            for _ in range(2)
        ]
        assert drawn[0] == drawn[1], "another call drew otherwise"
        windows[share] = np.array(drawn[0])
    assert windows[0.0].max() < 400 and windows[1.0].min() == 3000
    stock = windows[0.5] == 3000
    assert 20 < stock.sum() < 44
    assert (windows[0.5][~stock] == windows[0.0][~stock]).all(), "the share moved the tails"


def test_a_batch_at_30_seconds_has_no_more_clips_than_a_batch_on_average(base, rows):
    drawn = {"most_at_30s": 3}
    for share, clips, frames in ((0.0, 8, 400), (1.0, 3, 3000)):
        collator = SpeechCollator(base[1], AudioContext(stock_share=share), **drawn)
        batch = collator([rows[n] for n in range(8)])
        assert len(batch["labels"]) == clips and batch["input_features"].shape[-1] <= frames
    few = collator([rows[0], rows[7]])
    assert len(few["labels"]) == 2, "a small batch is whole"
    every = SpeechCollator(base[1], AudioContext(enabled=False, stock_share=1.0), **drawn)
    assert len(every([rows[n] for n in range(8)])["labels"]) == 8, "where all are at 30 s"


def test_an_update_of_fewer_clips_than_batches_is_filled_with_nothing_to_learn(base, tiny_model):
    batch = SpeechCollator(base[1], AudioContext(step_seconds=0.02))([])
    assert (batch["labels"] == IGNORED).all()
    with audio_context(tiny_model, batch["input_features"].shape[-1]):
        outputs = tiny_model(batch["input_features"], decoder_input_ids=batch["decoder_input_ids"])
    loss_per_token(outputs, batch["labels"], torch.tensor(7)).backward()
    gradients = [weight.grad for weight in tiny_model.parameters() if weight.requires_grad]
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in gradients if grad is not None)


@pytest.mark.parametrize("on", [True, False])
def test_whispers_own_spec_augment_masks_the_speech_and_not_the_padding(base, tiny_model, rows, on):
    np.random.seed(0)
    collator = SpeechCollator(base[1], AudioContext(), augmentation=Augmentation(spec_augment=on))
    batch = collator([rows[0], rows[7]])  # 1.0 and 1.7 s
    assert ("attention_mask" in batch) == on
    tiny_model.config.update(SPEC_AUGMENT | {"apply_spec_augment": on})
    plain, masked = batch["input_features"].clone(), None

    def watch(_, given):
        nonlocal masked
        masked = given[0].clone()

    tiny_model.get_encoder().register_forward_pre_hook(watch)
    with audio_context(tiny_model, plain.shape[-1]):
        tiny_model.train()(**batch)
    assert masked.shape == plain.shape
    changed = masked != plain
    if not on:
        assert not changed.any()
        return
    bands = changed.float().mean(2) > 0.9
    assert 0 < bands.float().mean() <= 0.3, "no band of frequency is masked"
    spans = (changed & ~bands[:, :, None]).any(1)
    assert spans[1, :170].any(), "no span of time is masked"
    # Of the clip that is too short for its share of spans Whisper masks one last frame.
    assert not spans[0, 100:-1].any() and not spans[1, 170:-1].any()
    tiny_model.eval()
    with audio_context(tiny_model, plain.shape[-1]):
        tiny_model(**{**batch, "input_features": plain.clone()})
    assert torch.equal(masked, plain), "a model that transcribes is masked, too"


def test_a_share_of_the_clips_is_non_speech_with_an_empty_label(base, rows):
    tokenizer = base[1].tokenizer
    empty = [50274, 50359, 50363, 50257]  # language, task, no timestamps, end: no word
    found = {}
    for share in (0.0, 0.5, 1.0):
        how = Augmentation(non_speech=share)
        timed = Windows(timestamps=1.0)  # there is nothing to time: the label stays the same
        collator = SpeechCollator(base[1], AudioContext(), augmentation=how, windows=timed)
        batches = [collator([rows[a], rows[b]]) for a in range(8) for b in range(8)]
        labels = [line[line != IGNORED].tolist() for one in batches for line in one["labels"]]
        found[share] = np.array([line == empty for line in labels])
        assert all(line[-1] == tokenizer.eos_token_id for line in labels)
        again = collator([rows[7], rows[7]])["input_features"]
        assert torch.equal(batches[-1]["input_features"], again)
    assert not found[0.0].any() and found[1.0].all()
    assert 0.35 < found[0.5].mean() < 0.65


def test_sound_without_speech_is_silence_or_noise_of_the_same_length(rows):
    random, row = np.random.default_rng(0), rows[3]
    made = [without_speech(row, random) for _ in range(60)]
    assert {len(one["audio"]) for one in made} == {len(row["audio"])}
    levels = np.array([np.abs(one["audio"].astype(int)).max() for one in made])
    assert 5 < (levels == 0).sum() < 30 and levels.max() > 3000
    assert all(cut(one) == [] and one["labels"][-1] == 50257 for one in made)


@pytest.mark.parametrize("kind", ["speed", "noise", "gain_db", "telephone"])
def test_sound_that_is_augmented_is_sent_in_float32_and_other_sound_as_it_is_stored(
    base, rows, kind
):
    how = Augmentation(**{kind: 0.5})
    batch = SpeechCollator(base[1], AudioContext(), augmentation=how).with_samples([rows[0]] * 8)
    assert batch["samples"].dtype == torch.float32 and 0 < batch["samples"].abs().max() < 1
    plain = SpeechCollator(base[1], AudioContext()).with_samples([rows[0], rows[7]])["samples"]
    assert plain.dtype == torch.int16
    assert (plain[0, : len(rows[0]["audio"])].numpy() == rows[0]["audio"]).all()
