"""Sharing: the card, what may leave this machine, and pushes to a Hub on localhost."""

import json
import subprocess
import sys

import httpx
import pytest
from hub_server import Repository
from huggingface_hub import ModelCard

from tests.conftest import ROOT
from utils import hub as sharing
from utils.artifacts import open_run
from utils.card import write_card
from utils.checkpoints import save_model
from utils.config import load_recipe
from utils.export import to_ctranslate2

CANARY = "hf_" + "Canary" * 6  # in no file as such: what looks like a token must not be
FORMATS = {
    "Transformers float32, 30 s": {"wer": 0.1, "speed": 1.0, "megabytes": 290.0, "clips": 4},
    "CTranslate2 int8, short": {"wer": 0.1, "speed": 3.0, "megabytes": 81.0, "clips": 4},
}
RATES = {
    f"{rate}_{side}{bound}": value
    for rate, value in (("wer", 0.2), ("cer", 0.05))
    for side in ("before", "after", "after_30s")
    for bound in ("", "_low", "_high")
}
AT_30S = {
    f"{rate}{bound}": 0.21 for rate in ("wer", "wer_short") for bound in ("", "_low", "_high")
}
REPORTS = {
    "environment": {
        "machine": {"system": "Linux", "cpu": "two cores", "gpu": None},
        "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
    },
    "streaming": {},
    "preprocessing": {"clips": {"train": 32}, "minutes": {"train": 90.0}, "dropped": {}},
    "training": {"steps": 24, "seconds": 120.0, "precision": "fp32", "best_step": 12},
    "evaluation": {
        "languages": {
            "it carlo": {"language": "it", "split": "test", "clips": 69, "p_value": 0.004} | RATES,
            "it menardi": {"language": "it", "split": "unseen", "clips": 61, "p_value": 0.07}
            | {key: value for key, value in RATES.items() if "30s" not in key},
        },
        "normalizer": {"it": "marks kept"},
        "errors": {"after": {"substitutions": [{"said": "<script>", "heard": "a|b"}]}},
        "flags": {"after": {"runaway": 3}},
        "after_30s": {"clips": 17} | AT_30S,
    },
    "export": {"formats": FORMATS},
}


@pytest.fixture
def recipe():
    return load_recipe("recipes/smoke.toml")


@pytest.fixture
def run(recipe, tiny_model, base, tmp_path):
    """A finished run with a tiny model, and beside it what must never be shared."""
    run = open_run(recipe, tmp_path / "runs")
    for stage, report in REPORTS.items():
        run.report(stage).write_text(json.dumps(report), encoding="utf-8")
    tiny_model.generation_config = base[0].generation_config
    save_model(tiny_model, base[1], run.model)
    to_ctranslate2(run.model, run.repository / "ctranslate2-int8", "int8")
    (run.repository / "ggml-model.bin").write_bytes(b"ggml")
    for secret in ("training_args.bin", "optimizer.pt", "notes.txt"):
        (run.model / secret).write_bytes(CANARY.encode())
        (run.repository / secret).write_bytes(CANARY.encode())
    return run


@pytest.fixture
def card(recipe, run):
    return ModelCard(write_card(recipe, run, "tester/whisper-it", FORMATS))


