import io
import json

import numpy as np
import pytest
import soundfile

from utils.config import RecipeError, Source
from utils.streaming.files import read_text
from utils.streaming.parts import read_audio
from utils.streaming.recordings import read_recordings
from utils.streaming.sound import decode_audio
from utils.streaming.sources import SCHEMA, stream


def write(folder, wav, **files):
    """Write files: bytes and text as they are, a number as so many seconds of a tone."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, float):
            path.write_bytes(wav(content))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def texts(folder):
    return {one.id: one.text for one in read_recordings(str(folder), "it")}


def test_texts_are_matched_by_name_whatever_the_order(tmp_path, wav):
    pairs = {"b.wav": 1.0, "a.wav": 2.0, "deep/b.wav": 1.0, "c.wav": 1.0, "README.txt": "read me"}
    write(tmp_path, wav, **pairs, **{"a.txt": "uno\n", "b.txt": "due", "deep/b.txt": "tre"})
    write(tmp_path, wav, **{"d.txt": "senza suono"})
    found = texts(tmp_path)
    assert {key: text.strip() for key, text in found.items()} == {
        "a.wav": "uno",
        "b.wav": "due",
        "deep/b.wav": "tre",
        "c.wav": "",
        "d.wav": "senza suono",
    }
    alone = next(one for one in read_recordings(str(tmp_path), "it") if one.id == "d.wav")
    assert read_audio(alone) == (b"", None)


def test_a_link_that_leads_back_is_not_followed_and_another_one_is(tmp_path, wav):
    data = write(tmp_path / "data", wav, **{"a.wav": 1.0, "a.txt": "uno", "x/b.wav": 1.0})
    write(tmp_path / "disk", wav, **{"c.wav": 1.0, "c.txt": "tre"})
    for place, goal in {"self": ".", "x/up": "..", "all": "/", "disk": "../disk"}.items():
        (data / place).symlink_to(goal)
    (tmp_path / "disk/back").symlink_to(data)
    assert texts(data) == {"a.wav": "uno", "disk/c.wav": "tre", "x/b.wav": ""}


METADATA = {
    "csv": 'file_name,text\r\nb.wav,"due, virgola"\r\na.wav,"uno ""tra virgolette"""\r\n',
    "tsv": 'file_name\ttext\nb.wav\tdue, virgola\na.wav\tuno "tra virgolette"\n',
    "jsonl": '{"file_name": "b.wav", "text": "due, virgola"}\n\n'
    '{"file_name": "a.wav", "text": "uno \\"tra virgolette\\""}\n',
}


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 290403936\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", METADATA)
def test_a_folder_with_metadata_in_any_form_and_mark(tmp_path, wav, kind, encoding):
    write(tmp_path, wav, **{"a.wav": 1.0, "b.wav": 2.0})
    (tmp_path / f"metadata.{kind}").write_bytes(METADATA[kind].encode(encoding))
    assert texts(tmp_path) == {"b.wav": "due, virgola", "a.wav": 'uno "tra virgolette"'}


@pytest.mark.parametrize(
    "text", ["مرحبا بالعالم", "שלום עולם", "ciao 👋🏽 mondo", "una riga\u2028sola", "ދިވެހި ބަސް"]
)
@pytest.mark.fault(19)
def test_any_script_and_emoji_come_through(tmp_path, wav, text):
    row = json.dumps({"file_name": "a.wav", "text": text}, ensure_ascii=False)
    write(tmp_path, wav, **{"a.wav": 1.0, "metadata.jsonl": row + "\r\n"})
    assert texts(tmp_path) == {"a.wav": text}


