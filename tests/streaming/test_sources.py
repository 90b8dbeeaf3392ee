import io
from collections import Counter
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import soundfile

from utils.config import RecipeError, Source
from utils.streaming.mixing import mix, mixing_shares, training_stream
from utils.streaming.sound import AudioError, decode_audio
from utils.streaming.sources import SCHEMA, stream

CARLO = Source("embedded", "it", "carlo")


def test_an_embedded_row_has_the_schema_and_its_audio_the_stated_length():
    row = next(iter(stream(CARLO, "train")))
    assert list(row) == list(SCHEMA)
    assert row["language"] == "it"
    assert row["source"] == "it carlo"
    assert row["speaker"] == "it-carlo"
    assert len(decode_audio(row["audio"])) / 16_000 == pytest.approx(row["seconds"], abs=0.01)


def test_splits_join_and_do_not_overlap():
    ids = {split: [row["id"] for row in stream(CARLO, split)] for split in ("train", "dev", "test")}
    joined = [row["id"] for row in stream(CARLO, "train+dev")]
    assert joined == ids["train"] + ids["dev"]
    everything = [one for part in ids.values() for one in part]
    assert len(everything) == len(set(everything))


def test_a_split_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(RecipeError, match="train, dev, test"):
        stream(CARLO, "validation")


def test_max_clips_takes_that_many():
    assert len(list(stream(Source("embedded", "it", "carlo", max_clips=5), "train"))) == 5


WHOLE = {"dev": "", "test": ""}  # nothing is held out of train


@pytest.fixture
def hub_folder(tmp_path, wav):
    """A data set as the Hub lays it out: one parquet file a split, one row of it corrupt."""
    audio = [{"bytes": wav(), "path": f"{i}.wav"} for i in range(4)]
    audio[2]["bytes"] = b"corrupt"
    table = pa.table({"audio": audio, "sentence": [f"numero {i}" for i in range(4)]})
    for split in ("train", "validation"):
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path


def test_a_folder_in_the_hubs_layout_gives_the_same_schema(hub_folder):
    source = Source(str(hub_folder), "it", text_column="sentence", **WHOLE)
    rows = list(stream(source, "train+validation"))
    assert len(rows) == 8
    assert rows[0]["text"] == "numero 0"
    assert set(rows[0]) == set(SCHEMA)
    assert soundfile.info(io.BytesIO(rows[0]["audio"])).samplerate == 16_000
    assert len({row["id"] for row in rows}) == 8


def test_a_corrupt_clip_does_not_end_the_stream(hub_folder):
    rows = list(stream(Source(str(hub_folder), "it", text_column="sentence", **WHOLE), "train"))
    assert [row["text"] for row in rows] == [f"numero {i}" for i in range(4)]
    with pytest.raises(AudioError):
        decode_audio(rows[2]["audio"])
    assert len(decode_audio(rows[3]["audio"])) == 16_000


def test_a_folder_of_sound_files_with_a_table_needs_no_ffmpeg(tmp_path, wav):
    (tmp_path / "train").mkdir()
    lines = ["file_name,sentence", *(f"{i}.wav,numero {i}" for i in range(3))]
    (tmp_path / "train/metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    for number in range(3):
        (tmp_path / f"train/{number}.wav").write_bytes(wav(seconds=1.0 + number))
    rows = list(stream(Source(str(tmp_path), "it", text_column="sentence", **WHOLE), "train"))
    assert [row["text"] for row in rows] == [f"numero {i}" for i in range(3)]
    assert [len(decode_audio(row["audio"])) for row in rows] == [16_000, 32_000, 48_000]
    assert [row["seconds"] for row in rows] == [1.0, 2.0, 3.0]


def test_a_wrong_text_column_is_refused_with_those_that_exist(hub_folder):
    with pytest.raises(RecipeError, match=r'no column "txet"; it has audio, sentence'):
        stream(Source(str(hub_folder), "it", text_column="txet", **WHOLE), "train")


@pytest.mark.parametrize(("dataset", "split"), [("/no/such/folder", "train"), (None, "tset")])
def test_a_source_that_cannot_be_opened_is_named(hub_folder, dataset, split):
    with pytest.raises(RecipeError, match=rf'split "{split}", cannot be opened: .*Check dataset'):
        stream(Source(dataset or str(hub_folder), "it", text_column="sentence", **WHOLE), split)


def numbered(name, count):
    from datasets import IterableDataset

    def rows():
        for number in range(count):
            yield {"name": name, "number": number}

    return IterableDataset.from_generator(rows)


def test_equal_weights_give_every_row_once_in_mixed_order():
    rows = list(mix([numbered("a", 30), numbered("b", 10)], [1, 1], seed=3))
    assert len(rows) == 40
    assert len({(row["name"], row["number"]) for row in rows}) == 40
    assert {row["name"] for row in rows[:8]} == {"a", "b"}


def test_weights_set_the_shares_and_no_row_is_left_out():
    rows = list(mix([numbered("a", 100), numbered("b", 100)], [3, 1], seed=3))
    counts = Counter(row["name"] for row in rows)
    assert counts["a"] / counts["b"] == pytest.approx(3, rel=0.3)
    assert len({row["number"] for row in rows if row["name"] == "b"}) == 100


def test_the_same_seed_gives_the_same_mix_and_another_one_another():
    def names(seed):
        return [row["name"] for row in mix([numbered("a", 20), numbered("b", 20)], [1, 1], seed)]

    assert names(1) == names(1)
    assert names(1) != names(2)


@pytest.mark.parametrize(
    ("stop", "rows_of_a", "repeats_b"),
    [
        ("first_exhausted", "some", False),
        ("all_exhausted", "all", True),
        ("all_exhausted_without_replacement", "all", False),
    ],
)
def test_where_a_mix_stops(stop, rows_of_a, repeats_b):
    rows = list(mix([numbered("a", 100), numbered("b", 10)], [1, 1], seed=3, stop=stop))
    counts = Counter((row["name"], row["number"]) for row in rows)
    a = {number for name, number in counts if name == "a"}
    assert (len(a) == 100) == (rows_of_a == "all")
    assert len([1 for name, _ in counts if name == "b"]) == 10
    assert (max(n for (name, _), n in counts.items() if name == "b") > 1) == repeats_b


@pytest.mark.parametrize(
    ("temperature", "shares"), [(0, [0.5, 0.5]), (1, [0.99, 0.01]), (2, [10 / 11, 1 / 11])]
)
def test_temperature_evens_out_the_hours(temperature, shares):
    sources = [Source("x", "en", hours=99 if temperature == 1 else 100), Source("x", "cy", hours=1)]
    assert mixing_shares(sources, temperature) == pytest.approx(shares)
    doubled = [sources[0], Source("x", "cy", hours=1, weight=2)]
    small = mixing_shares(doubled, temperature)[1]
    assert small == pytest.approx(2 * shares[1] / (1 + shares[1]))


def test_the_training_stream_leaves_unseen_sources_out():
    sources = [CARLO, Source("embedded", "it", "menardi", train="", dev="")]
    assert {row["source"] for row in islice(training_stream(sources), 50)} == {"it carlo"}
