import json

import numpy as np
import pytest

from utils.config import RecipeError, Source, load_recipe
from utils.preprocessing.prepare import prepare
from utils.streaming.cues import Cue, clean, make_clips
from utils.streaming.recordings import read_recordings
from utils.streaming.sources import decode_audio, stream
from utils.whisper.captions import from_marks

SRT = "1\n00:00:01,000 --> 00:00:02,500\nPrima frase.\n\n2\n00:00:03,000 --> 00:00:04,250\nSeconda."
VTT = """WEBVTT - titolo

NOTE nessuno legge questo

uno
00:01.000 --> 00:02.500 align:start
<v Anna>Prima <00:01.500>frase.

00:03.000 --> 00:04.250
<v.piano Anna><c.giallo>Seconda.</c>"""
GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 10
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "frasi"
        xmin = 0
        xmax = 10
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 1
            text = ""
        intervals [2]:
            xmin = 1
            xmax = 2.5
            text = "Prima frase."
        intervals [3]:
            xmin = 2.5
            xmax = 3
            text = ""
        intervals [4]:
            xmin = 3
            xmax = 4.25
            text = "Seconda."
    item [2]:
        class = "TextTier"
        name = "toni"
        xmin = 0
        xmax = 10
        points: size = 1
        points [1]:
            number = 1.5
            mark = "H*"
