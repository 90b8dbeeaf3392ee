"""Streams from the loopback Hub. One client process asks everything: each imports torch anew."""

import io
import json
import re
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import soundfile
from huggingface_hub.utils import httpx

from utils.config import Source, UserError
from utils.streaming.hub_columns import speaker_and_recording
from utils.streaming.patience import patiently

ROWS = 40  # a shard
# What the client does before each part: a stream's texts or the one sentence it ended with, the
# seconds that took, and when it was, by which the server's log is cut.
CLIENT = """
    import json, os, sys, time
    from dataclasses import replace
    from itertools import islice
    sys.path.insert(0, "tests")
    from hub_server import steer
    from datasets import IterableDataset  # imports torch: not what is timed
    from utils.config import Source, load_recipe
    from utils.streaming.hub import commits
    from utils.streaming.sources import AudioError, decode_audio, stream

    told = {}
    def note(name, work):
        started, clock = time.time(), time.perf_counter()
        try:
            result = work()
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - clock
        told[name] = dict(result=result, seconds=seconds, started=started, ended=time.time())
    def fault(*arguments, **options):
        steer(os.environ["HF_ENDPOINT"], *arguments, **options)
    def texts(source, split, count=None):
        return [row["text"] for row in islice(stream(source, split), count)]
    whole = dict(text_column="sentence", dev="", test="")  # nothing is held out of train
    speech = Source("org/speech", "it", "it_it", **whole)
"""


def audio(number, samples=1600):
    """Return a tone of its own, a tenth of a second if nothing is said, as WAV."""
    file = io.BytesIO()
    tone = np.sin(np.arange(samples) * (number + 1) / 50)
    soundfile.write(file, tone.astype(np.float32), 16_000, format="WAV")
    return file.getvalue()


def shard(first, count=ROWS, samples=1600, spoil=(), group=10, **columns):
    """Return a parquet file of numbered rows; `spoil` is row → (column, value)."""
    columns = columns or {"sentence": "frase {}"}
    rows = []
    for n in range(first, first + count):
        row = {"audio": {"bytes": audio(n, samples), "path": f"{n}.wav"}}
        for name, value in columns.items():
            row[name] = value.format(n) if isinstance(value, str) else value
        rows.append(row)
    for row, (column, value) in dict(spoil).items():
        rows[row][column] = value
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink, row_group_size=group)
    return sink.getvalue().to_pybytes()


def huge_shard():
    """Return 4 MB in one row group: beside it, the ends that opening reads weigh little."""
    return shard(0, samples=48_000, group=ROWS)


def config_card(name, splits):
    files = "".join(f"  - {{split: {split}, path: {name}/{split}-*}}\n" for split in splits)
    return f"---\nconfigs:\n- config_name: {name}\n  data_files:\n{files}---\n".encode()


# The columns as the cards and scripts of the real data sets name them: see the recipes.
FLEURS = {"id": 1, "num_samples": 6400, "path": "{}.wav", "transcription": "frase {} minuscola"}
FLEURS |= {"raw_transcription": "Frase {}, scritta.", "gender": 1, "lang_id": 40}
FLEURS |= {"language": "Welsh", "lang_group_id": 0}
MLS = {"original_path": "{}", "begin_time": 0.0, "end_time": 0.4, "transcript": "frase {} letta"}
MLS |= {"audio_duration": 0.4, "speaker_id": "1", "chapter_id": "1", "file": "{}", "id": "{}"}
VOXPOPULI = {"audio_id": "{}", "language": 5, "raw_text": "", "normalized_text": "frase {}, detta."}
VOXPOPULI |= {"gender": "female", "speaker_id": "1", "is_gold_transcript": True, "accent": "None"}