def push(hub, run, *arguments, token="hf_writer"):
    """Run the command of the module in a process that knows the loopback Hub alone."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "utils.hub", "recipes/smoke.toml"),
            *("--runs", str(run.folder.parent), "--repository", "tester/whisper-it", *arguments),
        ],
        cwd=ROOT,
        env=hub.environment(hub.root / "client", token),
        capture_output=True,
        text=True,
        check=False,
    )


def history(hub, kind="models", name="tester/whisper-it"):
    """The commits after the one that made the repository."""
    return Repository(hub.root, kind, name).state["history"][1:]


def published(hub, kind="models", name="tester/whisper-it"):
    repository = Repository(hub.root, kind, name)
    tree = repository.tree(repository.resolve("main"))
    return {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_file()}


def test_the_cards_metadata_is_read_back_with_every_rate(card):
    assert card.data.base_model == "openai/whisper-base"
    assert (card.data.language, card.data.license) == (["it"], "mit")
    rates = {(one.dataset_name, one.metric_type): one for one in card.data.eval_results}
    assert len(rates) == 4
    assert rates["it carlo", "wer"].metric_value == 20.0
    assert "30 s" in rates["it carlo", "wer"].metric_name
    assert "as trained" in rates["it menardi", "wer"].metric_name
    assert rates["it carlo", "wer"].dataset_type == "asterisk-core-sounds-it-wav"


def test_the_card_tells_all_that_a_stranger_must_know(card):
    for said in (
        *("1.50 hours", "CC-BY-3.0", "CC-BY-SA-3.0-IT", "Carlo Flora", "MIT licence"),
        *("| 20.0 (20.0 to 20.0) |", "not measured", "3 hypothesis(es)", "24 steps"),
        *('pipeline("automatic-speech-recognition", model="tester/whisper-it")', "WhisperModel"),
        *("| CTranslate2 int8, short | 81 | 3.0× | 10.0 |", "recipe.toml", "torch 2.13"),
    ):
        assert said in card.text, said


def test_a_transcript_stays_text_in_the_card(card):
    assert "<script>" not in card.text
    assert "&lt;script&gt;" in card.text and r"a\|b" in card.text


def test_only_what_is_allowed_is_taken(recipe, run):
    sharing.stage_model(recipe, run, "tester/whisper-it", FORMATS)
    names = {name.as_posix() for name in sharing.contents(run.repository, "model")}
    assert {"model.safetensors", "vocab.json", "README.md", "recipe.toml"} <= names
    assert {"04_training.ipynb", "ctranslate2-int8/model.bin", "ggml-model.bin"} <= names
    assert not names & {"training_args.bin", "optimizer.pt", "notes.txt", "complete.json"}


def test_a_push_is_one_private_commit_and_a_second_one_is_none(hub, run):
    first = push(hub, run)
    assert first.returncode == 0, first.stderr
    assert len(history(hub)) == 1
    assert Repository(hub.root, "models", "tester/whisper-it").state["private"]
    second = push(hub, run)
    assert second.returncode == 0, second.stderr
    assert "nothing new to push" in second.stdout
    assert len(history(hub)) == 1
    for name, path in published(hub).items():
        assert CANARY.encode() not in path.read_bytes(), name
    assert not {"training_args.bin", "optimizer.pt", "notes.txt"} & set(published(hub))


def test_what_was_pushed_loads_from_the_hub(hub, run):
    assert push(hub, run).returncode == 0
    told = hub.run(
        """
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        model = WhisperForConditionalGeneration.from_pretrained("tester/whisper-it")
        processor = WhisperProcessor.from_pretrained("tester/whisper-it")
        print(model.config.d_model, len(processor.tokenizer))
        from huggingface_hub import ModelCard
        card = ModelCard.load("tester/whisper-it")
        card.validate()
        print(len(card.data.eval_results))
        """,
        token="hf_writer",
    )
    assert told.split() == ["16", "51865", "4"]


@pytest.mark.parametrize(
    ("kind", "request_pattern"), [("503", "POST .*/commit/"), ("429", "POST /api/repos/create")]
)
def test_what_the_client_does_not_try_again_is_tried_again(hub, run, kind, request_pattern):
    hub.fault(kind, request_pattern)
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    assert len(history(hub)) == 1


def test_an_answer_lost_after_the_commit_makes_no_second_one(hub, run):
    hub.fault("drop", "POST .*/commit/")  # the server commits, and hangs up
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    assert len(history(hub)) == 1


def test_no_login_or_a_token_without_rights_is_said_in_a_sentence(hub, run):
    none, reader = push(hub, run, token=None), push(hub, run, token="hf_reader")
    assert none.returncode == reader.returncode == 1
    assert "hf auth login" in none.stderr
    assert "tester/whisper-it" in reader.stderr
    for done in (none, reader):
        assert "Traceback" not in done.stderr


def test_a_file_with_a_token_is_never_pushed(hub, recipe, run):
    with (run.folder / "recipe.toml").open("a", encoding="utf-8") as file:
        file.write(f"# {CANARY}\n")
    sharing.stage_model(recipe, run, "tester/whisper-it", FORMATS)
    leaks = sharing.find_secrets(run.repository, sharing.contents(run.repository, "model"))
    assert leaks == [str(run.repository / "recipe.toml")]


def test_the_token_in_use_stands_in_no_output_and_no_file(hub, run):
    done = push(hub, run)
    assert done.returncode == 0, done.stderr
    told = [done.stdout, done.stderr]
    files = [path for path in [*run.folder.rglob("*"), *published(hub).values()] if path.is_file()]
    assert not [text for text in told if "hf_writer" in text]
    assert not [path for path in files if b"hf_writer" in path.read_bytes()]


def test_a_space_is_pushed_with_all_that_it_needs(hub, recipe, run):
    space = sharing.stage_space(recipe, run)
    assert push(hub, run, "--space", "tester/page").returncode == 0
    assert len(history(hub, "spaces", "tester/page")) == 1
    names = set(published(hub, "spaces", "tester/page")) - {".gitattributes"}
    assert names == {path.as_posix() for path in sharing.contents(space, "space")}
    front = ModelCard.load(space / "README.md").data
    assert (front.sdk, front.app_file) == ("gradio", "app.py")
    assert Repository(hub.root, "spaces", "tester/page").state["sdk"] == "gradio"


def test_the_space_starts_on_this_machine_and_gets_no_token(
    recipe, run, wav, tmp_path, monkeypatch
):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    monkeypatch.setenv("HF_TOKEN", CANARY)
    (tmp_path / "film.wav").write_bytes(b"no sound")
    with sharing.serve_space(sharing.stage_space(recipe, run)) as url:
        assert url.startswith("http://127.0.0.1:")
        client = Client(url, verbose=False, analytics_enabled=False)
        with pytest.raises(AppError, match="no readable audio"):
            client.predict(handle_file(str(tmp_path / "film.wav")), "it", api_name="/transcribe")
    with pytest.raises(httpx.ConnectError):
        Client(url, verbose=False)
    assert CANARY not in (run.space.parent / "space.log").read_text(encoding="utf-8")


def test_a_page_that_does_not_start_says_why(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page/app.py").write_text("raise ValueError('no model here')", encoding="utf-8")
    with (
        pytest.raises(sharing.PushError, match="no model here"),
        sharing.serve_space(tmp_path / "page"),
    ):
        pass
