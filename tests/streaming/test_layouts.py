"""Layouts of the field: each with the texts, parts, speakers and splits that are in it."""

import csv
import io
import json
import unicodedata

import pytest

from utils.config import RecipeError
from utils.streaming.files import say
from utils.streaming.parts import read_audio
from utils.streaming.recordings import read_recordings

COUNT = 4
TEXT = "Frase numero {}, davvero."


@pytest.fixture(autouse=True)
def fresh():
    """Each sentence about data is said once a process: in tests, once a test."""
    say.cache_clear()


@pytest.fixture
def corpus(tmp_path, wav):
    """Return a function that fills the folder: sounds named by a pattern, and other files."""

    def fill(sounds="c{}.wav", count=COUNT, seconds=0.1, **files):
        data = wav(seconds)
        for number in range(count):
            path = tmp_path / sounds.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return fill


def lines(pattern, count=COUNT, header=""):
    numbers = range(count)
    return header + "".join(pattern.replace("#", str(n)) + "\n" for n in numbers)


def jsons(**keys):
    """Return JSON lines, # replaced by the number of the line."""
    return lines(json.dumps(keys))


def said(folder, **settings):
    return {
        one.path.name: one.text.strip() for one in read_recordings(str(folder), "it", **settings)
    }


def table(kind, columns, header=True):
    """Return a table of `COUNT` rows as pandas or Excel write it."""
    rows = [[value.replace("#", str(n)) for value in columns.values()] for n in range(COUNT)]
    file = io.StringIO()
    csv.writer(file, delimiter=kind).writerows([list(columns), *rows] if header else rows)
    return file.getvalue()