"""
SHORT_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
10
<exists>
1
"IntervalTier"
"frasi"
0
10
4
0
1
""
1
2.5
"Prima frase."
2.5
3
""
3
4.25
"Seconda."
"""
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/>
<TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="2500"/><TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="3000"/>
<TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="4250"/></TIME_ORDER>
<TIER LINGUISTIC_TYPE_REF="t" TIER_ID="frasi" PARTICIPANT="Anna">
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
<ANNOTATION_VALUE>Seconda.</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
<ANNOTATION_VALUE>Prima frase.</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER LINGUISTIC_TYPE_REF="t" TIER_ID="vuoto"/>
<LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true" GRAPHIC_REFERENCES="false"/>
</ANNOTATION_DOCUMENT>"""
LABELS = "1.000000\t2.500000\tPrima frase.\n\\\t100.0\t200.0\n3.000000\t4.250000\tSeconda.\n"
SBV = "0:00:01.000,0:00:02.500\nPrima frase.\n\n0:00:03.000,0:00:04.250\nSeconda.\n"
TTML = """<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml"><body><div>
<p begin="00:00:01.000" end="00:00:02.500">Prima frase.</p>
<p begin="00:00:03.000" end="00:00:04.250">Seconda.</p></div></body></tt>"""
SEGMENTS = [
    {"id": 0, "start": 1.0, "end": 2.5, "text": " Prima frase."},
    {"id": 1, "start": 3.0, "end": 4.25, "text": " Seconda."},
]
WHISPER = json.dumps({"text": " Prima frase. Seconda.", "segments": SEGMENTS, "language": "it"})
FRAGMENTS = [
    {"begin": "1.000", "end": "2.500", "id": "f1", "lines": ["Prima", "frase."]},
    {"begin": "3.000", "end": "4.250", "id": "f2", "lines": ["Seconda."]},
]
OFFSETS = [
    {"offsets": {"from": 1000, "to": 2500}, "text": " Prima frase."},
    {"offsets": {"from": 3000, "to": 4250}, "text": " Seconda."},
]
CHUNKS = [
    {"timestamp": [1.0, 2.5], "text": " Prima frase."},
    {"timestamp": [3.0, 4.25], "text": " Seconda."},
]
FORMATS = {
    "talk.sbv": SBV,
    "talk.ttml": TTML,
    "talk.dfxp": TTML,
    "talk.json": WHISPER,
    "talk.mp3.words.json": WHISPER,
    "talk.it.json": json.dumps({"fragments": FRAGMENTS}),
    "talk.cpp.json": json.dumps({"transcription": OFFSETS}),
    "talk.hf.json": json.dumps({"text": "Prima frase. Seconda.", "chunks": CHUNKS}),
    "talk.tsv": "start\tend\ttext\n1000\t2500\tPrima frase.\n3000\t4250\tSeconda.\n",
    "talk.TSV": "start\tend\ttext\n1.0\t2.5\tPrima frase.\n3.0\t4.25\tSeconda.\n",
    "talk.mp3.csv": "id,Start,End,Text\n1,0:01,0:02.5,Prima frase.\n2,0:03,0:04.25,Seconda.\n",
    "talk.cpp.csv": 'start,end,text\n1000,2500," Prima frase."\n3000,4250," Seconda."\n',
    "talk.srt": SRT,
    "talk.SRT": SRT.replace(",", "."),
    "talk.mp3.srt": SRT.replace("\n", "\r\n"),
    "talk.vtt": VTT,
    "talk.TextGrid": GRID,
    "talk.textgrid": SHORT_GRID,
    "talk.eaf": EAF,
    "talk.txt": LABELS,
    "talk.it.txt": SRT,
}
EARLY = LABELS.replace("1.000000", "-0.100000", 1)


def test_a_label_that_begins_before_the_sound_begins_with_it(tmp_path, wav):
    (one,) = read_recordings(write(tmp_path, wav, **{"talk.txt": EARLY}), "it")
    assert (one.start, one.end) == (0.0, 4.25) and from_marks(one.text)[0].text == "Prima frase."


def write(folder, wav, seconds=10.0, loudest=0.9, **files):
    steps = np.repeat(np.linspace(0, loudest, round(seconds * 4)), 4000)  # its level tells the time
    (folder / "talk.mp3").write_bytes(wav(samples=steps))
    for name, content in files.items():
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_clip_at_its_place(tmp_path, wav, name, encoding):
    if name.endswith(("eaf", "ttml")) and encoding == "utf-16":
        pytest.skip("ELAN and TTML are UTF-8, by their first line")
    folder = write(tmp_path, wav, **{name: FORMATS[name].encode(encoding)})
    (row,) = stream(Source("recordings", "it", folder, train="test"), "test")
    assert row["text"] == "<|0.00|> Prima frase.<|1.50|><|2.00|> Seconda.<|3.25|>"
    assert (row["start"], row["seconds"], row["recording"]) == (1.0, 3.25, "talk.mp3")
    samples = decode_audio(row["audio"])
    assert samples[100] == pytest.approx(0.9 * 4 / 39, abs=1e-3)
    assert samples[-100] == pytest.approx(0.9 * 16 / 39, abs=1e-3)


@pytest.mark.parametrize("name", ["talk.srt", "talk.it.srt", "talk.mp3.srt"])
def test_annotations_may_lie_in_a_folder_of_their_own(tmp_path, wav, name):
    for folder in ("audio", "subtitles", "other"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "audio", wav)
    (tmp_path / "subtitles" / name).write_text(SRT)
    (one,) = read_recordings(str(tmp_path), "it")
    assert (one.path.name, one.start, one.end, one.fault) == ("talk.mp3", 1.0, 4.25, "")
    write(tmp_path / "other", wav)  # whose are they now?
    with pytest.raises(RecipeError, match="no texts that are understood"):
        read_recordings(str(tmp_path), "it")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("talk.srt", SRT.replace("a", "à").encode("latin-1"), "talk.srt, line 3, is not UTF-8"),
        ("talk.srt", "solo testo", "not understood as subtitles: 0 lines have -->, 0 are"),
        ("talk.srt", SRT + "\n\n3\n5s --> 6s\nTerza", "3 lines have -->, 2 are the times"),
        ("talk.ttml", TTML[:200], "talk.ttml is no TTML that can be read"),
        ("talk.json", WHISPER.replace("start", "at"), "no transcript of Whisper's, segments of"),
        ("talk.eaf", EAF[:700], "no ELAN file that can be read"),
        ("talk.TextGrid", "File type", "no TextGrid that Praat would open"),
        ("talk.txt", LABELS + "ciao\n", "talk.txt, line 4, is no label of Audacity's"),
        ("talk.srt", SRT.replace("Prima frase.", "").replace("Seconda.", ""), "without any text"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_in_a_sentence(
    tmp_path, wav, name, content, message
):
    with pytest.raises(RecipeError, match=message):
        read_recordings(write(tmp_path, wav, **{name: content}), "it")


def test_a_tier_or_a_track_is_chosen_and_the_error_lists_them(tmp_path, wav):
    english = SRT.replace("Prima frase", "First sentence")
    folder = write(tmp_path, wav, **{"talk.it.srt": SRT, "talk.en.srt": english})
    (tmp_path / "talk.eaf").write_text(EAF)
    listed = r'"frasi" of talk.eaf \(2 segments\), "en" of talk.en.srt \(2 .*, "it" of talk.it.srt'
    with pytest.raises(RecipeError, match=f"not one tier, but several; .*{listed}"):
        read_recordings(folder, "it")
    with pytest.raises(RecipeError, match=f'no tier called "de"; .*{listed}'):
        read_recordings(folder, "it", tier="de")
    for tier, first in (
        ("en", "First sentence."),
        ("it", "Prima frase."),
        ("frasi", "Prima frase."),
    ):
        (one,) = read_recordings(folder, "it", tier=tier)
        assert from_marks(one.text)[0].text == first


ALIGNED = {
    "words": [(1.0, 1.6, "Prima"), (1.6, 2.5, "frase."), (3.0, 4.25, "Seconda.")],
    "phones": [(1.0, 1.2, "p"), (1.2, 2.5, "f"), (3.0, 4.25, "s")],
}


def grid(tiers):
    """Return a TextGrid in Praat's short form, as an aligner fills it."""
    head = ['File type = "ooTextFile"', '"TextGrid"', "", "0\n10\n<exists>", str(len(tiers))]
    for name, rows in tiers.items():
        head += ['"IntervalTier"', f'"{name}"', "0\n10", str(len(rows))]
        head += [f'{start}\n{end}\n"{text}"' for start, end, text in rows]
    return "\n".join(head) + "\n"


