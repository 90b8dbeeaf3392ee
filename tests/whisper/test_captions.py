"""Captions: the three files hold the same cues, and no text breaks out of its cue."""

import json

import pytest

from utils.whisper.captions import FORMATS, Segment, clock, to_json, to_srt, to_vtt

SEGMENTS = [Segment(0.0, 1.9996, "Ciao."), Segment(3599.5, 3661.25, "a < b & c\n\n2\n--> x")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00.000"), (59.9996, "00:01:00.000"), (3661.25, "01:01:01.250")],
)
def test_a_time_is_rounded_before_it_is_split(seconds, text):
    assert clock(seconds) == text


def test_srt_has_numbered_cues_that_a_blank_line_in_a_text_does_not_end():
    one, two = to_srt(SEGMENTS).split("\n\n")
    assert one == "1\n00:00:00,000 --> 00:00:02,000\nCiao."
    assert two == "2\n00:59:59,500 --> 01:01:01,250\na < b & c 2 -> x\n"


def test_vtt_has_its_header_and_escapes_what_would_be_markup():
    head, one, two = to_vtt(SEGMENTS).split("\n\n")
    assert head == "WEBVTT"
    assert one == "00:00:00.000 --> 00:00:02.000\nCiao."
    assert two == "00:59:59.500 --> 01:01:01.250\na &lt; b &amp; c 2 --&gt; x\n"


def test_json_keeps_the_text_as_it_is():
    _, second = json.loads(to_json(SEGMENTS))
    assert second == {
        "start": 3599.5,
        "end": 3661.25,
        "text": SEGMENTS[1].text,
    }


def test_no_segments_are_valid_files_too():
    assert {name: write([]) for name, write in FORMATS.items()} == {
        "srt": "",
        "vtt": "WEBVTT\n",
        "json": "[]\n",
    }