T = TEXT.format("#")
ROW = f'c#.wav,"{T}"'
HEADER = "file_name,text\n"
CSV = {"file_name": "c#.wav", "text": T}
TASK = {
    "id": 1,
    "data": {"audio": "/data/upload/2/0a1b2c3d-c#.wav"},
    "annotations": [{"result": [{"id": "x", "value": {"text": [T]}, "type": "textarea"}]}],
}
LOCAL = {"audio": "/data/local-files/?d=c#.wav", "transcription": T}
PLAIN = {
    "metadata.csv": {"metadata.csv": table(",", CSV)},
    "METADATA.CSV": {"METADATA.CSV": table(",", CSV)},
    "transcripts.csv": {"transcripts.csv": table(",", CSV)},
    "semicolons": {"metadata.csv": table(";", CSV)},
    "Excel's sep line": {"metadata.csv": "sep=;\r\n" + table(";", CSV)},
    "UTF-16": {"metadata.tsv": table("\t", CSV).encode("utf-16")},
    "BOM": {"metadata.csv": table(",", CSV).encode("utf-8-sig")},
    "tabs in a .csv": {"metadata.csv": table("\t", CSV)},
    "a .TSV": {"LIST.TSV": table("\t", CSV)},
    "pandas' index": {"metadata.csv": table(",", {"": "#", **CSV})},
    "pandas' index, saved twice": {"metadata.csv": table(",", {"Unnamed: 0": "#", "": "#", **CSV})},
    "DeepSpeech": {
        "a.csv": table(",", {"wav_filename": "c#.wav", "wav_filesize": "9", "transcript": T})
    },
    "audiofolder": {"metadata.csv": table(",", {"file_name": "c#.wav", "transcription": T})},
    "capitals and spaces": {"a.csv": table(",", {"Audio Path": "c#.wav", "Normalized Text": T})},
    "no header": {"list.csv": table(",", CSV, header=False)},
    "no suffix": {"metadata.csv": table(",", CSV | {"file_name": "c#"})},
    "another suffix": {"metadata.csv": table(",", CSV | {"file_name": "c#.mp3"})},
    "another case": {"metadata.csv": table(",", CSV | {"file_name": "C#.WAV"})},
    "another machine": {"metadata.csv": table(",", CSV | {"file_name": "/home/x/data/c#.wav"})},
    "Windows": {"metadata.csv": table(",", CSV | {"file_name": "D:\\data\\c#.wav"})},
    "jsonl": {"metadata.jsonl": jsons(file_name="c#.wav", text=T)},
    "NeMo": {"manifest.json": jsons(audio_filepath="c#.wav", text=T, duration=0.1)},
    "a list in JSON": {"a.json": json.dumps([json.loads(x) for x in jsons(**CSV).splitlines()])},
    "pandas' JSON": {
        "a.json": json.dumps(
            {k: {n: v.replace("#", str(n)) for n in range(COUNT)} for k, v in CSV.items()}
        )
    },
    "Whisper-Finetune": {"train.jsonl": jsons(audio={"path": "c#.wav"}, sentence=T, sentences=[])},
    "LJSpeech": {"metadata.csv": lines(f"c#|{T}|frase")},
    "LJSpeech, two columns": {"metadata.csv": lines(f"c#|{T}")},
    "Coqui": {"metadata.csv": lines(f"c#.wav|{T}|anna", header="audio_file|text|speaker_name\n")},
    "VITS": {"filelists/train.txt": lines(f"c#.wav|{T}")},
    "LibriSpeech": {"84-121.trans.txt": lines(f"c# {T}")},
    "MLS, with what it says of its books": {
        "train/transcripts.txt": lines(f"c#\t{T}"),
        "train/segments.txt": lines("c#\thttp://a.org/#.mp3\t0.00\t1.00"),
        "metainfo.txt": " SPEAKER | GENDER | PARTITION\n 12 | M | train\n",
    },
    "a list with tabs": {"transcripts.txt": lines(f"c#\t{T}")},
    "CMU Arctic": {"etc/txt.done.data": lines(f'( c# "{T}" )')},
    "Kaldi's text alone": {"text": lines(f"c# {T}"), "final.mdl": bytes(99), "mdl": b"\0\xff"},
    "UTF-16 without a suffix": {"text": lines(f"c# {T}").encode("utf-16")},
    "Kaldi": {"data/text": lines(f"u# {T}"), "data/wav.scp": lines("u# c#.wav")},
    "a list of paths, as of Whisper scripts": {
        "audio_paths": lines("u# /data/c#.wav"),
        "text": lines(f"u# {T}"),
    },
    "FunASR": {
        "list/train_wav.scp": lines("u# /data/c#.wav"),
        "list/train_text.txt": lines(f"u# {T}"),
    },
    "MAGICDATA": {
        "TRANS.txt": lines(f"c#.wav\tanna\t{T}", header="UtteranceID\tSpeakerID\tTranscription\n")
    },
    "JSUT": {"transcript_utf8.txt": lines(f"c#:{T}")},
    "THCHS-30": {f"c{n}.wav.trn": f"{TEXT.format(n)}\nfra2 ze4\nf r a\n" for n in range(COUNT)},
    "FunASR, JSON": {"train.jsonl": jsons(key="u#", source="/data/c#.wav", target=T)},
    "ULCA": {"data.json": f"[{','.join(jsons(audioFilename='c#.wav', text=T).splitlines())}]"},
    "WeNet": {"data.list": jsons(key="u#", wav="/data/c#.wav", txt=T)},
    "commas in a .txt": {"texts.txt": lines(f"c#.wav,{T}")},
    "colons in a .txt": {"texts.txt": lines(f"c#.wav: {T}")},
    "a CSV called .txt": {"texts.txt": table(",", CSV)},
    "LibriSpeech, with alignments": {
        "84-121.trans.txt": lines(f"c# {T}"),
        "84-121.alignment.txt": lines('c# ",FRASE," "0.5,0.8"'),
    },
    "Label Studio": {"export.json": "[" + ",".join(lines(json.dumps(TASK)).splitlines()) + "]"},
    "Label Studio, JSON_MIN": {
        "min.json": f"[{','.join(jsons(**LOCAL, annotator=1).splitlines())}]"
    },
    "Label Studio, CSV": {"e.csv": table(",", LOCAL | {"annotator": "1"})},
    "sidecars in a tree of their own": {f"txt/c{n}.txt": TEXT.format(n) for n in range(COUNT)},
    "sidecars of LibriTTS": {
        f"c{n}.{kind}.txt": TEXT.format(n) if kind == "original" else "frase"
        for n in range(COUNT)
        for kind in ("normalized", "original")
    },
    "OpenSLR": {"line_index.tsv": lines(f"c#\t{T}")},
    "OpenSLR, with speakers": {"line_index.tsv": lines(f"c#\tanna\t{T}")},
    "a list with tabs and speakers": {"list.txt": lines(f"c#\tanna\t{T}")},
    "FLEURS": {"train.tsv": lines(f"1#\tc#.wav\t{T}\tfrase #\tf r #\t160#\tMALE")},
    "CSS10": {"transcript.txt": lines(f"c#.wav|{T}|frase #|1.#")},
    "Chinese, with pinyin": {"list.txt": lines(f"c#|{T}|ka2 er2 #")},
    "Tatoeba": {"sentences.csv": lines(f"c#\tita\t{T}")},
    "a header in German": {"daten.csv": lines(f"c#.wav;{T};anna", header="Datei;Satz;Wer\n")},
    "SpeechBrain": {
        "train.csv": table(",", {"ID": "u#", "duration": "1", "wav": "$root/c#.wav", "wrd": T})
    },
    "SpeechBrain, JSON": {
        "train.json": json.dumps(
            {f"u{n}": {"wav": f"{{root}}/c{n}.wav", "words": TEXT.format(n)} for n in range(COUNT)}
        )
    },
    "a JSON each": {
        f"c{n}.json": json.dumps({"text": TEXT.format(n), "f0": [1, 2]}) for n in range(COUNT)
    },
    "a JSON each, with its words": {
        f"c{n}.json": json.dumps({"text": TEXT.format(n), "result": [{"word": "Frase"}, {}]})
        for n in range(COUNT)
    },
    "a JSON each, and its .txt": {
        f"c{n}.{kind}": TEXT.format(n) if kind == "txt" else '{"text": "prima"}'
        for n in range(COUNT)
        for kind in ("json", "txt")
    },
    "TIMIT": {f"c{n}.TXT": f"0 1600 {TEXT.format(n)}\n" for n in range(COUNT)},
    "Sphinx": {
        "etc/an4_train.transcription": lines(f"<s> {T} </s> (c#)"),
        "etc/an4_train.fileids": lines("c#"),
    },
    "NIST's .trn": {"ref.trn": lines(f"{T} (c#)")},
    "a list of files, and a .txt each": {
        "files": lines("c#"),
        **{f"c{n}.txt": TEXT.format(n) for n in range(COUNT)},
    },
    "KsponSpeech": {"train.trn": lines(f"c#.wav :: {T}")},
    "MFA's .lab": {f"c{n}.lab": TEXT.format(n) for n in range(COUNT)},
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_layout_is_recognised_by_its_files(corpus, kind):
    folder = corpus(**PLAIN[kind])
    assert said(folder) == {f"c{n}.wav": TEXT.format(n) for n in range(COUNT)}


def test_of_vctk_s_two_microphones_the_first_is_read(corpus):
    corpus("wav48/p225_{}_mic2.wav")
    texts = {f"txt/p225_{n}.txt": TEXT.format(n) for n in range(COUNT)}
    found = said(corpus("wav48/p225_{}_mic1.wav", **texts))
    assert found == {f"p225_{n}_mic1.wav": TEXT.format(n) for n in range(COUNT)}


def test_pinyin_between_the_characters_is_no_text(corpus):
    text = lines("c#.wav\t广 guang3 州 zhou1 女 nv3")
    found = read_recordings(str(corpus(**{"content.txt": text})), "zh")
    assert {one.text for one in found} == {"广州女"}


def test_one_clip_in_several_formats_is_read_once(corpus):
    for kind in ("mp3", "wav", "ogg"):
        corpus(f"wavs/c{{}}.{kind}")
    folder = corpus("wavs/c{}.flac", **{"metadata.csv": lines(f"c#|{T}")})
    assert said(folder) == {f"c{n}.flac": TEXT.format(n) for n in range(COUNT)}
    corpus("other/c{}.flac")  # another clip of the same name
    assert set(said(folder)) == {f"c{n}.flac" for n in range(COUNT)}


HTK = "0 2500000 sil\n2500000 4100000 p r\n"
ESPS = "0.23\t0.23\tspeech\n6.76\t6.76\tsilence\n"
AENEAS = 'f000001 0.000 2.680 "Prima"\nf000002 2.680 5.880 "frase"\n'


@pytest.mark.parametrize("aligned", [HTK, ESPS, AENEAS])
def test_times_and_labels_are_no_transcript(corpus, capsys, aligned):
    kind = "txt" if aligned is AENEAS else "lab"
    alone = corpus(**{f"c{n}.{kind}": aligned for n in range(COUNT)})
    with pytest.raises(RecipeError, match="no texts that are understood"):
        read_recordings(str(alone), "it")
    assert f"{COUNT} files such as c0.{kind} have times and labels" in capsys.readouterr().out
    other = "lab" if kind == "txt" else "txt"
    both = corpus(**{f"c{n}.{other}": TEXT.format(n) for n in range(COUNT)})
    assert said(both) == {f"c{n}.wav": TEXT.format(n) for n in range(COUNT)}


def test_a_text_of_no_sound_alone_is_no_layout(corpus):
    with pytest.raises(RecipeError, match=f"no texts that are understood; it holds {COUNT} × .wav"):
        read_recordings(str(corpus(**{"pip_requirements.txt": "numpy==2.3\n"})), "it")


def test_sounds_in_folders_below_the_table(corpus):
    folder = corpus("wavs/c{}.wav", **{"metadata.csv": lines(f"c#|{T}|frase")})
    assert said(folder) == {f"c{n}.wav": TEXT.format(n) for n in range(COUNT)}
    one = read_recordings(str(folder), "it")[0]
    assert one.id == "wavs/c0.wav"


def test_a_table_may_lie_above_the_folder_that_its_names_begin_in(corpus):
    corpus("train/a/c{}.wav")
    corpus("train/b/c{}.wav")
    rows = [f"{folder}/c{n}.wav|123|{folder} {n}" for folder in "ab" for n in range(COUNT)]
    table = "wav_filename|wav_filesize|transcript\n" + "\n".join(rows)
    found = read_recordings(str(corpus(count=0, **{"train.csv": table})), "en")
    assert {one.id: one.text for one in found} == {
        f"train/{folder}/c{n}.wav": f"{folder} {n}" for folder in "ab" for n in range(COUNT)
    }


def test_mls_has_its_splits_speakers_and_books_in_names(corpus):
    files = {}
    for split in ("train", "dev", "test"):
        for n in range(2):
            corpus(f"{split}/audio/{n}/7/{n}_7_00{{}}.wav", count=1)
        files[f"{split}/transcripts.txt"] = "".join(f"{n}_7_000\t{split} {n}\n" for n in range(2))
    found = read_recordings(str(corpus(count=0, **files)), "it")
    assert {(one.split, one.speaker, one.recording, one.text) for one in found} == {
        (split, str(n), f"{n}-7", f"{split} {n}")
        for split in ("train", "dev", "test")
        for n in (0, 1)
    }


@pytest.mark.parametrize(
    ("texts", "speakers"),
    [
        ({"84-121.trans.txt": "84-121-0000 UNO\n84-121-0001 DUE\n"}, {("84", "84-121")}),
        ({"84_121.trans.tsv": "84-121-0000\tUno.\tuno\n84-121-0001\tDue.\tdue\n"}, {("", "")}),
        ({"84-121-0000.original.txt": "Uno.", "84-121-0001.original.txt": "Due."}, {("", "")}),
    ],
    ids=["LibriSpeech", "LibriTTS, tables", "LibriTTS, a text each"],
)
def test_folders_of_librispeech_are_splits(corpus, texts, speakers):
    for split in ("train-clean-100", "dev-other", "test-clean"):
        corpus(f"{split}/84/121/84-121-000{{}}.flac", count=2)
        corpus(count=0, **{f"{split}/84/121/{name}": text for name, text in texts.items()})
    found = read_recordings(str(corpus(count=0)), "en")
    assert [one.split for one in found] == ["dev"] * 2 + ["test"] * 2 + ["train"] * 2
    assert {(one.speaker, one.recording) for one in found} == speakers


@pytest.mark.parametrize(
    ("tables", "splits"),
    [
        (
            {"train.csv": "train/c0.wav,a\n", "val.csv": "train/c1.wav,b\n"},
            {"c0": "train", "c1": "dev"},
        ),
        ({"train_test.csv": "train/c0.wav,a\ntest/d0.wav,b\n"}, {"d0": "test"}),
    ],
)
def test_a_table_s_name_comes_before_the_folder_if_it_is_one_split_s(corpus, tables, splits):
    corpus("train/c{}.wav")
    corpus("test/d{}.wav", **{name: HEADER + rows for name, rows in tables.items()})
    found = read_recordings(str(corpus(count=0)), "it")
    assert {one.path.stem: one.split for one in found}.items() >= splits.items()


def test_voxforge_keeps_its_sessions_apart(corpus):
    for session in ("anna-20090101-abc", "ugo-20100101-xyz"):
        corpus(f"{session}/wav/a000{{}}.wav", count=2)
        corpus(
            count=0,
            **{
                f"{session}/etc/PROMPTS": f"{session}/mfc/a0000 UNO\n{session}/mfc/a0001 DUE\n",
                f"{session}/etc/prompts-original": f"a0000 Uno, {session[0]}.\na0001 Due.\n",
                f"{session}/etc/README": "User Name: x\n",
            },
        )
    found = read_recordings(str(corpus(count=0)), "it")
    assert {(one.id, one.text, one.speaker) for one in found} == {
        ("anna-20090101-abc/wav/a0000.wav", "Uno, a.", "anna"),
        ("anna-20090101-abc/wav/a0001.wav", "Due.", "anna"),
        ("ugo-20100101-xyz/wav/a0000.wav", "Uno, u.", "ugo"),
        ("ugo-20100101-xyz/wav/a0001.wav", "Due.", "ugo"),
    }


def test_kaldi_s_segments_are_parts_and_its_commands_are_not_run(corpus):
    kaldi = {
        "train/text": "u1 uno\nu2 due\nu3 tre\n",
        "train/wav.scp": "r c0.wav\n",
        "train/segments": "u1 r 0.0 0.4\nu2 r 0.4 0.9\nu3 r 0.9 -1\n",  # -1: to the end
        "train/utt2spk": "u1 anna\nu2 ugo\n",
    }
    folder = corpus(seconds=1.0, **kaldi)
    one, two, three = read_recordings(str(folder), "it")
    assert (three.start, three.end) == (0.9, None)
    assert read_audio(three)[1] == pytest.approx(0.1)
    assert (one.text, one.start, one.end, one.speaker) == ("uno", 0.0, 0.4, "anna")
    assert (two.text, two.start, two.end, two.recording) == ("due", 0.4, 0.9, "r")
    assert read_audio(two)[1] == pytest.approx(0.5)
    command = "touch " + str(folder / "made") + " |"
    corpus(count=0, **{"train/wav.scp": f"r {command}\n"})
    with pytest.raises(RecipeError, match=r"wav.scp, line 1, is a command .*write the file's path"):
        read_recordings(str(folder), "it")
    assert not (folder / "made").exists()


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"start": "0.5", "end": "0.8"}, (0.5, 0.8)),
        ({"start_time": "0,5", "end_time": "0,8"}, (0.5, 0.8)),
        ({"begin": "0:00:00.5", "stop": "00:00,8"}, (0.5, 0.8)),
        ({"startTime": "0.5s", "endTime": "800ms"}, (0.5, 0.8)),
        ({"start": "0.5", "duration": "0.3"}, (0.5, 0.8)),
        ({"offset": "0.5", "duration": "0.3"}, (0.5, 0.8)),
        ({"start_ms": "500", "end_ms": "800"}, (0.5, 0.8)),
        ({"start [ms]": "500", "duration_milliseconds": "300"}, (0.5, 0.8)),
        ({"Begin Time": "0.5", "End Time": "0.8"}, (0.5, 0.8)),
        ({"segment_start": "0.5", "segment_end": "0.8"}, (0.5, 0.8)),
        ({"xmin": "0.5", "xmax": "0.8"}, (0.5, 0.8)),
        ({"duration": "1.0"}, (None, None)),
        ({"start_date": "2021-03-01"}, (None, None)),
        ({"weekend": "1"}, (None, None)),
    ],
)
def test_times_are_read_by_the_names_and_forms_that_people_use(corpus, columns, part):
    row = {"file_name": "c0.wav", "text": "ciao", **columns}
    table = io.StringIO()
    csv.writer(table).writerows([row, row.values()])
    folder = corpus(count=1, seconds=1.0, **{"list.csv": table.getvalue()})
    (one,) = read_recordings(str(folder), "it")
    assert (one.start, one.end) == (pytest.approx(part[0]), pytest.approx(part[1]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"start_sample": "8000", "end_sample": "9000"}, '"start_sample" holds times'),
        ({"start_page_time": "1.0"}, '"start_page_time" holds times .* not understood'),
        ({"start": "00:00:01:12", "end": "3"}, 'start = "00:00:01:12" is no number of seconds'),
        ({"start": "-1", "end": "3"}, 'start = "-1" is no number of seconds'),
        ({"start": "2", "end": "1"}, "before it starts"),
        ({"start": "0", "start_ms": "0"}, '"start_ms" holds times'),
        ({"start": "500", "end": "800"}, "if these are milliseconds, call the columns start_ms"),
    ],
)
def test_a_time_that_is_not_understood_is_never_passed_over(corpus, columns, message):
    row = {"file_name": "c0.wav", "text": "ciao", **columns}
    table = io.StringIO()
    csv.writer(table).writerows([row, row.values()])
    with pytest.raises(RecipeError, match=message):
        read_recordings(str(corpus(seconds=1.0, **{"list.csv": table.getvalue()})), "it")