def test_an_aligner_s_tiers_of_phones_and_words_are_not_asked_about(tmp_path, wav):
    (one,) = read_recordings(write(tmp_path, wav, **{"talk.TextGrid": grid(ALIGNED)}), "it")
    assert [part.text for part in from_marks(one.text)] == ["Prima", "frase.", "Seconda."]
    both = {"talk.srt": SRT, "talk.words.srt": SRT.replace("Prima frase", "Prima")}
    (tmp_path / "talk.TextGrid").unlink()
    (one,) = read_recordings(write(tmp_path, wav, **both), "it")
    assert from_marks(one.text)[0].text == "Prima frase."


def test_all_tiers_of_a_recording_are_its_speakers(tmp_path, wav):
    named = {
        f"{name} - {kind}": rows[:2] if name == "anna" else rows[2:]
        for name in ("anna", "bruno")
        for kind, rows in ALIGNED.items()
    }
    folder = write(tmp_path, wav, **{"talk.TextGrid": grid(named)})
    with pytest.raises(RecipeError, match=r'not one tier, but several; .*tier = "\*" for all'):
        read_recordings(folder, "it")
    anna, bruno = read_recordings(folder, "it", tier="*")
    assert (anna.speaker, anna.start, anna.end) == ("anna", 1.0, 2.5)
    assert (bruno.speaker, bruno.start, bruno.end) == ("bruno", 3.0, 4.25)


ASS = """[Script Info]

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,Default,Anna,0,0,0,,Prima frase.
Dialogue: 0,0:00:03.00,0:00:04.25,Default,Bruno,0,0,0,,Seconda."""
TWO_VOICES = VTT.replace("<v.piano Anna>", "<v Bruno &amp; C.>")
BOTH_AT_ONCE = TWO_VOICES.replace("frase.", "frase.</v> <v Bruno>Sì.</v>")


