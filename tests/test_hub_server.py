"""Unmodified libraries against the loopback Hub, and the loopback Hub itself."""

import subprocess
import sys
import urllib.error
import urllib.request

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest


@pytest.fixture
def shards():
    """Return a function that makes parquet shards of numbered rows: path → bytes."""

    def make(split="train", count=2, rows=4, folder="data"):
        files = {}
        for shard in range(count):
            numbers = list(range(shard * rows, (shard + 1) * rows))
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.table({"number": numbers}), sink)
            path = f"{folder}/{split}-{shard:05d}-of-{count:05d}.parquet"
            files[path] = sink.getvalue().to_pybytes()
        return files

    return make


def test_a_stream_reads_config_and_revision_and_only_the_shards_it_needs(hub, shards):
    card = b"---\nconfigs:\n- config_name: it_it\n  data_files:\n"
    card += b"  - split: train\n    path: it_it/train-*\n---\n"
    first = hub.publish("datasets", "org/speech", shards(folder="it_it") | {"README.md": card})
    hub.publish("datasets", "org/speech", shards(rows=1, folder="it_it"))
    told = hub.run(
        f"""
        from itertools import islice
        from datasets import load_dataset
        kwargs = dict(split="train", streaming=True)
        rows = load_dataset("org/speech", "it_it", revision="{first}", **kwargs)
        print([row["number"] for row in islice(rows, 3)])  # take(3) would look one table ahead
        newest = load_dataset("org/speech", "it_it", **kwargs)
        print([row["number"] for row in newest])
        """
    )
    assert told.splitlines() == ["[0, 1, 2]", "[0, 1]"]
    read = {e["path"] for e in hub.requests() if first in e["path"] and "parquet" in e["path"]}
    assert read == {f"/datasets/org/speech/resolve/{first}/it_it/train-00000-of-00002.parquet"}


def test_what_is_pushed_comes_back(hub):
    told = hub.run(
        """
        from datasets import Dataset, load_dataset
        from huggingface_hub import HfApi
        api = HfApi()
        print(api.whoami()["name"])
        api.create_repo("tester/made", repo_type="dataset", private=True)
        api.create_repo("tester/made", repo_type="dataset", private=True, exist_ok=True)
        Dataset.from_dict({"a": [1, 2, 3]}).push_to_hub("tester/made", split="train")
        Dataset.from_dict({"a": [4]}).push_to_hub("tester/made", split="test")
        print(load_dataset("tester/made", split="train")["a"][:])
        print([row["a"] for row in load_dataset("tester/made", split="test", streaming=True)])
        """,
        token="hf_writer",
    )
    assert told.splitlines() == ["tester", "[1, 2, 3]", "[4]"]


def test_a_model_goes_up_by_folder_and_commit_and_comes_back(hub, tmp_path):
    told = hub.run(
        f"""
        import torch
        from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
        from transformers import WhisperConfig, WhisperForConditionalGeneration as Whisper
        sizes = dict(encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8)
        heads = dict(encoder_attention_heads=1, decoder_attention_heads=1, d_model=8, vocab_size=90)
        specials = dict(pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0)
        model = Whisper(WhisperConfig(**sizes, **heads, **specials))
        model.save_pretrained({str(tmp_path / "model")!r})
        api = HfApi()
        api.create_repo("tester/tiny")
        api.upload_folder(repo_id="tester/tiny", folder_path={str(tmp_path / "model")!r})
        again = api.upload_folder(repo_id="tester/tiny", folder_path={str(tmp_path / "model")!r})
        card = CommitOperationAdd("README.md", b"---\\nlicense: mit\\n---\\n# Tiny\\n")
        api.create_commit("tester/tiny", [card], commit_message="Card")
        print(open(hf_hub_download("tester/tiny", "README.md"), encoding="utf-8").read()[-7:])
        back = Whisper.from_pretrained("tester/tiny")
        print(all(torch.equal(a, b) for a, b in zip(model.state_dict().values(),
                                                    back.state_dict().values())))
        """,
        token="hf_writer",
    )
    assert told.splitlines() == ["# Tiny", "", "True"]
    puts = [entry["path"] for entry in hub.requests() if entry["method"] == "PUT"]
    assert len(puts) == 1, "the weights go to LFS, once: the second upload finds them there"


def test_private_gated_and_missing_are_three_answers(hub, shards):
    hub.publish("datasets", "tester/private", shards(), private=True)
    hub.publish("datasets", "org/gated", shards(), gated=True)
    script = """
        from huggingface_hub import HfApi, hf_hub_download
        for name in ("tester/private", "org/gated", "org/missing"):
            try:
                path = "data/train-00000-of-00002.parquet"
                hf_hub_download(name, path, repo_type="dataset")
                print("read")
            except Exception as error:
                print(type(error).__name__, error.response.status_code)
        """
    refused = ["RepositoryNotFoundError 401", "GatedRepoError 401", "RepositoryNotFoundError 401"]
    assert hub.run(script).splitlines() == refused
    known = ["read", "GatedRepoError 403", "RepositoryNotFoundError 404"]
    assert hub.run(script, token="hf_writer").splitlines() == known


@pytest.fixture
def ask(hub):
    """Return a function that asks the server plainly: (path, headers) → status, headers, body."""
    hub.publish("models", "org/file", {"ten.txt": b"0123456789"})

    def get(**headers):
        request = urllib.request.Request(
            f"{hub.address}/org/file/resolve/main/ten.txt", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    return get


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=0-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, "bytes */10", None),
    ],
)
def test_ranges(ask, asked, status, content_range, body):
    got, headers, content = ask(Range=asked)
    assert (got, headers["Content-Range"]) == (status, content_range)
    assert body is None or content == body


def test_every_fault_and_that_it_ends(hub, ask):
    for kind in ("401", "403", "404", "429", "503"):
        hub.fault(kind, "ten.txt", skip=1)
        assert [ask()[0] for _ in range(3)] == [200, int(kind), 200]
    hub.fault("429", "ten.txt")
    assert ask()[1]["Retry-After"] == "1"
    for kind, error in [("drop", OSError), ("truncate", Exception), ("hang", TimeoutError)]:
        hub.fault(kind, "ten.txt")
        with pytest.raises(error):
            ask()
        assert ask()[2] == b"0123456789"
    assert [e["fault"] for e in hub.requests()][-6:] == [
        "drop",
        None,
        "truncate",
        None,
        "hang",
        None,
    ]


def test_the_server_is_reachable_from_this_machine_alone(hub):
    assert hub.address.startswith("http://127.0.0.1:")
    listening = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/net/tcp').read())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    port = f"{int(hub.address.rsplit(':')[-1]):04X}"
    assert f"0100007F:{port}" in listening
    assert f"00000000:{port}" not in listening
