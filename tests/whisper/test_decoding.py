from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import WhisperConfig

from utils.config import AudioContext, Source
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper.decoding import _batches, clips_at_once, most_tokens, transcribe
from utils.whisper.features import log_mel
from utils.whisper.long_recordings import _read_timestamps, transcribe_long


@pytest.fixture(scope="module")
def speech():
    rows = list(stream(Source("embedded", "it", "carlo", max_clips=12), "test"))
    rows = [row for row in rows if 1.0 < row["seconds"] < 6.0][:4]
    return [decode_audio(row["audio"]) for row in rows], [row["text"] for row in rows]


def test_real_speech_comes_out_as_text_near_the_reference(base, speech):
    from utils.scoring.error_rates import count_errors, error_rate
    from utils.text import normalize

    clips, references = speech
    decoded = transcribe(*base, clips, language="it")
    pairs = [[normalize(text, "it") for text in texts] for texts in (references, decoded)]
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


def test_a_batch_is_of_like_windows_and_every_clip_is_in_one():
    lengths = [16_000 * seconds for seconds in (1, 14, 2, 2, 1, 3, 7)]
    batches = list(_batches(lengths, AudioContext(step_seconds=0.5, tail_seconds=1.0), 3))
    # In the window of 14.5 s a clip of 3 s would cost as much as four of them.
    assert batches == [(14.5, [1, 6]), (3.5, [5, 2, 3]), (1.5, [0, 4])]
    assert list(_batches(lengths, None, 4)) == [(30.0, [1, 6, 5, 2]), (30.0, [3, 0, 4])]


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
    limit = most_tokens(np.zeros(16_000))
    assert limit == 45 + 32
    assert len(ids) <= limit + 4  # a decoded and encoded text may differ by some tokens


@pytest.mark.parametrize(
    "text",
    [
        "సన్నిహిత సంబంధాలు ప్రజలకు మంచివి",  # Telugu
        "മനുഷ്യരെല്ലാവരും തുല്യാവകാശങ്ങളോടെ",  # Malayalam
        "ყველა ადამიანი იბადება თავისუფალი",  # Georgian
        "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብር",  # Amharic
    ],
)
def test_fast_speech_in_any_script_is_written_to_its_end(base, text):
    needed = len(base[1].tokenizer(text, add_special_tokens=False).input_ids)
    spoken = np.zeros(round(len(text) / 15 * 16_000))  # 15 letters a second
    assert needed < most_tokens(spoken)


def test_an_english_only_checkpoint_is_asked_for_no_language():
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from utils.embedded.fetch import resolve

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


ZERO = 50_364  # <|0.00|> of the multilingual checkpoints


@pytest.mark.parametrize(
    ("tokens", "stretches"),
    [
        ([ZERO, 7, 8, ZERO + 100], [[0.0, 2.0, [7, 8]]]),
        ([ZERO, 7, ZERO + 50, ZERO + 75, 8, ZERO + 100], [[0.0, 1.0, [7]], [1.5, 2.0, [8]]]),
        ([ZERO, 7, ZERO + 50, ZERO + 50, 8], [[0.0, 1.0, [7]], [1.0, 9.0, [8]]]),
        ([ZERO, 7, ZERO + 50, ZERO + 50], [[0.0, 1.0, [7]]]),
        ([7, 8], [[0.0, 9.0, [7, 8]]]),
        ([], []),
    ],
    ids=["one", "a pause", "not closed", "opened only", "no timestamps", "nothing"],
)
def test_timestamps_bound_what_stands_between_them(tokens, stretches):
    assert _read_timestamps(tokens, ZERO, 9.0) == stretches


def test_a_long_recording_is_heard_whole_and_in_order_with_times_that_fit(base, speech):
    from utils.scoring.error_rates import count_errors, error_rate
    from utils.text import normalize

    clips, references = speech
    pause = np.zeros(24_000, np.float32)
    parts, starts, texts = [np.zeros(35 * 16_000, np.float32)], [], []  # a silent window first
    while sum(map(len, parts)) < 75 * 16_000:
        starts.append(sum(map(len, parts)) / 16_000)
        parts += [clips[len(texts) % 4], pause]
        texts.append(references[len(texts) % 4])
    samples = np.concatenate(parts)
    windows = list(transcribe_long(*base, samples, language="it"))
    decoded = [seconds for seconds, _ in windows]
    segments = [segment for _, new in windows for segment in new]
    assert decoded == sorted(decoded) and decoded[-1] == len(samples) / 16_000
    assert windows[0] == (30.0, [])  # silence is passed over, not made up for
    times = [time for segment in segments for time in segment[:2]]
    assert times == sorted(times) and times[0] >= 30 and times[-1] <= len(samples) / 16_000
    nearest = [min(abs(segment.start - start) for segment in segments) for start in starts]
    assert np.median(nearest) < 2.5  # seconds: captions stand where the sentences are
    pair = [normalize(" ".join(part), "it") for part in (texts, [s.text for s in segments])]
    assert error_rate(count_errors([pair[0]], [pair[1]], unit="char")) < 0.4


def test_a_short_recording_takes_one_window_and_ends_with_it(base, speech):
    clip = speech[0][0]
    ((decoded, segments),) = transcribe_long(*base, clip, language="it")
    assert decoded == len(clip) / 16_000 >= segments[-1].end
    tokens = base[0].generate(
        log_mel(base[1], [clip]), return_timestamps=True, language="it", task="transcribe"
    )
    by_whisper = base[1].batch_decode(tokens, skip_special_tokens=True)[0].strip()
    assert " ".join(segment.text for segment in segments) == by_whisper


@pytest.mark.parametrize(
    ("layers", "width", "gib", "clips"), [(32, 1280, 70, 91), (6, 512, 70, 256), (32, 1280, 1, 16)]
)
def test_a_gpu_decodes_as_many_clips_at_once_as_its_free_memory_holds(
    base, monkeypatch, layers, width, gib, clips
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (gib * 2**30, 80 * 2**30))
    config = WhisperConfig(d_model=width, decoder_layers=layers)
    assert clips_at_once(SimpleNamespace(device=torch.device("cuda"), config=config), 16) == clips
    assert clips_at_once(base[0], 16) == 16