@pytest.mark.parametrize(
    ("name", "content", "speakers"),
    [
        ("talk.eaf", EAF, ["Anna"]),
        ("talk.eaf", EAF.replace(' PARTICIPANT="Anna"', ""), [""]),
        ("talk.vtt", VTT, ["Anna"]),
        ("talk.vtt", TWO_VOICES, ["Anna", "Bruno & C."]),  # a clip has one speaker
        ("talk.vtt", BOTH_AT_ONCE, ["Anna & Bruno", "Bruno & C."]),
        ("talk.vtt", VTT.replace("<v.piano Anna>", ""), ["Anna", ""]),
        ("talk.ass", ASS, ["Anna", "Bruno"]),
        ("talk.srt", SRT, [""]),
    ],
)
def test_who_speaks_is_read_where_an_annotation_says_so(tmp_path, wav, name, content, speakers):
    found = read_recordings(write(tmp_path, wav, **{name: content}), "it")
    assert [one.speaker for one in found] == speakers


def test_a_plain_text_comes_first_and_an_annotation_alone_is_counted(tmp_path, wav):
    folder = write(tmp_path, wav, **{"talk.srt": SRT, "talk.txt": "Tutto.", "other.vtt": VTT})
    other, talk = read_recordings(folder, "it")
    assert (talk.text, talk.start) == ("Tutto.", None)
    assert (other.id, other.fault) == ("other.wav", "annotation without a sound")
    timed = read_recordings(folder, "it", tier="")[1:]
    assert timed == [talk]


def test_an_annotation_without_text_costs_its_own_recording(tmp_path, wav):
    folder = write(tmp_path, wav, **{"talk.srt": SRT, "empty.json": '{"text": "", "segments": []}'})
    (tmp_path / "empty.wav").write_bytes(wav(5))
    segments = [{"id": 0, "start": 0.0, "end": 1.0, "text": "Ciao."}]
    (tmp_path / "gone.json").write_text(json.dumps({"text": "Ciao.", "segments": segments}))
    empty, talk = read_recordings(folder, "it")
    assert (empty.id, empty.fault) == ("empty.wav", "annotation without any text")
    assert (talk.start, talk.fault) == (1.0, "")


NOTES = """WEBVTT
Kind: captions

STYLE
::cue { color: red }

0b1c-4d2e/17-0
00:01.000 --> 00:02.500
Prima
1984

NOTE di chi
trascrive

0b1c-4d2e/18-0
00:03.000 --> 00:04.250
Seconda.

fine
00:05.000 --> 00:06.000
2001
"""
ROLLING = """WEBVTT

00:01.000 --> 00:02.490 align:start position:0%
 
prima<00:01.400><c> frase</c><00:01.900><c> qui</c>

00:02.490 --> 00:02.500 align:start position:0%
prima frase qui
 

00:02.500 --> 00:04.250 align:start position:0%
prima frase qui
seconda<00:02.900><c> no</c><00:03.500><c> no</c>
"""
AGAIN = """1
00:00:01,000 --> 00:00:02,000
No.

2
00:00:02,000 --> 00:00:03,000
No.

3
00:00:03,000 --> 00:00:04,000
Ho detto di no.
Nel
1984"""

KARAOKE = ASS.replace("Prima frase.", r"{\k20}Pri{\k30}ma\hfrase.\NPoi").replace("Bruno", "Anna")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("talk.vtt", NOTES, ["Prima 1984", "Seconda.", "2001"]),
        ("talk.vtt", ROLLING, ["prima frase qui", "seconda no no"]),
        ("talk.srt", AGAIN, ["No.", "No.", "Ho detto di no. Nel 1984"]),
        ("talk.ass", KARAOKE, ["Prima frase. Poi", "Seconda."]),
    ],
    ids=["notes and names of cues", "YouTube's captions", "said again, and a number", "karaoke"],
)
def test_subtitles_hold_what_is_said_once_and_nothing_else(tmp_path, wav, name, content, said):
    (one,) = read_recordings(write(tmp_path, wav, **{name: content}), "it")
    assert [cue.text for cue in from_marks(one.text)] == said


