import numpy as np
import pytest

from utils.streaming.align import EDGE, NOT_ALIGNED, align, main, phrases
from utils.whisper.captions import Segment

SAID = [
    "Buongiorno a tutti, benvenuti.",
    "Oggi parliamo del tempo che fa.",
    "Domani pioverà su tutto il nord.",
    "Grazie per averci ascoltato.",
]
PERIOD, SPEECH = 4.0, 3.2  # seconds: each sentence begins at a multiple, and a pause follows


@pytest.fixture
def samples():
    time = np.arange(round(PERIOD * len(SAID) * 16_000)) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.1, len(time))
    return np.where(time % PERIOD < SPEECH, noise, noise / 1000).astype(np.float32)


def timed(*texts):
    """What a model may decode: wrong letters, and borders half a second off."""
    wrong = [text.replace("gi", "j").replace("to", "do").replace("che", "ke") for text in texts]
    return [Segment(PERIOD * n, PERIOD * n + SPEECH + 0.5, text) for n, text in enumerate(wrong)]


@pytest.mark.parametrize(
    ("given", "aligned", "left_out"),
    [
        (SAID, [0, 1, 2, 3], []),
        ([SAID[0], SAID[2], SAID[3]], [0, 2, 3], []),  # somebody said more
        ([*SAID[:2], "Qui nessuno ha mai detto questo.", *SAID[2:]], [0, 1, 2, 3], 2),
        (["Il gatto dorme sul divano blu."], [], 0),
    ],
)
def test_a_text_is_cut_where_it_agrees_with_what_is_decoded(samples, given, aligned, left_out):
    found = align(" ".join(given), timed(*SAID), samples, "it")
    cues = [cue for cue in found.cues if cue.text != NOT_ALIGNED]
    assert [cue.text for cue in cues] == [SAID[n] for n in aligned]
    for cue, n in zip(cues, aligned, strict=True):
        assert cue.start == pytest.approx(max(PERIOD * n - EDGE, 0), abs=0.05)
        assert cue.end == pytest.approx(PERIOD * n + SPEECH + EDGE, abs=0.05)
    assert found.left_out == ([given[left_out]] if left_out != [] else [])
    times = [time for cue in found.cues for time in cue[:2]]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Buongiorno. Come va?\nMolto bene", "it", ["Buongiorno.", "Come va? Molto bene"]),
        ("Sì. Certo che sì, signora.", "it", ["Sì. Certo che sì, signora."]),
        ("今日はいい天気ですね。明日も晴れるでしょう。", "ja", 2),
        ("はい。今日はいい天気ですね。", "ja", ["はい。今日はいい天気ですね。"]),
        ("آج موسم اچھا ہے۔ کل بھی اچھا ہوگا۔", "ur", 2),
        ("Այսօր լավ եղանակ է։ Վաղը նույնպես լավ կլինի։", "hy", 2),
        ("ዛሬ አየሩ ጥሩ ነው ዛሬ። ነገም ጥሩ ይሆናል ብዬ።", "am", 2),
        ("ថ្ងៃនេះអាកាសធាតុល្អ។ ថ្ងៃស្អែកក៏ល្អដែរ។", "km", 2),
        ("parola " * 40, "it", 4),
    ],
)
def test_phrases_end_where_a_speaker_may_pause(text, language, expected):
    found = phrases(text, language)
    assert (found if isinstance(expected, list) else len(found)) == expected
    assert "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[00:01] Ciao a tutti.\n\n1:02:03 - Oggi piove.", ["Ciao a tutti.", "Oggi piove."]),
        (
            "0:12\nCiao a tutti\n0:15\nAlle 12:30 si mangia",
            ["Ciao a tutti", "Alle 12:30 si mangia"],
        ),
        (
            "12:30 era ora.\nPoi venne sera.\nE notte fonda.",
            ["12:30 era ora.", "Poi venne sera.", "E notte fonda."],
        ),
    ],
)
def test_times_in_front_of_lines_are_not_part_of_what_is_said(text, expected):
    assert phrases(text, "it") == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "talk.wav"),
        ({"talk.wav": b"no sound", "talk.txt": b"ciao a tutti"}, "talk.wav"),
        ({"talk.txt": "perché".encode("latin-1")}, "is not UTF-8"),
        ({"talk.txt": b" ... "}, "has no text"),
        ({"talk.srt": b""}, "is there already"),
    ],
)
def test_what_cannot_be_aligned_is_told_in_a_sentence(tmp_path, capsys, files, message):
    for name, content in {"talk.txt": b"ciao a tutti", **files}.items():
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / "talk.wav"), str(tmp_path / "talk.txt"), "--language", "it"]) == 1
    assert message in capsys.readouterr().err
