"""Sound of every format that people bring, and of none."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile

from utils.streaming.sound import AudioError, decode_audio, promised_seconds, read_pieces


def pitch(samples):
    """Return the strongest frequency in Hz: at any rate, the tone of the fixtures has 440."""
    spectrum = np.abs(np.fft.rfft(samples))
    return np.fft.rfftfreq(len(samples), 1 / 16_000)[spectrum.argmax()]


@pytest.mark.parametrize(
    ("rate", "channels", "file_format", "subtype"),
    [
        (16_000, 1, "WAV", "PCM_16"),
        (8_000, 1, "WAV", "PCM_16"),
        (44_100, 2, "FLAC", "PCM_24"),
        (48_000, 2, "MP3", "MPEG_LAYER_III"),
        (48_000, 1, "OGG", "OPUS"),
    ],
)
def test_what_libsndfile_decodes_comes_out_mono_at_16_khz(
    wav, rate, channels, file_format, subtype
):
    samples = decode_audio(wav(2.0, rate, channels, file_format, subtype))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(32_000, rel=0.05)
    assert pitch(samples) == pytest.approx(440, abs=2)


PHONES = {  # container, codec, rate
    "a voice memo": ("ipod", "aac", 44_100),
    "an old phone": ("amr", "libopencore_amrnb", 8_000),
    "a phone's video": ("3gp", "libopencore_amrnb", 8_000),
    "a browser": ("webm", "libopus", 48_000),
    "raw AAC": ("adts", "aac", 16_000),
    "WMA": ("asf", "wmav2", 44_100),
    "ALAC": ("ipod", "alac", 16_000),
    "a film": ("matroska", "aac", 48_000),
    "television": ("mpegts", "mp2", 48_000),
    "WavPack": ("wv", "wavpack", 16_000),
}


@pytest.mark.parametrize("kind", PHONES)
def test_what_libsndfile_refuses_is_decoded_by_ffmpeg(phone, kind, tmp_path):
    data = phone(*PHONES[kind], seconds=2.0)
    with pytest.raises(soundfile.SoundFileError):
        soundfile.info(io.BytesIO(data))
    samples = decode_audio(data)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(32_000, abs=2_400)  # encoders fill up their last frame
    assert pitch(samples[1600:]) == pytest.approx(440, abs=2)
    assert np.abs(samples[8000:24_000]).max() == pytest.approx(0.3, abs=0.1)
    (tmp_path / "a").write_bytes(data)
    pieces = np.concatenate(list(read_pieces(tmp_path / "a")))
    assert len(pieces) == pytest.approx(len(samples), abs=1)
    assert promised_seconds(data) is None or promised_seconds(data) == pytest.approx(2, abs=0.15)


def without_length(kind, wav):
    """Return 4 s of sound whose header does not say how long it is."""
    if kind == "a FLAC from a pipe":
        data = bytearray(wav(4.0, file_format="FLAC"))
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    elif kind.startswith("MP3"):
        _, mode, first = kind.split()
        file, random = io.BytesIO(), np.random.default_rng(0)
        sound = [np.zeros(32_000), 0.3 * random.standard_normal(32_000)]
        sound = np.concatenate(sound if first == "quiet" else sound[::-1])
        how = {"bitrate_mode": mode, "compression_level": 0.5}
        soundfile.write(file, sound, 16_000, format="MP3", **how)
        data = file.getvalue()
        data = data[data.index(data[:2], 10) :]  # the first frame holds the tag
    else:
        data = bytearray(wav(4.0))
        at = data.index(b"data") + 4
        data[at : at + 4] = {"0": bytes(4), "f": b"\xff" * 4, "microphone": b"\xd3\xff\xff\xff"}[
            kind.split()[-1]
        ]
    return bytes(data)


@pytest.mark.parametrize(
    "kind",
    [
        "a FLAC from a pipe",
        "MP3 CONSTANT loud",
        "MP3 VARIABLE quiet",  # a guess from the first frame is too long
        "MP3 VARIABLE loud",  # and too short
        "MP3 AVERAGE loud",
        "WAV 0",
        "WAV f",
        "WAV of a microphone",
    ],
)
def test_a_header_without_a_length_costs_nothing(wav, kind):
    data = without_length(kind, wav)
    assert len(decode_audio(data, max_seconds=5)) == pytest.approx(64_000, rel=0.03)
    assert promised_seconds(data) in (None, 4.0)


CUT = {
    "WAV": lambda wav, phone: wav(4.0),
    "AIFF": lambda wav, phone: wav(4.0, file_format="AIFF"),
    "AU": lambda wav, phone: wav(4.0, file_format="AU"),
    "CAF": lambda wav, phone: wav(4.0, file_format="CAF"),
    "W64": lambda wav, phone: wav(4.0, file_format="W64"),
    "FLAC": lambda wav, phone: wav(4.0, file_format="FLAC"),
    "MP3": lambda wav, phone: wav(4.0, file_format="MP3"),
    "Vorbis": lambda wav, phone: wav(4.0, file_format="OGG", subtype="VORBIS"),
    "Opus": lambda wav, phone: wav(4.0, file_format="OGG", subtype="OPUS"),
    "Matroska": lambda wav, phone: phone("matroska", "aac", 48_000, seconds=4.0),
    "AAC": lambda wav, phone: phone("adts", "aac", 16_000, seconds=4.0),
    "AMR": lambda wav, phone: phone("amr", "libopencore_amrnb", 8_000, seconds=4.0),
    "M4A": lambda wav, phone: phone("ipod", "aac", 16_000, seconds=4.0),
}


@pytest.mark.parametrize("kind", CUT)
def test_sound_that_is_cut_off_is_refused_because_its_text_is_whole(wav, phone, kind):
    data = CUT[kind](wav, phone)
    assert len(decode_audio(data)) == pytest.approx(64_000, rel=0.05)
    for share in (0.4, 0.6, 0.8):
        with pytest.raises(AudioError) as found:
            decode_audio(data[: round(share * len(data)) + 5])
        assert found.value.reason in ("cut-off audio", "undecodable audio")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (bytes(5000), "nothing but zeros"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "a pointer of Git LFS",
        ),
        (b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n", "a playlist"),
        (b"ffconcat version 1.0\nfile a.wav\n", "a playlist"),
        (b"PK\x03\x04" + bytes(range(200)), "a ZIP archive"),
        (b"RIFF\x00\x00", r"WAV or AVI that cannot .*`ffmpeg -i 'my c.wav' -ac 1 -ar 16000 'my"),
        (b"just words\n", r"text that cannot be decoded .*`ffmpeg -i"),
    ],
)
def test_what_nobody_decodes_is_named_with_its_format_and_the_way_out(data, said):
    with pytest.raises(AudioError, match=rf"^it mine/my c.wav: {said}") as found:
        decode_audio(data, name="it mine/my c.wav")
    assert found.value.reason == "undecodable audio"
    assert "0x" not in str(found.value)


@pytest.mark.parametrize("data", [b"", b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12" + bytes(90)])
@pytest.mark.parametrize("kind", ["mp3", "flac", "m4a", "aiff"])
def test_a_file_on_disk_is_refused_as_its_bytes_are_and_prints_nothing(tmp_path, capfd, kind, data):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=path.name):
        decode_audio(path)
    assert capfd.readouterr() == ("", "")


def test_a_playlist_opens_no_file_and_no_address(tmp_path, wav, monkeypatch):
    (tmp_path / "other.wav").write_bytes(wav(1.0))
    monkeypatch.chdir(tmp_path)
    for text in (
        "ffconcat version 1.0\nfile other.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.wav\n#EXT-X-ENDLIST\n",
        "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' mediaPresentationDuration='PT1S'></MPD>",
    ):
        (tmp_path / "a.m4a").write_text(text)
        with pytest.raises(AudioError):
            decode_audio(tmp_path / "a.m4a")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(wav, value):
    with pytest.raises(AudioError, match="not finite"):
        decode_audio(wav(samples=[0.1, value, 0.2], subtype="FLOAT"))


def test_a_header_alone_is_refused(wav):
    with pytest.raises(AudioError, match=r"no samples|cannot be decoded"):
        decode_audio(wav(0.0))


def test_a_video_without_sound_says_so():
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as box:
        stream = box.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        box.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(AudioError, match="no stream of it is audio"):
        decode_audio(file.getvalue())


def test_a_cable_wired_the_wrong_way_round_is_not_silence(wav):
    tone = soundfile.read(io.BytesIO(wav(1.0)), dtype="float32")[0]
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone, -tone], axis=1), 16_000, format="WAV")
    np.testing.assert_allclose(decode_audio(file.getvalue()), tone, atol=1e-4)
    one_sided = io.BytesIO()
    soundfile.write(one_sided, np.stack([tone, 0 * tone], axis=1), 16_000, format="WAV")
    np.testing.assert_allclose(decode_audio(one_sided.getvalue()), tone / 2, atol=1e-4)


@pytest.mark.parametrize("kind", ["FLAC without a length", "webm"])
def test_what_is_too_long_is_refused_before_it_is_held(wav, phone, kind):
    """Minutes of silence are a small file: what unpacks to more than is asked for stops."""
    if kind == "webm":
        data = phone("webm", "libopus", 48_000, seconds=120.0)
    else:
        data = bytearray(wav(samples=np.zeros(300 * 16_000), file_format="FLAC"))
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    tracemalloc.start()
    with pytest.raises(AudioError, match="longer than 5 s") as found:
        decode_audio(bytes(data), max_seconds=5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.value.reason == "longer than 5 s"
    assert peak < len(data) + 4e6, "120 s of float32 at 48 kHz are 23 MB"


def test_a_header_that_asks_for_all_memory_costs_its_clip(wav):
    data = bytearray(wav(1.0, file_format="FLAC"))
    data[21] |= 0x0F  # 2^36 - 1 samples: 49 days
    data[22:26] = b"\xff" * 4
    assert len(decode_audio(bytes(data), max_seconds=5)) == 16_000


@pytest.mark.parametrize("rate", [1, 3_000_000])
def test_an_absurd_rate_is_refused(wav, rate):
    data = bytearray(wav(1.0))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(AudioError, match=f"sampling rate of {rate}"):
        decode_audio(bytes(data), max_seconds=1e9)