@pytest.mark.fault(19)
def test_another_encoding_is_refused_with_its_line(tmp_path, wav):
    (tmp_path / "metadata.csv").write_bytes("file_name,text\na.wav,perché\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"metadata.csv, line 2, is not UTF-8: save it as UTF-8"):
        read_text(tmp_path / "metadata.csv")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, "leads out of") for name in ("../a.wav", "/etc/passwd", "in/../../a.wav")),
        *((name, "leads out of") for name in ("C:\\a.wav", "..\\a.wav")),
        ("https://example.org/a.wav", "is an address, and sound is not fetched from"),
    ],
)
def test_a_path_out_of_the_folder_is_refused(tmp_path, wav, name, message):
    write(
        tmp_path,
        wav,
        **{"a.wav": 1.0, "data/b.wav": 1.0, "data/list.tsv": f"file_name\ttext\n{name}\tciao\n"},
    )
    with pytest.raises(RecipeError, match=message):
        read_recordings(str(tmp_path / "data/list.tsv"), "it")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no recordings that are understood; it holds no files"),
        (
            {"metadata.csv": "file_name,said\na.wav,ciao\n"},
            'no column "text"; it has file_name, said',
        ),
        ({"metadata.csv": "voce,text\na,ciao\n"}, r"the file's name \(file_name\) is missing"),
        ({"metadata.jsonl": "not json"}, "line 1, is no JSON"),
        ({"metadata.csv": "file_name,text,start\na.wav,ciao,late\n"}, "no number of seconds"),
        ({"metadata.csv": "file_name,text,start,end\na.wav,ciao,2,1\n"}, "before it starts"),
        (
            {"metadata.csv": "file_name,text\nz.wav,ciao\n"},
            r"not there.* first is .*z.wav; there",
        ),
        ({"metadata.csv": "file_name,text\na.wav,ciao, come va\n"}, "line 2, has more cells"),
        ({"metadata.tsv": "file_name\ttext\na.wav\tciao\tcome va\n"}, "line 2, has more cells"),
        ({"metadata.csv": "file_name,text\na.wav,uno\na.wav,due\n"}, "a.wav is named a second"),
        ({"metadata.csv": "file_name,text,text\na.wav,uno,due\n"}, 'two columns called "text"'),
        ({"metadata.csv": "file_name,text\n"}, "or there is no row"),
        ({"metadata.csv": POINTER}, r"metadata\.csv is a pointer of Git LFS: run `git lfs pull`"),
        ({"metadata.parquet": POINTER}, "no Parquet file that can be read: a pointer of Git LFS"),
        ({"metadata.csv": "PK\x03\x04"}, r"metadata\.csv is a ZIP archive: unpack it"),
        ({"a.txt": "<!DOCTYPE html><p>ciao"}, r"a\.txt is a web page: download the file itself"),
        ({"metadata.parquet": "PAR1 cut off"}, "metadata.parquet is no Parquet file that can be"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path, wav, files, message):
    write(tmp_path, wav, **({"a.wav": 1.0} if files else {}))
    with pytest.raises(RecipeError, match=message):
        read_recordings(str(write(tmp_path, wav, **files)), "it")
    with pytest.raises(RecipeError, match="neither a folder nor a table"):
        read_recordings(str(tmp_path / "no"), "it")
    with pytest.raises(RecipeError, match=r"neither a folder nor a table.*Unpack an archive"):
        read_recordings(str(tmp_path / "no.zip"), "it")


def test_start_and_end_cut_the_clip(tmp_path, wav):
    steps = np.repeat([0.0, 0.5, 0.0], 8000)  # half a second each
    write(tmp_path, wav, **{"long.wav": wav(samples=steps)})
    rows = "file_name,text,start,end\nlong.wav,uno,0.5,1.0\nlong.wav,due,1.0,\nlong.wav,tre,9,10\n"
    write(tmp_path, wav, **{"list.csv": rows})
    first, second, outside = read_recordings(str(tmp_path / "list.csv"), "it")
    assert first.id == "long.wav@0.5"
    audio, seconds = read_audio(first)
    assert seconds == 0.5
    assert np.abs(decode_audio(audio) - 0.5).max() < 1e-3
    assert np.abs(decode_audio(read_audio(second)[0])).max() == 0
    assert read_audio(outside)[1] == 0


