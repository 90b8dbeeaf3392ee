import numpy as np
import pytest

from utils.config import AudioContext, Source
from utils.decoding import log_mel, transcribe
from utils.streaming import decode_audio, stream


@pytest.fixture(scope="module")
def speech():
    rows = list(stream(Source("embedded", "it", "carlo", max_clips=12), "test"))
    rows = [row for row in rows if 1.0 < row["seconds"] < 6.0][:4]
    return [decode_audio(row["audio"]) for row in rows], [row["text"] for row in rows]


def test_real_speech_comes_out_as_text_near_the_reference(base, speech):
    from utils.error_rates import count_errors, error_rate
    from utils.text import normalize

    clips, references = speech
    heard = transcribe(*base, clips, language="it")
    pairs = [[normalize(text, "it") for text in texts] for texts in (references, heard)]
    assert error_rate(count_errors(*pairs, unit="char")) < 0.4


def test_the_order_is_that_of_the_clips_whatever_the_batches(base, speech):
    clips, _ = speech
    one_by_one = [transcribe(*base, [clip], language="it")[0] for clip in clips]
    assert transcribe(*base, clips, language="it", batch_size=3) == one_by_one
    assert transcribe(*base, clips[::-1], language="it", batch_size=3) == one_by_one[::-1]


def test_each_clip_gets_its_own_language(base, speech):
    clip = speech[0][0]
    italian, german = transcribe(*base, [clip, clip], language=["it", "de"])
    assert [italian] == transcribe(*base, [clip], language="it")
    assert [german] == transcribe(*base, [clip], language="de")
    assert italian != german


def test_no_clip_gives_no_text(base):
    assert transcribe(*base, [], language="it") == []


def test_a_short_context_shortens_the_encoder_and_leaves_the_model_stock(tiny_model, base):
    seen = []
    handle = tiny_model.get_encoder().register_forward_hook(
        lambda module, inputs, output: seen.append(output.last_hidden_state.shape[1])
    )
    clips = [np.zeros(16_000, np.float32), np.zeros(40_000, np.float32)]
    transcribe(
        tiny_model_with_settings(tiny_model, base),
        base[1],
        clips,
        language="it",
        context=AudioContext(step_seconds=0.5, tail_seconds=1.0),
    )
    handle.remove()
    assert seen == [150]  # 2.5 s + 0.5 s of tail, 50 positions a second
    assert tiny_model.config.max_source_positions == 1500


def tiny_model_with_settings(tiny_model, base):
    tiny_model.generation_config = base[0].generation_config
    return tiny_model


def test_a_model_that_repeats_itself_without_end_is_stopped(tiny_model, base):
    model = tiny_model_with_settings(tiny_model, base)
    # A random model writes whatever it is biased to; this one never writes the end token.
    model.generation_config.suppress_tokens = [*model.generation_config.suppress_tokens, 50257]
    try:
        text = transcribe(model, base[1], [np.zeros(16_000, np.float32)], language="it")[0]
    finally:
        model.generation_config.suppress_tokens.remove(50257)
    ids = base[1].tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) <= 12 + 32 + 4  # a decoded and encoded text may differ by some tokens


def test_an_english_only_checkpoint_is_asked_for_no_language():
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from utils.embedded import resolve

    folder = resolve("embedded/whisper-tiny.en")
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    row = next(iter(stream(Source("embedded", "en", "allison"), "test")))
    processor = WhisperProcessor.from_pretrained(folder)
    assert transcribe(model, processor, [decode_audio(row["audio"])], language="it")[0]


def test_log_mel_is_the_start_of_the_long_one(base, speech):
    clip = speech[0][0]
    seconds = np.ceil(len(clip) / 16_000) + 1
    short, stock = log_mel(base[1], [clip], seconds), log_mel(base[1], [clip])
    # The last two frames touch the edge of the window.
    assert (stock[..., : short.shape[-1] - 2] - short[..., :-2]).abs().max() < 1e-5