def test_label_studio_s_regions_are_parts(corpus):
    region = {"start": 0.1, "end": 0.4, "channel": 0}
    result = [
        {"id": "r", "value": region | {"labels": ["anna"]}, "type": "labels"},
        {"id": "r", "value": region | {"text": ["Uno,", "due."]}, "type": "textarea"},
        {"id": "s", "value": region | {"labels": ["rumore"]}, "type": "labels"},
    ]
    task = {
        "data": {"audio": "/data/upload/1/0a1b2c3d-c0.wav"},
        "annotations": [{"result": result}],
    }
    mini = {
        "audio": "/data/upload/1/0a1b2c3d-c0.wav",
        "annotator": 1,
        "transcription": ["Uno, due."],
    }
    mini["label"] = [region | {"labels": ["anna"]}]
    cells = {key: json.dumps(v) if isinstance(v, list) else str(v) for key, v in mini.items()}
    sheet = io.StringIO()
    csv.writer(sheet).writerows([cells, cells.values()])
    for name, content in {
        "a.json": json.dumps([task]),
        "b.json": json.dumps([mini]),
        "c.csv": sheet.getvalue(),
    }.items():
        folder = corpus(count=1, seconds=1.0, **{name: content})
        (one,) = read_recordings(str(folder / name), "it")
        assert (one.text, one.start, one.end, one.speaker) == ("Uno, due.", 0.1, 0.4, "anna"), name


