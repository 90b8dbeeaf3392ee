import numpy as np
import pytest

from utils.config import Source
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper.audio_context import SAMPLING_RATE
from utils.whisper.word_times import _units, word_times

PAUSE = 0.6


@pytest.fixture(scope="module")
def joined():
    """Three clips with pauses, their texts, and where each begins (seconds)."""
    rows = stream(Source("embedded", "it", "carlo", max_clips=12), "test")
    rows = [row for row in rows if 1 < row["seconds"] < 4][:3]
    parts, begins, length = [], [], 0
    for row in rows:
        begins.append(length / SAMPLING_RATE)
        parts += [decode_audio(row["audio"]), np.zeros(round(PAUSE * SAMPLING_RATE), np.float32)]
        length += len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts), [row["text"] for row in rows], begins


def test_each_clip_begins_with_its_first_word(base, joined):
    samples, texts, begins = joined
    before = base[0].config._attn_implementation
    words = word_times(*base, samples, " ".join(texts), "it")
    assert [word.text for word in words] == " ".join(texts).split()
    firsts = np.cumsum([0, *(len(text.split()) for text in texts[:-1])])
    for first, begin in zip(firsts, begins, strict=True):  # the pause before belongs to either
        assert begin - PAUSE - 0.2 < words[first].start < begin + 0.2
    times = [time for word in words for time in word[:2]]
    assert times == sorted(times) and times[-1] <= len(samples) / SAMPLING_RATE
    assert base[0].config._attn_implementation == before


def test_heads_that_nobody_named_are_those_of_the_upper_half(base, joined, monkeypatch):
    samples, texts, begins = joined
    monkeypatch.setattr(base[0].generation_config, "alignment_heads", None)
    words = word_times(*base, samples, " ".join(texts), "it")
    assert words[len(texts[0].split())].start == pytest.approx(begins[1], abs=PAUSE + 0.5)


@pytest.mark.parametrize(
    ("text", "spaced", "expected"),
    [
        (" Dobrý den, příšerně", True, [" Dobrý", " den,", " příšerně"]),
        ("今日は。", False, None),  # as the vocabulary has them
        (" 𝄞 x", True, [" 𝄞", " x"]),  # one character of several tokens
    ],
)
def test_a_text_is_cut_into_words_and_never_within_a_character(base, text, spaced, expected):
    tokens = base[1].tokenizer.encode(text, add_special_tokens=False)
    units = _units(base[1].tokenizer, tokens, spaced)
    assert expected is None or [unit for unit, _ in units] == expected
    assert "".join(unit for unit, _ in units) == text and len(units) > 1
    assert sum(length for _, length in units) == len(tokens)