def publish_the_real_shapes(hub):
    """Publish three data sets as the recipes expect them, with six clips a split."""
    # What is tested on would be dropped from training: each split has sentences of its own.
    first = {"train": 0, "validation": 10, "dev": 10, "test": 20}

    def clips(columns, split, spoil=()):
        return shard(first[split], 6, samples=12_800, spoil=spoil, **columns)

    spoil = {2: ("audio", {"bytes": b"corrupt", "path": "2.wav"})}
    hub.publish("datasets", "org/script", {"script.py": b"raise SystemExit('executed')"})
    converted = {"it_it/validation/0000.parquet": shard(900, 5)}
    hub.publish("datasets", "org/script", converted, branch="refs/convert/parquet")
    fleurs = {
        f"parquet-data/cy_gb/{split}-00000-of-00001.parquet": clips(
            FLEURS, split, spoil if split == "train" else ()
        )
        for split in first.keys() - {"dev"}
    }
    commit = "70bb2e84b976b7e960aa89f1c648e09c59f894dd"
    hub.publish("datasets", "google/fleurs", fleurs, commit=commit)
    for name, config, columns, splits, commit in [
        (
            "facebook/multilingual_librispeech",
            "italian",
            MLS,
            ("train", "dev", "test"),
            "2e83e61823b4c47dcbcb1980bb88601274127609",
        ),
        (
            "facebook/voxpopuli",
            "it",
            VOXPOPULI,
            ("train", "validation", "test"),
            "42f01879c780b4a2e90ec0b4f616c2ece526e4f1",
        ),
    ]:
        files = {
            f"{config}/{split}-00000-of-00001.parquet": clips(columns, split) for split in splits
        }
        files["README.md"] = config_card(config, splits)
        hub.publish("datasets", name, files, commit=commit)


