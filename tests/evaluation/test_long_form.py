"""Long recordings: known borders, timestamps held against them, real decoding."""

import numpy as np
import pytest

from utils.config import Source
from utils.evaluation.long_form import check_timestamps, join_clips, measure_long_form, word_drift
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper.captions import Segment


@pytest.fixture
def recording():
    clips = [np.ones(16_000, np.float32), np.ones(32_000, np.float32)]
    return join_clips(clips, ["uno due", "tre"], "it", 60)


def transcript(*words):
    return [Segment(start, start + 0.3, text) for start, text in words]


def test_the_borders_are_where_the_clips_sound(recording):
    assert recording.borders == [(0.0, 1.0), (1.6, 3.6)]
    assert recording.seconds == pytest.approx(4.2)
    for start, end in recording.borders:
        assert recording.samples[round(start * 16_000) : round(end * 16_000)].all()
    assert not recording.samples[16_000 : round(1.6 * 16_000)].any()


def test_no_recording_grows_past_its_limit():
    clips = [np.ones(16_000, np.float32)] * 9
    assert len(join_clips(clips, ["a"] * 9, "it", 5).borders) == 3
    assert join_clips(clips, ["a"] * 9, "it", 0).texts == []


def test_words_inside_their_clips_have_no_drift(recording):
    right = transcript((0.1, "Uno"), (0.5, "due,"), (1.8, "tre."))
    assert word_drift(right, recording) == [0, 0, 0]
    assert check_timestamps(right, recording)["kept"]


def test_drift_is_the_way_to_the_clip_that_the_word_belongs_to(recording):
    late = transcript((0.1, "uno"), (1.5, "due"), (1.0, "tre"))
    assert word_drift(late, recording) == pytest.approx([0, 0.5, 0.3])


def test_words_of_a_language_without_spaces_are_characters():
    clips = [np.ones(16_000, np.float32), np.ones(32_000, np.float32)]
    joined = join_clips(clips, ["你好。", "电话号码"], "zh", 60)
    perfect = transcript((0.1, "你好"), (1.8, "电话号码。"))
    assert word_drift(perfect, joined) == [0] * 6
    assert check_timestamps(perfect, joined)["kept"]
    late = transcript((3.0, "你好"), (3.5, "电话号码"))
    assert not check_timestamps(late, joined)["kept"]


def test_timestamps_out_of_order_or_long_after_the_end_are_lost(recording):
    checked = check_timestamps(transcript((1.8, "tre"), (0.1, "uno")), recording)
    assert (checked["monotonic"], checked["kept"]) == (False, False)
    for start, kept in ((4.1, True), (5.1, False)):
        checked = check_timestamps([Segment(0.1, start + 0.3, "uno")], recording)
        assert checked["past_end_seconds"] == pytest.approx(start + 0.3 - 4.2)
        assert checked["kept"] is kept


def test_no_segments_and_one_for_each_window_are_lost():
    assert not check_timestamps([], join_clips([], [], "it", 9))["kept"]
    minute = join_clips([np.ones(16_000 * 50, np.float32)], ["uno"], "it", 60)
    assert not check_timestamps(transcript((0.0, "uno")), minute)["kept"]


def test_real_speech_longer_than_a_window_is_measured_as_the_page_transcribes_it(base):
    rows = [
        row
        for row in stream(Source("embedded", "it", "carlo", max_clips=40), "test")
        if row["seconds"] > 3
    ]
    clips = [decode_audio(row["audio"]) for row in rows]
    joined = join_clips(clips, [row["text"] for row in rows], "it", 36)
    assert joined.seconds > 30
    measured = measure_long_form(*base, joined)
    assert measured["wer"] < 0.6 and measured["cer"] < measured["wer"], measured["text"]
    assert measured["past_end_seconds"] <= 0.02
    assert measured["segments"] >= 2 and measured["monotonic"]
    assert measured["word_drift_seconds"] < 2
