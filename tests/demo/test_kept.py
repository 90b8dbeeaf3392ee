"""Recordings of people: what is read, what is refused with which sentence, what is kept."""

import json
import stat

import numpy as np
import pytest
import soundfile

from utils.demo.kept import METADATA, UnusableRecording, keep_recording, read_recording
from utils.streaming.sound import decode_audio


@pytest.fixture
def file(tmp_path, wav):
    """Return a function that writes a recording: (name, what `wav` takes) → path."""

    def write(name="a.wav", **what):
        (tmp_path / name).write_bytes(wav(**what))
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("kind", "rate", "channels"),
    [("WAV", 8_000, 1), ("FLAC", 44_100, 2), ("MP3", 16_000, 1), ("OGG", 48_000, 2)],
)
def test_what_browsers_and_telephones_record_is_read_as_the_lessons_read_it(
    file, kind, rate, channels
):
    path = file(seconds=2.5, rate=rate, channels=channels, file_format=kind)
    samples = read_recording(path)
    with open(path, "rb") as data:
        at_once = decode_audio(data.read())
    assert samples.dtype == np.float32 and samples.ndim == 1
    # Piece by piece or at once: equal but for rounding.
    assert len(samples) == pytest.approx(len(at_once), abs=1)
    shorter = min(len(samples), len(at_once))
    np.testing.assert_allclose(samples[:shorter], at_once[:shorter], atol=2e-4)


def test_samples_at_16_khz_stay_as_they_are(file):
    path = file(seconds=2.5)
    np.testing.assert_array_equal(read_recording(path), soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"RIFF\xff\xff\xff\x7fWAVEfmt ",
        np.random.default_rng(0).bytes(50_000),
    ],
    ids=["empty", "a page", "a header cut short", "noise"],
)
@pytest.mark.fault(18)
def test_a_file_that_is_no_audio_has_its_sentence(tmp_path, data):
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(UnusableRecording, match="no readable audio"):
        read_recording(str(tmp_path / "a.wav"))


@pytest.mark.fault(8)
def test_nothing_silence_and_numbers_that_are_none_have_their_sentences(file):
    with pytest.raises(UnusableRecording, match="no recording yet"):
        read_recording(None)
    with pytest.raises(UnusableRecording, match="is silent"):
        read_recording(file(samples=np.zeros(16_000)))
    with pytest.raises(UnusableRecording, match="no readable audio"):
        read_recording(file(samples=np.full(16_000, np.nan), subtype="FLOAT"))
    with pytest.raises(UnusableRecording, match="no readable audio"):
        read_recording("/a/file/that/was/deleted.wav")


def test_a_long_recording_is_refused(file):
    with pytest.raises(UnusableRecording, match="longer than 2 s"):
        read_recording(file(seconds=3), max_seconds=2)


def test_what_a_phone_or_a_browser_records_is_kept(phone, tmp_path):
    for name, how in {
        "memo.m4a": ("ipod", "aac"),
        "live.webm": ("webm", "libopus", 48_000),
    }.items():
        (tmp_path / name).write_bytes(phone(*how))
        kept = keep_recording(str(tmp_path / name), "Sì.", tmp_path / "it")
        assert len(decode_audio(kept)) == pytest.approx(16_000, abs=1_100)


def test_kept_recordings_are_an_audiofolder_that_only_this_user_reads(file, tmp_path):
    folder = tmp_path / "corrections" / "it"
    keep_recording(file("a.wav", seconds=1), "Perché  no?\n", folder)
    keep_recording(file("b.wav", seconds=2, rate=44_100, channels=2), "Sì.", folder)
    keep_recording(file("a.wav", seconds=1), "Perché sì?", folder)  # a second thought
    lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
    texts = {row["file_name"]: row["text"] for row in map(json.loads, lines)}
    assert sorted(texts.values()) == ["Perché sì?", "Sì."] and len(lines) == 2
    assert {path.name for path in folder.glob("*.wav")} == set(texts)
    lengths = sorted(len(decode_audio(path.read_bytes())) for path in folder.glob("*.wav"))
    assert lengths == [16_000, 32_000]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("seconds", "text", "sentence"),
    [(1, " \n", "Write what was said"), (31, "Lungo.", "longer than 30 s")],
)
def test_what_cannot_be_trained_on_is_not_kept(file, tmp_path, seconds, text, sentence):
    with pytest.raises(UnusableRecording, match=sentence):
        keep_recording(file(seconds=seconds), text, tmp_path / "it")
    assert not (tmp_path / "it").exists()