@pytest.fixture(scope="module")
def told(module_hub):
    """Ask everything, and return what came: name → result, seconds, requests."""
    hub = module_hub
    publish_the_real_shapes(hub)
    card = config_card("it_it", ["train", "validation"])
    older = hub.publish("datasets", "org/speech", {"README.md": card, **shards(3, first=100)})
    newest = hub.publish("datasets", "org/speech", shards(3))
    hub.publish("datasets", "org/gated", shards(1), gated=True)
    hub.publish("datasets", "tester/private", shards(1), private=True)
    spoiled = {
        3: ("audio", {"bytes": b"<html>404</html>", "path": "3.wav"}),
        5: ("audio", None),
        7: ("sentence", None),
    }
    huge = {"data/train-0.parquet": huge_shard(), "data/train-1.parquet": shard(ROWS)}
    hub.publish("datasets", "org/huge", huge)
    hub.publish("datasets", "org/corrupt", {"data/train-0.parquet": shard(0, spoil=spoiled)})
    data = r"GET .*train-00001"
    script = f"""
        note("first", lambda: texts(speech, "train", 1))
        note("three", lambda: stream(speech, "train").take(3).to_list().__len__())
        note("joined", lambda: texts(speech, "train+validation"))
        older = Source("org/speech", "it", "it_it", "{older}", **whole)
        note("older", lambda: texts(older, "train", 1))
        note("commits", lambda: commits([speech, older, Source("embedded", "it", "carlo")]))

        def left():
            rows = stream(speech, "train")
            for _ in islice(rows, {ROWS + 5}):
                pass
            return rows.state_dict()
        note("left", left)
        def gone_on():
            rows = stream(speech, "train")
            rows.load_state_dict(told["left"]["result"])
            return [row["text"] for row in islice(rows, 2)]
        note("gone on", gone_on)
        from datasets.distributed import split_dataset_by_node
        for process in range(3):
            part = split_dataset_by_node(stream(speech, "train"), process, 3)
            note(f"process {{process}}", lambda: [row["text"] for row in part])

        for kind in ("drop", "truncate", "503", "429"):
            fault(kind, {data!r}, count=2)
            note(kind, lambda: texts(speech, "train"))
        for kind in ("drop", "503", "429"):
            fault(kind, "HEAD .*speech.py", count=1)
            note("opened " + kind, lambda: texts(speech, "train", 1))
        for kind in ("401", "403", "404"):
            fault(kind, {data!r}, count=99)
            note("middle " + kind, lambda: texts(speech, "train"))
        hasty = Source("org/speech", "it", "it_it", patience_seconds=11, **whole)
        for kind, where in [("hang", {data!r}), ("drop", {data!r}), ("hang", "GET .*revision")]:
            fault(kind, where, count=99)
            if "revision" in where:
                hasty = replace(hasty, revision="{newest}")  # the other one's commit is known
            note(f"for ever {{kind}} {{where}}", lambda: texts(hasty, "train"))
        fault("drop", "nothing", count=0)

        def corrupt():
            kept = []
            for row in stream(Source("org/corrupt", "it", **whole), "train"):
                try:
                    if len(decode_audio(row["audio"])) and row["text"]:
                        kept.append(row["text"])
                except AudioError:
                    pass
            return kept
        from utils.streaming import hub_files
        large = Source("org/huge", "it", **whole)
        note("streamed", lambda: [texts(large, "train", 2) for _ in range(10)])
        hub_files.LARGE_GROUP_BYTES = 1_000_000
        note("fetched", lambda: [texts(large, "train", 2) for _ in range(10)])
        note("fetched all", lambda: texts(large, "train"))
        hub_files.LARGE_GROUP_BYTES = 100_000_000
        fault("503", "org/corrupt/revision/main", count=1)
        note("corrupt", corrupt)

        def opened(dataset, split="train", **options):
            note(f"{{dataset}} {{split}} {{options}}", lambda: texts(
                Source(dataset, "it", **whole, **options), split))
        opened("org/missing")
        opened("org/gated")
        opened("tester/private")
        opened("org/speech", name="it_it", revision="v9")
        opened("org/speech", name="xx_xx")
        opened("org/script", name="it_it")
        opened("org/script", name="it_it", split="validation", revision="refs/convert/parquet")
        opened("google/fleurs", name="cy_gb", split="tset")
        opened("org/speech", name="it_it", split="tset")
        os.environ["HF_TOKEN"] = "hf_stale"
        opened("org/speech", name="it_it", revision="main")
        os.environ["HF_TOKEN"] = "hf_writer"
        opened("tester/private", revision="main")
        opened("org/gated", name="")

        import tempfile
        from pathlib import Path
        from transformers import WhisperTokenizer
        from utils.embedded.fetch import resolve
        from utils.preprocessing.prepare import prepare
        tokenizer = WhisperTokenizer.from_pretrained(resolve("embedded/whisper-base"))
        def prepared(name):
            recipe = load_recipe(f"recipes/{{name}}.toml")
            with tempfile.TemporaryDirectory() as folder:
                splits, report = prepare(recipe, tokenizer, Path(folder) / "prepared")
                kept = {{split: len(rows) for split, rows in splits.items()}}
                dropped = [n for part, n in report.dropped.items() if part[1] == "train"]
                return [kept, dict(*dropped), splits["train"]["text"][0]]
        for name in ("fleurs", "multilingual_librispeech", "voxpopuli"):
            note(name, lambda: prepared(name))
        print(json.dumps(told))
    """
    *printed, told = hub.run(textwrap.dedent(CLIENT) + textwrap.dedent(script)).splitlines()
    told = json.loads(told)
    log = hub.requests()
    for part in told.values():
        span = part["started"], part["ended"]
        part["requests"] = [entry for entry in log if span[0] <= entry["time"] <= span[1]]
    return told | {"hashes": [older, newest], "printed": printed}


def shards(count, first=0):
    files = {
        f"it_it/train-{n:05d}-of-{count:05d}.parquet": shard(first + n * ROWS) for n in range(count)
    }
    return files | {"it_it/validation-00000-of-00001.parquet": shard(900, 5)}


ALL = [f"frase {n}" for n in range(3 * ROWS)]


def test_the_first_row_needs_few_requests_and_few_bytes(told):
    assert told["first"]["result"] == ["frase 0"]
    # In seconds: benchmarks/streaming.py. A busy machine must not fail a test.
    assert len(told["first"]["requests"]) < 20
    assert sum(e["bytes"] for e in told["first"]["requests"]) < 400_000