def test_what_whisper_writes_of_a_long_recording_is_one_annotation(tmp_path, wav):
    names = {"talk.srt": SRT, "talk.vtt": SRT, "talk.json": WHISPER, "talk.txt": "Prima. Seconda."}
    (short,) = read_recordings(write(tmp_path, wav, **names), "it")
    assert (short.text, short.start) == ("Prima. Seconda.", None)
    (long,) = read_recordings(write(tmp_path, wav, seconds=40, **names), "it")
    assert (long.start, long.end) == (1.0, 4.25)
    diarized = WHISPER.replace('"text": " Seconda."', '"speaker": "B", "text": " Seconda."')
    bracketed = SRT.replace("Seconda", "[B]: Seconda")  # WhisperX's
    names |= {"talk.json": diarized, "talk.srt": bracketed}
    _, second = read_recordings(write(tmp_path, wav, seconds=40, **names), "it")
    assert (second.text, second.speaker) == ("<|0.00|> Seconda.<|1.25|>", "B")
    corrected = SRT.replace("Seconda", "Terza")
    with pytest.raises(RecipeError, match="not one tier, but several"):
        read_recordings(write(tmp_path, wav, seconds=40, **names | {"talk.vtt": corrected}), "it")


def cues(*times, text="Ciao."):
    return [Cue(*one, text) if len(one) == 2 else Cue(*one) for one in times]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(0, 10), (11, 20), (20, 29)], [(0, 29)]),
        ([(0, 10), (13.1, 20)], [(0, 10), (13.1, 20)]),  # what lies between was not written down
        ([(0, 10), (10.2, 18), (19.5, 29), (29.1, 33)], [(0, 18), (19.5, 33)]),  # at the pause
        ([(0, 8), (10, 29), (29.1, 33)], [(0, 29), (29.1, 33)]),  # not in the first half
        ([(0, 14), (16.5, 29), (29, 33)], [(0, 29), (29, 33)]),
        ([(0, 29.5), (29.5, 31), (31, 60)], [(0, 29.5), (29.5, 31), (31, 60)]),
        ([(5, 6), (0, 1), (2, 3)], [(0, 6)]),  # sorted
        ([(0, 2.2), (2, 4)], [(0, 4)]),  # a little of an overlap is cut short
        ([(0, 2), (0, 2), (2, 3)], [(0, 3)]),  # written twice
        ([(0, 2), (2, 9.4)], [(0, 9)]),  # lingers after the sound
    ],
)
def test_cues_are_joined_up_to_30_s_and_cut_at_pauses(times, expected):
    found = list(make_clips(cues(*times), "it", seconds=max(9, expected[-1][1])))
    assert [(one.start, one.end) for one in found] == expected
    assert not any(one.fault for one in found)
    for one in found:
        inner = [time for cue in from_marks(one.text) for time in cue[:2]]
        assert inner == sorted(inner) and inner[0] == 0
        assert inner[-1] == pytest.approx(one.end - one.start)


@pytest.mark.parametrize(
    ("times", "faults"),
    [
        ([(0, 1), (3, 2)], ["", "cue that ends where it starts, or before"]),
        ([(0, 1), (2, 2)], ["", "cue that ends where it starts, or before"]),
        ([(0, 1), (70, 71)], ["", "cue after the end of the sound"]),
        ([(0, 1), (58, 61)], ["", "cue that outlives the sound"]),
        ([(0, 1), (2, 33)], ["", "cue longer than 30 s"]),
        ([(0, 4), (2, 6), (8, 9)], ["cue that overlaps another"] * 2 + [""]),
        ([(0, 20), (2, 3), (5, 6), (8, 30)], ["cue that overlaps another"] * 4),
        ([(0, 1), (float("nan"), 2)], ["", "segment without times"]),
    ],
)
def test_cues_that_cannot_be_are_told_each(times, faults):
    assert [one.fault for one in make_clips(cues(*times), "it", seconds=60)] == faults