def test_a_task_of_label_studio_without_a_text_costs_itself(corpus):
    tasks = [json.loads(line) for line in jsons(**LOCAL, annotator=1).splitlines()]
    del tasks[0]["transcription"]
    texts = ["", *(TEXT.format(n) for n in range(1, COUNT))]
    assert list(said(corpus(**{"min.json": json.dumps(tasks)})).values()) == texts


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"Disse ""frase numero #""."', 'Disse "frase numero 0".'),  # pandas
        ('"Sì, no"', "Sì, no"),  # Excel
        ('"Sì" disse', '"Sì" disse'),
    ],
)
def test_quotes_of_a_tsv_are_the_format_s_or_the_sentence_s(corpus, cell, text):
    folder = corpus(**{"metadata.tsv": lines(f"c#.wav\t{cell}", header="file_name\ttext\n")})
    assert said(folder)["c0.wav"] == text


@pytest.mark.parametrize("where", [30, 58])
@pytest.mark.parametrize("close", [False, True])
def test_a_stray_quote_is_told_by_its_line_and_swallows_nothing(corpus, where, close):
    stray = (where, where + 1) if close else (where,)
    rows = [f"c{n}.wav," + '"' * (n in stray) + f"frase {n}" for n in range(60)]
    folder = corpus(count=60, **{"metadata.csv": "file_name,text\n" + "\n".join(rows) + "\n"})
    with pytest.raises(RecipeError, match=rf"metadata.csv, line {where + 2}: a quote"):
        read_recordings(str(folder), "it")


