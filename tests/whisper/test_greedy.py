from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from utils.config import Source
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper import greedy
from utils.whisper.audio_context import audio_context
from utils.whisper.features import log_mel
from utils.whisper.greedy import decode_greedily, phrase_of_loop
from utils.whisper.labels import prefix_ids

END = 50_257


@pytest.fixture(scope="module")
def speech():
    """Five clips of 1 to 7 s: Italian and Spanish."""
    clips, languages = [], []
    for language, name in (("it", "carlo"), ("es", "allison")):
        rows = stream(Source("embedded", language, name, max_clips=12), "test")
        found = [row for row in rows if 1 < row["seconds"] < 7][: 3 if language == "it" else 2]
        clips += [decode_audio(row["audio"]) for row in found]
        languages += [language] * len(found)
    return clips, languages


def without_end(rows):
    return [[token for token in row if token != END] for row in rows.tolist()]


@pytest.mark.parametrize(("seconds", "looks"), [(30.0, 1), (8.0, 1), (8.0, 8)])
def test_the_tokens_are_those_of_generate_language_by_language(
    base, speech, monkeypatch, seconds, looks
):
    monkeypatch.setattr(greedy, "_looks", lambda _: looks)  # 8: as on a GPU
    model, processor = base
    clips, languages = speech
    features = log_mel(processor, clips, seconds)
    prompts = [prefix_ids(processor.tokenizer, code) for code in languages]
    with audio_context(model, features.shape[-1]):
        ours = decode_greedily(model, features, prompts, [40] * len(clips))
        theirs = model.generate(
            features,
            attention_mask=torch.ones(len(clips), features.shape[-1]),
            language=languages,
            task="transcribe",
            max_new_tokens=40,
            num_beams=1,
            do_sample=False,
        )
    assert ours == without_end(theirs)
    assert len({len(row) for row in ours}) > 1  # they end at different steps


def test_with_the_rules_of_timestamps_too(base, speech):
    model, processor = base
    *prompt, _ = prefix_ids(processor.tokenizer, "it")
    features = log_mel(processor, [np.concatenate(speech[0][:3])])
    rules = WhisperTimeStampLogitsProcessor(model.generation_config, begin_index=len(prompt))
    ours = decode_greedily(model, features, [prompt], [100], rules)
    theirs = GenerationMixin.generate(
        model,
        features,
        decoder_input_ids=torch.tensor([prompt]),
        logits_processor=LogitsProcessorList([rules]),
        max_new_tokens=100,
        num_beams=1,
        do_sample=False,
    )
    assert ours == without_end(theirs[:, len(prompt) :])
    assert ours[0][0] > 50_363  # a timestamp


def test_a_clip_that_has_ended_costs_no_more(base, speech):
    model, processor = base
    clips, languages = speech
    seen = []
    handle = model.get_decoder().register_forward_hook(
        lambda module, inputs, output: seen.append(len(output.last_hidden_state))
    )
    prompts = [prefix_ids(processor.tokenizer, code) for code in languages]
    found = decode_greedily(model, log_mel(processor, clips), prompts, [200] * len(clips))
    handle.remove()
    assert all(after <= before for before, after in pairwise(seen))
    assert sum(seen) == sum(len(row) + 1 for row in found)  # each token once, and the end


@pytest.mark.parametrize("looks", [1, 8])
def test_a_clip_that_does_not_end_is_broken_off_and_the_others_are_not(
    base, speech, monkeypatch, looks
):
    monkeypatch.setattr(greedy, "_looks", lambda _: looks)
    model, processor = base
    clips = speech[0][:3]
    prompts = [prefix_ids(processor.tokenizer, "it")] * 3
    features = log_mel(processor, clips)
    whole = decode_greedily(model, features, prompts, [200] * 3)
    cut = decode_greedily(model, features, prompts, [200, 3, 1])
    assert cut == [whole[0], whole[1][:3], whole[2][:1]]


@pytest.mark.parametrize("looks", [1, 7])
def test_no_text_goes_past_the_decoder_s_positions(tiny_model, base, monkeypatch, looks):
    monkeypatch.setattr(greedy, "_looks", lambda _: looks)
    monkeypatch.setattr("utils.whisper.greedy.LOOP_TOKENS", 1000)  # random weights stammer
    tiny_model.generation_config = base[0].generation_config
    settings = tiny_model.generation_config
    settings.suppress_tokens = [*settings.suppress_tokens, END]  # it never ends by itself
    try:
        prompt = prefix_ids(base[1].tokenizer, "it")
        (row,) = decode_greedily(tiny_model.eval(), torch.zeros(1, 80, 3000), [prompt], [10_000])
    finally:
        settings.suppress_tokens.remove(END)
    assert len(prompt) + len(row) == 448


@pytest.mark.parametrize("looks", [1, 8])
def test_a_phrase_that_is_written_again_and_again_stands_once(base, speech, monkeypatch, looks):
    monkeypatch.setattr(greedy, "_looks", lambda _: looks)
    model, processor = base
    said = processor.tokenizer(" Mi sono", add_special_tokens=False).input_ids

    class Loop(LogitsProcessor):
        """Lets the first clip stammer, and leaves the other one alone."""

        def __call__(self, tokens, scores):
            if len(tokens) == 2:
                scores[0, said[tokens.shape[1] % len(said)]] = torch.inf
            return scores

    clips = speech[0][:2]
    prompts = [prefix_ids(processor.tokenizer, "it")] * 2
    features = log_mel(processor, clips)
    whole = decode_greedily(model, features, prompts, [200] * 2)
    looped = decode_greedily(model, features, prompts, [200] * 2, Loop())
    assert sorted(looped[0]) == sorted(said)
    assert looped[1] == whole[1]


@pytest.mark.parametrize(
    ("tail", "phrase"),
    [
        ([7] * 32, 1),
        ([7, 8] * 16, 2),
        (list(range(8)) * 4, 8),
        (list(range(9)) * 4, 0),
        ([7] * 31, 0),
    ],
)
def test_a_loop_is_a_phrase_that_fills_the_last_tokens(tail, phrase):
    tokens = torch.tensor([[1, 2, 3, *tail], [1, 2, 3, *range(len(tail))]])
    assert phrase_of_loop(tokens).tolist() == [phrase, 0]


@pytest.mark.parametrize("eos", [END, [END], None], ids=["one", "a list", "in the config"])
def test_the_end_is_known_however_a_checkpoint_says_it(base, speech, monkeypatch, eos):
    model, processor = base
    prompt, features = prefix_ids(processor.tokenizer, "it"), log_mel(processor, speech[0][:1])
    (expected,) = decode_greedily(model, features, [prompt], [40])
    monkeypatch.setattr(model.generation_config, "eos_token_id", eos)
    assert decode_greedily(model, features, [prompt], [40]) == [expected]
    assert len(expected) < 40


def test_a_checkpoint_that_forbids_nothing_is_decoded_too(tiny_model, base):
    tiny_model.generation_config.eos_token_id = END
    tiny_model.generation_config.suppress_tokens = None  # as in many fine-tunes
    tiny_model.generation_config.begin_suppress_tokens = None
    prompt = prefix_ids(base[1].tokenizer, "it")
    (row,) = decode_greedily(tiny_model.eval(), torch.zeros(1, 80, 3000), [prompt], [5])
    assert len(row) <= 5


@pytest.mark.parametrize(("language", "task"), [("xx", "transcribe"), ("it", "summarise")])
def test_an_unknown_language_or_task_is_named(base, language, task):
    with pytest.raises(ValueError, match=language if language == "xx" else task):
        prefix_ids(base[1].tokenizer, language, task)