@pytest.mark.parametrize("kind", ["an MP3 without its length", "a WAV without its length"])
def test_a_part_is_read_where_the_header_does_not_say_how_long_the_sound_is(tmp_path, wav, kind):
    loud, file = 0.3 * np.random.default_rng(0).standard_normal(160_000), io.BytesIO()
    sound = np.concatenate([loud, np.zeros(160_000), loud[:16_000]])
    if "MP3" in kind:
        how = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
        soundfile.write(file, sound, 16_000, format="MP3", **how)
        data = file.getvalue()
        data = data[data.index(data[:2], 10) :]  # the first frame holds the tag
    else:
        data = bytearray(wav(samples=sound))
        at = data.index(b"data") + 4
        data[at : at + 4] = bytes(4)
    rows = "file_name,text,start,end\nlong,uno,17,19\nlong,due,20.2,20.7\nlong,tre,4,6\n"
    write(tmp_path, wav, **{f"long.{kind.split()[1].lower()}": bytes(data), "list.csv": rows})
    quiet, end, begin = map(read_audio, read_recordings(str(tmp_path / "list.csv"), "it"))
    assert [part[1] for part in (quiet, end, begin)] == pytest.approx([2, 0.5, 2], abs=0.01)
    levels = [np.abs(decode_audio(part[0])).mean() for part in (quiet, end, begin)]
    assert levels[0] < 0.01 < 0.1 < min(levels[1:])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
def test_a_part_is_as_loud_as_it_was(tmp_path, wav, subtype):
    write(tmp_path, wav, **{"long.wav": wav(samples=np.full(16_000, 0.5), subtype=subtype)})
    write(tmp_path, wav, **{"list.csv": "file_name,text,start,end\nlong.wav,uno,0.2,0.8\n"})
    (part,) = read_recordings(str(tmp_path / "list.csv"), "it")
    assert np.abs(decode_audio(read_audio(part)[0]) - 0.5).max() < 1e-3


def test_splits_come_from_folders_or_a_column_and_are_kept(tmp_path, wav):
    for split in ("train", "validation", "test"):
        write(tmp_path, wav, **{f"{split}/metadata.csv": f"file_name,text\na.wav,{split} uno\n"})
        write(tmp_path, wav, **{f"{split}/a.wav": 1.0})
    source = Source("recordings", "it", str(tmp_path))
    for split, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        assert [row["text"] for row in stream(source, split)] == [f"{name} uno"]
    write(tmp_path, wav, **{"list.csv": "file_name,text,split\na.wav,uno,valid\nb.wav,due,\n"})
    write(tmp_path, wav, **{"a.wav": 1.0, "b.wav": 1.0})
    splits = [one.split for one in read_recordings(str(tmp_path / "list.csv"), "it")]
    assert splits == ["dev", "train"]
    with pytest.raises(RecipeError, match=r'no recordings in the split "test"; it has dev, train'):
        stream(Source("recordings", "it", str(tmp_path / "list.csv")), "test")


def test_without_splits_sentences_are_dealt_out_for_good_and_apart(tmp_path, wav):
    rows = [f"clip{i}.wav,Frase numero {i % 20}{'!' * (i // 20)}" for i in range(40)]
    write(tmp_path, wav, **{f"clip{i}.wav": 0.1 for i in range(40)})
    write(tmp_path, wav, **{"metadata.csv": "\n".join(["file_name,text", *rows])})
    found = read_recordings(str(tmp_path), "it")
    sentences = {
        split: {one.text.rstrip("!") for one in found if one.split == split}
        for split in ("train", "dev", "test")
    }
    assert {split: len(texts) for split, texts in sentences.items()} == dict(
        train=16, dev=2, test=2
    )
    assert len(set.union(*sentences.values())) == 20, "a sentence stands in two splits"
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,text", *rows[::-1]]))
    again = {one.id: one.split for one in read_recordings(str(tmp_path), "it")}
    assert again == {one.id: one.split for one in found}


def test_the_stream_has_the_schema_and_names_no_folder_of_the_machine(tmp_path, wav):
    folder = write(tmp_path / "my voice", wav, **{f"{i}.wav": 1.5 for i in range(3)})
    write(folder, wav, **{f"{i}.txt": f"frase {i}" for i in range(3)})
    row = next(iter(stream(Source("recordings", "it", str(folder)), "train")))
    assert list(row) == list(SCHEMA)
    assert row["source"] == "it my voice"
    assert row["seconds"] == pytest.approx(1.5)
    assert str(tmp_path) not in str({key: row[key] for key in row if key != "audio"})
    assert soundfile.info(folder / row["id"].removeprefix("it my voice/")).duration == 1.5