def test_a_text_of_two_lines_between_quotes_is_one_text(corpus):
    rows = 'file_name,text\nc0.wav,"uno,\ndue"\nc1.wav,tre\n'
    assert said(corpus(count=2, **{"metadata.csv": rows})) == {
        "c0.wav": "uno,\ndue",
        "c1.wav": "tre",
    }


@pytest.mark.parametrize(("table", "disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_the_same_in_any_form_of_unicode(corpus, table, disk):
    sounds = unicodedata.normalize(disk, "perché{}.wav")
    rows = unicodedata.normalize(table, lines(f"perché{ROW[1:]}", header=HEADER))
    assert len(said(corpus(sounds, **{"metadata.csv": rows}))) == COUNT


def test_files_that_are_not_there_are_told_and_cost_their_clips(corpus, capsys):
    rows = lines(ROW, count=COUNT + 1, header=HEADER)
    found = read_recordings(str(corpus(**{"metadata.csv": rows})), "it")
    assert [one.path.is_file() for one in found] == [True] * COUNT + [False]
    said_of = capsys.readouterr().out
    assert f"1 of {COUNT + 1} files that the table names are not there" in said_of
    assert "c4.wav; there is" in said_of


def test_what_is_in_no_table_is_told(corpus, capsys):
    rows = lines(ROW, count=3, header=HEADER)
    assert len(read_recordings(str(corpus(**{"metadata.csv": rows})), "it")) == 3
    assert "1 sound files of" in (out := capsys.readouterr().out) and "c3.wav" in out


def test_the_same_name_in_another_folder_is_not_taken_for_a_missing_file(corpus):
    corpus("train/c{}.wav", count=2)
    corpus("test/c{}.wav", count=3)
    rows = {"train/metadata.csv": lines(ROW, count=3, header=HEADER)}
    found = read_recordings(str(corpus(count=0, **rows)), "it")
    assert [one.path.is_file() for one in found] == [True, True, False]


@pytest.mark.parametrize(
    "files",
    [
        {"notes.xlsx": b"PK\x03\x04"},
        {"a.csv": "speaker,age\nanna,9\n"},
        {"c0.docx": b"PK\x03\x04"},
        {"README.txt": "c0 is one"},
    ],
)
def test_a_folder_whose_texts_were_not_found_says_what_else_lies_there(corpus, files):
    folder = corpus(**files)
    with pytest.raises(RecipeError) as found:
        read_recordings(str(folder), "it")
    message = str(found.value)
    suffix = "." + next(iter(files)).rpartition(".")[2]
    assert f"{COUNT} × .wav" in message and f"1 × {suffix}" in message and "metadata.csv" in message


def test_two_metadata_files_do_not_double_the_data(corpus, capsys):
    rows = table(",", CSV), jsons(**CSV)
    folder = corpus(**{"metadata.csv": rows[0], "metadata.jsonl": rows[1]})
    assert len(read_recordings(str(folder), "it")) == COUNT
    assert f"{COUNT} clips are named twice" in capsys.readouterr().out
    corpus(**{"metadata.jsonl": rows[1].replace("davvero", "forse")})
    with pytest.raises(RecipeError, match=r"named a second time, and .*metadata.csv, line 2"):
        read_recordings(str(folder), "it")


@pytest.mark.parametrize("value", [{"it": "ciao"}, ["ciao"], True])
def test_a_structure_is_no_text(corpus, value):
    folder = corpus(**{"metadata.jsonl": json.dumps({"file_name": "c0.wav", "text": value})})
    with pytest.raises(RecipeError, match=r"the text is a (dict|list|bool)"):
        read_recordings(str(folder), "it")


def test_numbers_are_texts(corpus):
    rows = "".join(json.dumps({"file_name": f"c{n}.wav", "text": n}) + "\n" for n in range(COUNT))
    assert list(said(corpus(**{"metadata.jsonl": rows})).values()) == ["0", "1", "2", "3"]
    import pyarrow as pa
    import pyarrow.parquet as parquet

    names = [f"c{n}.wav" for n in range(COUNT)]
    folder = corpus()
    (folder / "metadata.jsonl").unlink()
    parquet.write_table(
        pa.table({"path": names, "text": [0.0, None, 2.5, 7.0]}), folder / "a.parquet"
    )
    assert list(said(folder).values()) == ["0", "", "2.5", "7"]


def test_columns_may_be_named_in_the_recipe(corpus):
    rows = lines("c#.wav,no.wav,sbagliato,giusto", header="dove,file_name,text,detto\n")
    folder = corpus(**{"metadata.csv": rows})
    found = said(folder, text_column="detto", audio_column="dove")
    assert found == {f"c{n}.wav": "giusto" for n in range(COUNT)}
    with pytest.raises(RecipeError, match='the column "qui" is missing; it has dove, file_name'):
        said(folder, audio_column="qui")


@pytest.mark.parametrize("third", ["anna", "ugo"])
def test_a_speaker_in_a_table_without_a_header_is_no_text(corpus, third):
    middle = lines(f"c#|{third}|{T}")
    last = lines(f"c#|{T}|{third}")
    for rows in (middle, last):
        found = read_recordings(str(corpus(**{"metadata.csv": rows})), "it")
        assert {(one.text, one.speaker) for one in found} == {
            (TEXT.format(n), third) for n in range(COUNT)
        }


@pytest.mark.parametrize(
    ("files", "speaker"),
    [
        ({"transcript.txt": lines(f"c#.wav|{T}|frase|1.00")}, ""),  # CSS10: the last is seconds
        ({"train.tsv": lines(f"1#\tc#.wav\t{T}\tfrase\tf r\t1600\tMALE")}, ""),  # all one sex
        ({"line_index.tsv": lines(f"c#\tanna\t{T}")}, "anna"),
        ({f"c{n}.json": json.dumps({"text": "a", "speaker": "anna"}) for n in range(4)}, "anna"),
    ],
)
def test_what_recurs_in_a_column_is_a_speaker_only_where_it_can_be_one(corpus, files, speaker):
    found = read_recordings(str(corpus(**files)), "it")
    assert [one.speaker for one in found] == [speaker] * COUNT


@pytest.mark.parametrize(
    "others",
    [
        {"utt2dur.tsv": lines("c#\t1.#")},
        {"utt2spk.tsv": lines("c#\tanna")},
        {"asr.tsv": lines("c#\tun'altra frase #")},
        {f"c{n}.json": json.dumps({"text": "altro"}) for n in range(COUNT)},
    ],
)
def test_a_table_with_a_header_is_not_contradicted_by_what_has_none(corpus, others):
    folder = corpus(**{"metadata.csv": table(",", CSV)}, **others)
    assert said(folder) == {f"c{n}.wav": TEXT.format(n) for n in range(COUNT)}


SPEAKERS = lines("c# anna")
SECONDS = lines("c# 3.#5")


@pytest.mark.parametrize("other", [SPEAKERS, SECONDS])
@pytest.mark.parametrize("texts", ["list", "each"])
def test_a_list_of_speakers_or_seconds_does_not_hide_the_texts(corpus, texts, other):
    files = {f"c{n}.txt": TEXT.format(n) for n in range(COUNT)}
    files = files if texts == "each" else {"texts.txt": lines(f"c# {T}")}
    found = said(corpus(**files, **{"a.txt": other}))
    assert found.items() >= {f"c{n}.wav": TEXT.format(n) for n in range(COUNT)}.items()


@pytest.mark.parametrize("form", ["c#", "c#.wav", "sounds/c#.wav"])
def test_lists_of_names_alone_say_which_split_they_are(corpus, form):
    each = {f"sounds/c{n}.txt": TEXT.format(n) for n in range(6)}
    named = lines(form, count=6).splitlines(keepends=True)
    splits = {"train.txt": "".join(named[:3]), "lists/dev.lst": named[3], "test_set.txt": named[4]}
    found = read_recordings(str(corpus("sounds/c{}.wav", count=6, **each, **splits)), "it")
    order = ["train", "train", "train", "dev", "test", "train"]
    assert [one.split for one in found] == order and len(found) == 6
    own = corpus("sounds/test_{}.wav", count=1, **{"sounds/test_0.txt": "c0"})  # a text, by chance
    assert read_recordings(str(own), "it")[0].split == "train"


@pytest.mark.parametrize("name", ["train_notes.txt", "c0.json"])
def test_a_file_beside_a_table_may_have_another_encoding(corpus, name):
    notes = {name: "perché".encode("latin-1")}
    found = said(corpus(**notes, **{"metadata.csv": table(",", CSV)}))
    assert found == {f"c{n}.wav": TEXT.format(n) for n in range(COUNT)}


def test_commands_that_recur_are_texts_where_there_are_no_others(corpus):
    found = said(corpus(**{"labels.txt": lines("c# avanti"), "utt2spk": SPEAKERS}))
    assert found == {f"c{n}.wav": "avanti" for n in range(COUNT)}
    with pytest.raises(RecipeError, match="no texts that are understood"):
        said(corpus(**{"labels.txt": "", "utt2dur": SECONDS}))


@pytest.mark.parametrize("nobody", ["N/A", "unknown", None, float("nan")])
def test_nobody_is_no_speaker_and_no_split(corpus, nobody):
    folder = corpus(
        **{"a.jsonl": jsons(file="c#.wav", text="frase #", speaker=nobody, split=nobody)}
    )
    found = read_recordings(str(folder), "it")
    assert {one.speaker for one in found} == {""}
    assert {one.split for one in found} == {"train", "dev", "test"}


def test_lists_of_speakers_and_seconds_are_no_texts(corpus):
    folder = corpus(**{"utt2dur.tsv": lines("c#\t1.#"), "utt2spk.tsv": lines("c#\tanna")})
    with pytest.raises(RecipeError, match="holds no texts"):
        said(folder)


STM = """;; a comment
c0 1 anna 0.00 0.50 <o,f0,female> Prima frase.
c0 1 ugo 0.50 0.75 Seconda.
c0 1 inter_segment_gap 0.75 0.80 <o,,> ignore_time_segment_in_scoring
"""


def test_an_stm_file_lists_parts_with_speakers(corpus):
    first, second = read_recordings(str(corpus(count=1, seconds=1, **{"stm/dev.stm": STM})), "it")
    assert (first.text, first.start, first.end) == ("Prima frase.", 0.0, 0.5)
    assert (second.text, second.speaker, second.recording) == ("Seconda.", "ugo", "c0")
    assert {first.split, second.split} == {"dev"}
    with pytest.raises(RecipeError, match=r"x\.stm, line 1, is no segment of an STM file"):
        read_recordings(str(corpus(**{"x.stm": "c0 1 anna Prima frase."})), "it")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("talk.cha", "ELAN opens .cha"),
        ("train.yaml", "a table of MuST-C's .yaml"),
        ("shard-000.tar", "Unpack an archive"),
        ("cuts.jsonl.gz", "lhotse kaldi export"),
        ("texts.docx", "as plain text"),
        ("texts.xlsx", "as CSV"),
        ("daten.csv", "line 2: the column of the file's name .* it has Datei, Text. The recipe's"),
    ],
)
def test_what_is_not_read_leads_to_what_is(corpus, name, way):
    with pytest.raises(RecipeError, match=way):
        said(corpus(**{name: "Datei,Text\nx,y\n" if name.endswith("csv") else "x"}))


def test_common_voice_s_own_table_leads_to_its_reader(corpus):
    header = "client_id\tpath\tsentence\tup_votes\n"
    folder = corpus(**{"validated.tsv": lines("x\tc#.wav\tciao\t2", header=header)})
    with pytest.raises(RecipeError, match='dataset = "common_voice"'):
        read_recordings(str(folder), "it")