def test_a_file_of_one_huge_row_group_is_asked_for_once(told):
    """A row group is read whole before its first row: a lesson opens a split some ten times."""
    size = len(huge_shard())
    asked = {
        name: sum(e["bytes"] for e in told[name]["requests"] if "train-0" in e["path"])
        for name in ("streamed", "fetched")
    }
    assert told["fetched"]["result"] == told["streamed"]["result"] == [ALL[:2]] * 10
    assert asked["streamed"] > 10 * size
    assert asked["fetched"] < 1.5 * size
    assert not any("train-1" in path for path in rows_read(told["fetched"]))
    assert [line.split(" …")[0] for line in told["printed"]] == [
        f"fetching org/huge, data/train-{number}.parquet" for number in (0, 1)
    ]
    assert told["fetched all"]["result"] == ALL[: 2 * ROWS]


def test_a_config_that_no_card_lists_is_found_by_its_folder(told):
    part = told["org/script validation {'name': 'it_it', 'revision': 'refs/convert/parquet'}"]
    assert part["result"] == [f"frase {n}" for n in range(900, 905)]


def test_three_rows_touch_one_shard(told):
    assert told["three"]["result"] == 3
    read = {e["path"] for e in told["three"]["requests"] if e["path"].endswith(".parquet")}
    assert len(read) == 1


def rows_read(part):
    """The files that were asked for; to open a data set the end of the first one is read."""
    return {e["path"] for e in part["requests"] if e["path"].endswith(".parquet")}


def test_a_stream_that_goes_on_asks_for_no_file_that_it_had_read(told):
    assert told["gone on"]["result"] == [f"frase {n}" for n in (ROWS + 5, ROWS + 6)]
    assert not any("train-00002" in path for path in rows_read(told["left"]))
    of_the_first = {
        name: sum(e["bytes"] for e in told[name]["requests"] if "train-00000" in e["path"])
        for name in ("left", "gone on")
    }
    assert of_the_first["gone on"] < of_the_first["left"] / 2


def test_several_processes_read_files_of_their_own(told):
    for process in range(3):
        own = range(process * ROWS, (process + 1) * ROWS)
        assert told[f"process {process}"]["result"] == [f"frase {n}" for n in own]
        read = rows_read(told[f"process {process}"])
        assert any(f"train-{process:05d}" in path for path in read)
        others = {f"train-{n:05d}" for n in (1, 2) if n != process}
        assert not any(name in path for name in others for path in read)


def test_splits_join_in_order(told):
    assert told["joined"]["result"] == [*ALL, *(f"frase {n}" for n in range(900, 905))]


def test_a_revision_is_read_and_recorded_as_its_commit(told):
    older, newest = told["hashes"]
    assert told["older"]["result"] == ["frase 100"]
    assert told["commits"]["result"] == [
        {"source": "it it_it", "dataset": "org/speech", "commit": commit}
        for commit in (newest, older)
    ]


@pytest.mark.parametrize("kind", ["drop", "truncate", "503", "429"])
@pytest.mark.fault(10)
def test_what_passes_gives_every_row_once_in_order(told, kind):
    assert told[kind]["result"] == ALL
    assert [e["fault"] for e in told[kind]["requests"]].count(kind) == 2


@pytest.mark.parametrize("kind", ["drop", "503", "429"])
@pytest.mark.fault(10)
def test_what_passes_while_a_data_set_is_opened_is_waited_for(told, kind):
    assert told[f"opened {kind}"]["result"] == ["frase 0"]
    assert kind in [e["fault"] for e in told[f"opened {kind}"]["requests"]]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("401", "HubError: The Hub refuses your token (401)"),
        ("403", "HubError: org/speech is gated: accept its terms on"),
        ("404", "RecipeError: org/speech cannot be opened: there is no such data set"),
    ],
)
@pytest.mark.fault(12)
def test_what_is_refused_in_the_middle_ends_at_once(told, kind, sentence):
    part = told[f"middle {kind}"]
    assert part["result"].startswith(sentence)
    assert [e["fault"] for e in part["requests"]].count(kind) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (httpx.InvalidURL("Invalid port: 'secret'"), "HTTPS_PROXY.*in a password write %23 for #"),
        (httpx.UnsupportedProtocol("no http://"), "HF_ENDPOINT.*does not begin with http://"),
        (UnicodeEncodeError("ascii", "hf_secret…", 9, 10, "no"), "The token holds a character"),
        (ImportError("the 'socksio' package is not installed"), "'socksio' package.*Install it"),
    ],
)
def test_a_wrong_setting_of_this_machine_is_named_at_once(error, sentence):
    def fails():
        raise error

    with pytest.raises(UserError, match=sentence) as caught:
        patiently(Source("org/speech", "it"), "org/speech", fails)
    assert "secret" not in str(caught.value)


