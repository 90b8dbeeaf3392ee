"""Columns of data sets in the Hub's layout, whatever they are called and hold."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from utils.config import RecipeError, Source
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream

COUNT = 3


@pytest.fixture
def hub(tmp_path):
    """Return a function that writes a data set of one Parquet file, columns by row number."""

    def write(**columns):
        rows = [{name: make(n) for name, make in columns.items()} for n in range(COUNT)]
        parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train-0.parquet")
        return tmp_path

    return write


def rows_of(folder, **of):
    whole = {"dev": "", "test": ""}  # else a tenth of the few rows is held out of train
    return list(stream(Source(str(folder), "it", **whole, **of), "train"))


def text(n):
    return f"frase {n}"


@pytest.mark.parametrize("kind", ["bytes", "array", "float list", "path", "renamed"])
def test_sound_is_found_and_decoded_however_it_is_held(hub, wav, tmp_path, kind):
    tone = 0.3 * np.sin(np.arange(16_000) / 20)
    for n in range(COUNT):
        (tmp_path / f"c{n}.wav").write_bytes(wav(samples=tone))
    folder = hub(
        **{
            "bytes": {"audio": lambda n: {"bytes": wav(samples=tone), "path": None}, "text": text},
            "array": {"audio": lambda n: {"array": tone, "sampling_rate": 16_000}, "text": text},
            "float list": {
                "audio": lambda n: tone,
                "sampling_rate": lambda n: 16_000,
                "text": text,
            },
            "path": {"audio": lambda n: f"c{n}.wav", "text": text},
            "renamed": {"speech": lambda n: {"bytes": wav(samples=tone)}, "sentence": text},
        }[kind]
    )
    rows = rows_of(folder)
    assert [row["text"] for row in rows] == [text(n) for n in range(COUNT)]
    for row in rows:
        np.testing.assert_allclose(decode_audio(row["audio"]), tone, atol=1e-4)


def test_a_csv_has_paths_relative_to_its_data_set_and_numbers_are_texts(tmp_path, wav):
    (tmp_path / "clips").mkdir()
    for n in range(COUNT):
        (tmp_path / f"clips/{n}.wav").write_bytes(wav(1.0))
    lines = "".join(f"clips/{n}.wav,{n}\n" for n in range(COUNT))
    (tmp_path / "train.csv").write_text("path,label\n" + lines)
    rows = rows_of(tmp_path, text_column="label")
    assert [row["text"] for row in rows] == ["0", "1", "2"]
    assert [row["seconds"] for row in rows] == [1.0] * COUNT


def test_texts_and_speakers_in_a_structure_are_found(tmp_path, wav):
    """WebDataset: a tar with a sound and a JSON for each clip."""
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for n in range(COUNT):
            about = json.dumps({"text": text(n), "speaker": "anna", "duration": 1.0}).encode()
            for name, data in ((f"{n}.wav", wav(1.0)), (f"{n}.json", about)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    rows = rows_of(tmp_path)
    assert [row["text"] for row in rows] == [text(n) for n in range(COUNT)]
    assert {(row["speaker"], row["seconds"]) for row in rows} == {("anna", 1.0)}


def test_a_column_beside_a_structure_comes_first(hub, wav):
    sound = {"bytes": wav(1.0)}
    inner = {"text": "altro", "speaker": "anna"}
    (row, *_) = rows_of(hub(audio=lambda n: sound, text=text, about=lambda n: inner))
    assert (row["text"], row["speaker"]) == (text(0), "anna")


def test_a_part_that_nist_does_not_score_is_no_clip(hub, wav):
    said = [text(0), "ignore_time_segment_in_scoring", text(2)]
    rows = rows_of(hub(audio=lambda n: {"bytes": wav(1.0)}, text=said.__getitem__))
    assert [row["text"] for row in rows] == [text(0), text(2)]


@pytest.mark.parametrize(
    ("named", "of", "kept"),
    [
        (["it", "igbo", "German"], {}, [0, 1]),  # Whisper has no Igbo: the nearest one is meant
        (["it-IT", None, "pt"], {}, [0, 1]),
        (["de", "de", "de"], {}, []),
        (["de", "de", "de"], {"speaks": "Ladin"}, [0, 1, 2]),
        ([["it"], ["de"], ["de"]], {}, [0, 1, 2]),
    ],
)
def test_a_row_that_names_another_language_is_not_trained_as_this_one(hub, wav, named, of, kept):
    folder = hub(audio=lambda n: {"bytes": wav(1.0)}, text=text, lang=named.__getitem__)
    rows = rows_of(folder, **of)
    assert [n for n, row in enumerate(rows) if not row["fault"]] == kept
    assert all("column lang" in row["fault"] for n, row in enumerate(rows) if n not in kept)


def test_a_folder_without_texts_leads_to_recordings(tmp_path, wav):
    (tmp_path / "train").mkdir()
    for n in range(COUNT):
        (tmp_path / f"train/{n}.wav").write_bytes(wav(1.0))
        (tmp_path / f"train/{n}.txt").write_text(text(n))
    with pytest.raises(RecipeError, match='is dataset = "recordings" with name = '):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/etc/hostname", "outside of the data set"),
        ("../secret.wav", "outside of the data set"),
        ("http://127.0.0.1:1/a.wav", "an address, which is not fetched"),
        ("clips/none.wav", "not in the data set"),
        ("UklGRiQZAAB" * 500, "text in place of sound"),
    ],
)
def test_a_row_opens_no_file_beyond_its_data_set_and_says_why(hub, tmp_path, wav, name, fault):
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "secret.wav").write_bytes(wav(1.0))
    rows = [{"audio": {"bytes": None, "path": name}, "text": "ciao"}]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "train-0.parquet")
    (row,) = rows_of(folder)
    assert row["audio"] == b"" and fault in row["fault"]


@pytest.mark.parametrize(
    ("columns", "of", "message"),
    [
        ({"text": text, "x": text}, {}, r'no column "audio"; it has text, x. Set audio_column'),
        ({"audio": text, "text": lambda n: {"it": "a"}}, {}, r'"text" holds no texts but'),
        ({"audio": text, "text": lambda n: ["a"]}, {}, r'"text" holds no texts but'),
        (
            {"audio": text, "text": text},
            {"audio_column": "sound"},
            r'no column "sound"; it has audio',
        ),
    ],
)
def test_what_is_no_sound_or_no_text_is_told(hub, columns, of, message):
    with pytest.raises(RecipeError, match=message):
        rows_of(hub(**columns), **of)


def test_the_column_of_sound_may_be_named_in_the_recipe(hub, wav):
    sound = {"bytes": wav(1.0)}
    folder = hub(near=lambda n: sound, far=lambda n: {"bytes": wav(2.0)}, text=text)
    assert [row["seconds"] for row in rows_of(folder, audio_column="far")] == [2.0] * COUNT
    with pytest.raises(RecipeError, match="Set audio_column in the recipe"):
        rows_of(folder)


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    (tmp_path / "train-0.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(RecipeError, match="git lfs pull"):
        rows_of(tmp_path)


def test_samples_without_a_rate_are_told(hub):
    folder = hub(audio=lambda n: [0.1, 0.2], text=text)
    with pytest.raises(RecipeError, match="nothing says how many of them are a second"):
        rows_of(folder)


@pytest.fixture
def parts(tmp_path, wav, capsys):
    """Return a function that writes splits of 200 numbered rows, and returns what a recipe gets."""
    sound = {"bytes": wav(0.1), "path": None}

    def get(*splits, speakers=0, inside=False, **of):
        for split in splits:
            table = [{"audio": sound, "text": f"{split} {n // 2}"} for n in range(200)]
            for n, row in enumerate(table):
                known = {"Speaker": f"s{n % speakers}"} if speakers else {}
                row |= {"json": known} if inside else known
            parquet.write_table(pa.Table.from_pylist(table), tmp_path / f"{split}-0.parquet")
        source = Source(str(tmp_path), "it", **of)
        used = {
            use: getattr(source, use) for use in ("train", "dev", "test") if getattr(source, use)
        }
        found = {use: list(stream(source, split)) for use, split in used.items()}
        return found, capsys.readouterr().out

    return get


@pytest.mark.parametrize(
    ("splits", "of", "missing"),
    [
        (["train"], {}, {"dev", "test"}),
        (["train"], {"dev": "validation"}, {"dev", "test"}),
        (["train"], {"dev": ""}, {"test"}),
        (["train"], {"train": "train", "dev": "", "test": ""}, set()),
        (["train", "test"], {}, {"dev"}),
        (["train", "validation", "test"], {"dev": "validation"}, set()),
        (["train", "validation"], {"train": "train+validation", "dev": ""}, {"test"}),
    ],
)
def test_a_split_that_is_missing_is_a_tenth_of_train_by_sentence(parts, splits, of, missing):
    found, told = parts(*splits, **of)
    count = 200 * len(Source("x", "it", **of).train.split("+"))
    sizes = {use: len(rows) for use, rows in found.items()}
    assert sizes["train"] + sum(sizes[use] for use in missing) == count
    assert all(0.05 * count < sizes[use] < 0.16 * count for use in missing), sizes
    texts = {use: {row["text"] for row in rows} for use, rows in found.items()}
    assert not any(texts["train"] & texts[use] for use in missing)
    ids = [row["id"] for rows in found.values() for row in rows]
    assert len(ids) == len(set(ids))
    assert all(f"no {use}" in told for use in missing) and bool(missing) == bool(told)


@pytest.mark.parametrize(
    ("speakers", "inside", "what"),
    [(40, False, "speaker"), (40, True, "speaker"), (3, False, "sentence")],
)
def test_many_speakers_are_held_out_whole(parts, speakers, inside, what):
    found, told = parts("train", speakers=speakers, inside=inside)
    assert f"by the hash of the {what}" in told
    of = {use: {row["speaker"] for row in rows} for use, rows in found.items()}
    assert all(of.values()) and (what == "sentence" or not of["train"] & (of["dev"] | of["test"]))


def test_a_split_that_is_called_otherwise_or_misspelled_is_told(parts):
    with pytest.raises(RecipeError, match="validation"):
        parts("train", "validation", "test")  # the recipe's dev is "dev"
    with pytest.raises(RecipeError, match="tset"):
        parts("train", "validation", dev="validation", test="tset")


def test_librispeech_s_test_clean_is_a_test_split_and_none_is_held_out(tmp_path, parts):
    names = ("train.clean.100", "test.clean")
    files = "".join(f"  - {{split: {name}, path: {name}-*}}\n" for name in names)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
    (tmp_path / "README.md").write_text(card)
    found, told = parts(*names, train=names[0], dev="", test=names[1])
    assert not told and {use: len(rows) for use, rows in found.items()} == {
        "train": 200,
        "test": 200,
    }
    with pytest.raises(RecipeError, match=r"Available splits: .*test\.clean"):
        parts(*names, train=names[0], dev="")