@pytest.mark.parametrize(
    ("text", "said", "left_out"),
    [
        ("<i>Ciao</i> {\\an8}a tutti", "Ciao a tutti", {"mark-up": 3}),
        ("[Musica]", "", {"caption of a sound": 1}),
        ("(ride) Ciao [applausi]", "Ciao", {"caption of a sound": 2}),
        ("♪ la la la ♪\nCiao", "Ciao", {"caption of a sound": 1}),
        ("♪ la la la", "", {"caption of a sound": 1}),
        ("*sospira*", "", {"caption of a sound": 1}),
        ("molto *bello* davvero", "molto *bello* davvero", {}),
        ("[ANNA]: Ciao", "Ciao", {"caption of a sound": 1}),
        ("ANNA: Ciao\nDOTT. ROSSI: Sì", "Ciao Sì", {"name of a speaker": 2}),
        ("Speaker 1: Ciao", "Ciao", {"name of a speaker": 1}),
        ("Marco: Ciao", "Ciao", {"name of a speaker": 1}),
        ("Attenzione: si parte", "Attenzione: si parte", {}),
        ("Alle 12:30, ore 5: via", "Alle 12:30, ore 5: via", {}),
        (">> Ciao\n- Sì\n-No", "Ciao Sì No", {"name of a speaker": 3}),
        ("-5 gradi", "-5 gradi", {}),
        ("Tom &amp; Jerry", "Tom &amp; Jerry", {}),  # of subtitles, the reader resolves it
        ("3 < 4", "3 < 4", {}),
    ],
)
def test_captions_names_and_markup_are_left_out_and_counted(text, said, left_out):
    found, notes = clean(text, "it", {"ANNA", "DOTT. ROSSI", "Speaker 1", "Marco"})
    assert found == said
    assert {
        name: notes.count(f"{name} left out")
        for name in dict.fromkeys(note.removesuffix(" left out") for note in notes)
    } == left_out


def test_a_name_is_one_where_it_is_in_capitals_numbered_or_comes_often():
    lines = ["ANNA: uno", "Voce 2: due", "Nota: tre", *["Carlo: quattro"] * 3, "主持人：你好"]
    found = make_clips([Cue(i, i + 1, line) for i, line in enumerate(lines)], "it")
    assert [cue.text for one in found for cue in from_marks(one.text)] == [
        *("uno", "due", "Nota: tre"),
        *["quattro"] * 3,
        "主持人：你好",
    ]


def test_what_is_left_out_is_in_the_report_and_no_window_goes_across_it(tmp_path, wav, base):
    said = [
        f"0{n // 60}:{n % 60:02d}.000 --> 0{n // 60}:{n % 60 + 2:02d}.000" for n in range(0, 58, 4)
    ]
    texts = [f"<i>Frase</i> numero {n}." for n in range(len(said))]
    texts[3] = "[Applausi]"
    lines = "\n\n".join(f"{time}\n{text}" for time, text in zip(said, texts, strict=True))
    backwards = "\n\n00:57.000 --> 00:50.000\nIndietro."
    for loudest, name in enumerate(("train", "dev", "test"), 5):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        vtt = f"WEBVTT\n\n{lines}{backwards}".replace("Frase", f"Frase {name}")
        write(folder, wav, 60.0, loudest / 10, **{"talk.vtt": vtt})
    table = f'dataset = "recordings"\nname = "{tmp_path / "data"}"\nlanguage = "it"\n'
    path = tmp_path / "cues.toml"
    path.write_text(
        f'[model]\ncheckpoint = "embedded/whisper-base"\n[[sources]]\n{table}[preprocessing]\n'
        "max_dropped_share = 0.6\n[windows]\ntimestamps = 1.0\n[training]\nmax_steps = 1\n"
    )
    splits, report = prepare(load_recipe(path), base[1].tokenizer, tmp_path / "prepared")
    noted, dropped = report.noted["it data", "train"], report.dropped["it data", "train"]
    assert dropped == {"cue that ends where it starts, or before": 1}
    assert noted["mark-up left out"] == 28 and noted["caption of a sound left out"] == 1
    train, test = splits["train"], splits["test"]
    assert "Applausi" not in "".join(train["text"]) and train["start"][:2] == [0.0, 16.0]
    assert train["text"][0] == "Frase train numero 0.\nFrase train numero 1.\nFrase train numero 2."
    assert test["text"][0] == "Frase test numero 0. Frase test numero 1. Frase test numero 2."