@pytest.mark.fault(11)
def test_a_hub_that_never_answers_ends_the_run_in_time(told):
    endless = [name for name in told if name.startswith("for ever")]
    assert len(endless) == 3
    for name in endless:
        assert "HubError: The Hub at http://127.0.0.1" in told[name]["result"]
        assert re.search("has not answered for 11 s|does not answer", told[name]["result"])
        assert "run this cell again" in told[name]["result"]
        # The libraries alone go on for 90 seconds and longer, for each of twenty tries.
        assert told[name]["seconds"] < 40


@pytest.mark.fault(18)
def test_corrupt_rows_cost_themselves_alone(told):
    kept = [f"frase {n}" for n in range(ROWS) if n not in (3, 5, 7)]
    assert told["corrupt"]["result"] == kept


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("org/missing train {}", "there is no such data set on the Hub, or it is private"),
        ("org/gated train {}", "accept its terms on http://127.0.0.1"),
        ("tester/private train {}", "log in with `hf auth login`"),
        ("org/speech train {'name': 'it_it', 'revision': 'v9'}", 'has no revision "v9"'),
        ("org/speech train {'name': 'xx_xx'}", "'xx_xx' not found"),
        ("org/script train {'name': 'it_it'}", 'Try revision = "refs/convert/parquet"'),
        (
            "google/fleurs tset {'name': 'cy_gb'}",
            'has no split "tset" in parquet-data/cy_gb; it has',
        ),
        ("org/speech tset {'name': 'it_it'}", 'split "tset", cannot be opened: Bad split'),
        ("org/speech train {'name': 'it_it', 'revision': 'main'}", "refuses your token (401)"),
    ],
)
@pytest.mark.fault(14)
def test_what_cannot_be_opened_is_one_sentence_at_once(told, asked, sentence):
    part = told[asked]
    assert sentence in part["result"]
    assert "\n" not in part["result"]
    assert len(part["requests"]) < 20, "a storm of requests"


def test_a_token_opens_what_is_private(told):
    assert told["tester/private train {'revision': 'main'}"]["result"] == ALL[:ROWS]


@pytest.mark.parametrize(
    ("name", "train", "dropped", "text"),
    [
        ("fleurs", 5, {"undecodable audio": 1}, "Frase 0, scritta."),
        ("multilingual_librispeech", 6, {}, "frase 0 letta"),
        ("voxpopuli", 6, {}, "frase 0 detta"),
    ],
)
def test_a_ready_recipe_prepares_its_data_set(told, name, train, dropped, text):
    kept = {"train": train, "dev": 6, "test": 6}
    assert told[name]["result"] == [kept, dropped, text]


@pytest.mark.parametrize(
    "columns, speaker, recording",
    [
        ({"client_id": "abc"}, "abc", ""),
        ({"speaker_id": 12, "chapter_id": 7}, "12", "12/7"),
        ({"speaker_id": "None"}, "", ""),
        ({"speaker": "N/A", "meeting_id": "EN2001a"}, "", "/EN2001a"),
        ({"speaker": float("nan"), "speaker_id": 7.0}, "7", ""),
        ({"Speaker_ID": "s1", "speaker": "unknown"}, "s1", ""),
        ({"speaker_id": 0}, "0", ""),
        ({"speaker": None, "recording": "meeting 3"}, "", "/meeting 3"),
        ({}, "", ""),
    ],
)
def test_who_speaks_is_read_from_what_data_sets_call_it(columns, speaker, recording):
    expected = {"speaker": speaker, "recording": recording}
    assert speaker_and_recording(columns) == expected
