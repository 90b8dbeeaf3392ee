"""Sharing: the card, what may leave this machine, and pushes to a Hub on localhost."""

import json
import textwrap
from dataclasses import replace

import httpx
import pytest
from hub_server import Repository
from huggingface_hub import ModelCard, ModelCardData

from tests.conftest import ROOT, make_tiny_model
from utils.artifacts import open_run
from utils.config import Source, load_recipe
from utils.export import hub as sharing
from utils.export import space
from utils.export.card import data_line, plain, results, write_card
from utils.export.documented import FASTER_WHISPER, snippet
from utils.export.formats import to_ctranslate2
from utils.scoring.predictions import save_predictions
from utils.training.checkpoints import save_model

CANARY = "hf_" + "Canary" * 6  # in no file as such: what looks like a token must not be
RATED = {"wer": 0.1, "first_rate": "wer", "clips": 4}
FORMATS = {
    "Transformers float32, 30 s": RATED | {"speed": 1.0, "megabytes": 290.0},
    "CTranslate2 int8, short": RATED | {"speed": 3.0, "megabytes": 81.0},
}
CALLED = {f"{rate}{end}": 0.2345 for rate in ("wer", "cer") for end in ("", "_low", "_high")}
DOCUMENTED = {
    "it carlo": CALLED | {"split": "test", "clips": 69, "first_rate": "wer"},
    "it menardi": CALLED | {"split": "unseen", "clips": 61, "first_rate": "wer"},
}
EXPORTED = {"formats": FORMATS, "documented": DOCUMENTED}
RATES = {
    f"{rate}_{side}{bound}": value
    for rate, value in (("wer", 0.2), ("cer", 0.05))
    for side in ("before", "after", "after_30s")
    for bound in ("", "_low", "_high")
}
TESTED = {"p_value": 0.5, "p_floor": 0.0, "p_value_30s": 0.004, "p_floor_30s": 0.0} | RATES
TESTED |= {"first_rate": "wer", "over": "69 clips"}
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
            "it carlo": TESTED | {"language": "it", "split": "test", "clips": 69},
            "it menardi": TESTED | {"language": "it", "split": "unseen", "clips": 61},
        },
        "normalizer": {"it": "marks kept"},
        "test": TESTED | {"clips": 69},
        "long_form": {"seconds": 35.0, "after": {"kept": True, "wer": 0.121, "cer": 0.05}},
    },
    "export": EXPORTED,
}
PREDICTED = {"split": "test", "language": "it", "reference": "Uno due.", "after": ""}
PREDICTIONS = [PREDICTED | {"after_30s": text} for text in ("uno tre", "uno tre", "tu due")]
PREDICTIONS += 3 * [PREDICTED | {"after_30s": "uno due " * 9}]


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(ROOT / "recipes/smoke.toml")


@pytest.fixture(scope="module")
def run(recipe, base, tmp_path_factory):
    """A finished run with a tiny model, and beside it what must never be shared."""
    run = open_run(recipe, tmp_path_factory.mktemp("hub") / "runs")
    tiny_model = make_tiny_model(base[0].config)
    for stage, report in REPORTS.items():
        run.report(stage).write_text(json.dumps(report), encoding="utf-8")
    save_predictions(run.predictions, PREDICTIONS)
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
    return ModelCard(write_card(recipe, run, "tester/whisper-it", EXPORTED))


# One process pushes everything, by the command of the module: each would import torch anew. It
# knows the loopback Hub alone.
CLIENT = """
    import contextlib, io, json, os, sys
    sys.path.insert(0, "tests")
    from hub_server import steer
    from utils.export import hub, space
    from utils.export.__main__ import main
    from utils.artifacts import open_run
    from utils.config import load_recipe

    told = {{}}
    def push(name, *arguments, repository="", token="hf_writer", fault=()):
        os.environ.pop("HF_TOKEN", None)
        if token:
            os.environ["HF_TOKEN"] = token
        if fault:
            steer(os.environ["HF_ENDPOINT"], *fault)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(
                ["recipes/smoke.toml", "--runs", "{runs}"]
                + ["--repository", repository or f"tester/{{name}}", *arguments]
            )
        told[name] = dict(code=code, out=out.getvalue(), err=err.getvalue())

    push("first")
    push("second", repository="tester/first")
    push("first-b")
    push("busy", fault=("503", "POST .*/commit/"))
    push("limited", fault=("429", "POST /api/repos/create"))
    push("lost", fault=("drop", "POST .*/commit/"))  # the server commits, and hangs up
    push("raced", fault=("412", "POST .*/commit/"))  # another push was quicker
    from pathlib import Path
    Path("{runs}/smoke/export/repository/ggml-model.bin").write_bytes(b"another ggml")
    push("ended", fault=("403", "POST .*/commit/"))
    push("again", repository="tester/ended")
    push("nobody", token=None)
    push("reader", repository="tester/first", token="hf_reader")
    recipe = load_recipe("recipes/smoke.toml")
    space.stage_space(recipe, open_run(recipe, "{runs}"))
    push("spaced", "--space", "tester/page")

    from huggingface_hub import ModelCard
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    os.environ["HF_TOKEN"] = "hf_writer"
    model = WhisperForConditionalGeneration.from_pretrained("tester/first")
    processor = WhisperProcessor.from_pretrained("tester/first")
    card = ModelCard.load("tester/first")
    card.validate()
    rates = len(card.data.eval_results)
    told["loaded"] = [model.config.d_model, len(processor.tokenizer), rates]
    print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(module_hub, recipe, run):
    """What each push said, by its name in CLIENT."""
    sharing.stage_model(recipe, run, "YOU/whisper-smoke", EXPORTED)
    with (run.repository / "README.md").open("a", encoding="utf-8") as file:
        file.write("Not for doctors.\n")
    script = textwrap.dedent(CLIENT.format(runs=run.folder.parent))
    return json.loads(module_hub.run(script, cwd=ROOT).splitlines()[-1])


def history(hub, name, kind="models"):
    """The commits after the one that made the repository."""
    return Repository(hub.root, kind, name).state["history"][1:]


def published(hub, name, kind="models"):
    repository = Repository(hub.root, kind, name)
    tree = repository.tree(repository.resolve("main"))
    return {path.relative_to(tree).as_posix(): path for path in tree.rglob("*") if path.is_file()}


def test_the_cards_metadata_is_read_back_with_every_rate(card):
    assert card.data.base_model == "openai/whisper-base"
    assert (card.data.language, card.data.license) == (["it"], "mit")
    rates = {(one.dataset_name, one.metric_type): one for one in card.data.eval_results}
    assert len(rates) == 4
    assert rates["it carlo", "wer"].metric_value == 23.45, "not that of the documented call"
    assert "faster-whisper int8 called as in this card" in rates["it carlo", "wer"].metric_name
    assert rates["it carlo", "wer"].dataset_type == "asterisk-core-sounds-it-wav"


def test_two_voices_of_one_package_keep_their_names_in_the_metadata():
    recipe = load_recipe("recipes/embedded.toml")
    rates = {source.label: {"wer": 0.4, "cer": 0.1} for source in recipe.sources}
    data = ModelCardData(model_name="m", eval_results=results(recipe, rates))
    again = ModelCard(f"---\n{data}\n---\n").data.eval_results
    assert [one.dataset_name for one in again[::2]] == [one.label for one in recipe.sources]


def test_the_card_tells_all_that_a_stranger_must_know(card):
    for said in (
        *("1.50 hours", "CC-BY-3.0", "CC-BY-SA-3.0-IT", "Carlo Flora", "MIT licence"),
        *("| 20.0 % (20.0–20.0) |", "35 s, joined", "3 hypothesis(es)", "24 steps"),
        *(snippet("Transformers", "tester/whisper-it", "it"), "| 0.004 |"),
        *(snippet("faster-whisper", "ctranslate2-int8", "it"), "| 23.4 % (23.4–23.4) |"),
        *("| CTranslate2 int8, short | 81 | 3.0× | 10.0 |", "recipe.toml", "torch 2.13"),
        "“due” as “tre”.",  # and not what was confused once
    ):
        assert said in card.text, said


def test_a_language_that_whisper_lacks_has_its_own_name_on_card_and_space(recipe, run):
    spoken = [replace(one, speaks="Friulian" if one.train else "") for one in recipe.sources]
    recipe = replace(recipe, sources=tuple(spoken))
    documented = {one.label: CALLED | {"split": "test", "clips": 4} for one in spoken if one.test}
    card = ModelCard(write_card(recipe, run, "me/x", EXPORTED | {"documented": documented}))
    assert card.text.strip().startswith("# Whisper for Friulian")
    assert "no code for Friulian" in card.text and 'language="it"' in card.text
    assert card.data.language is None, "Friulian is no Italian, on the Hub either"
    settings = json.loads((space.stage_space(recipe, run) / "settings.json").read_text("utf-8"))
    assert settings["languages"] == {"it": "Friulian"}


@pytest.mark.parametrize(
    ("changes", "use"),
    [
        ({}, "trained and tested on:"),
        ({"train": ""}, "tested on only:"),
        ({"test": ""}, "trained on:"),
        ({"test": "", "transcribe_with": "x"}, "trained on, with text that a model transcribed:"),
    ],
)
def test_the_card_says_of_each_source_what_it_was_used_for(changes, use):
    assert f"), {use} " in data_line(Source("embedded", "it", "carlo", **changes))


def test_a_transcript_stays_text_in_the_card():
    assert plain("<script> a|b") == r"&lt;script&gt; a\|b"


@pytest.mark.fault(22)
def test_only_what_is_allowed_is_taken(recipe, run):
    sharing.stage_model(recipe, run, "tester/whisper-it", EXPORTED)
    names = {name.as_posix() for name in sharing.contents(run.repository, "model")}
    assert {"model.safetensors", "vocab.json", "README.md", "recipe.toml"} <= names
    assert {"04_training.ipynb", "ctranslate2-int8/model.bin", "ggml-model.bin"} <= names
    assert not names & {"training_args.bin", "optimizer.pt", "notes.txt", "complete.json"}


@pytest.mark.fault(22)
def test_a_push_is_one_private_commit_and_a_second_one_is_none(module_hub, told):
    assert told["first"]["code"] == told["second"]["code"] == 0, told
    assert "commit" in told["first"]["out"] and "nothing new to push" in told["second"]["out"]
    assert len(history(module_hub, "tester/first")) == 1
    assert Repository(module_hub.root, "models", "tester/first").state["private"]
    files = published(module_hub, "tester/first")
    for name, path in files.items():
        assert CANARY.encode() not in path.read_bytes(), name
    assert not {"training_args.bin", "optimizer.pt", "notes.txt"} & set(files)


def test_the_card_names_its_repository_and_keeps_what_a_person_has_written(module_hub, told):
    for name in ("first", "first-b"):
        text = published(module_hub, f"tester/{name}")["README.md"].read_text(encoding="utf-8")
        assert f"`hf download tester/{name} --include" in text and "YOU/" not in text
        assert text.endswith("Not for doctors.\n")


def test_what_was_pushed_loads_from_the_hub(told):
    assert told["loaded"] == [16, 51865, 4]


@pytest.mark.parametrize("name", ["busy", "limited", "raced", "lost"])
@pytest.mark.fault(15, 17)
def test_a_push_survives_a_bad_answer_and_stays_one_commit(module_hub, told, name):
    assert told[name]["code"] == 0, told[name]
    assert len(history(module_hub, f"tester/{name}")) == 1


@pytest.mark.fault(16)
def test_a_push_that_ended_before_its_commit_sends_no_file_twice(module_hub, told):
    assert told["ended"]["code"] == 1 and told["again"]["code"] == 0
    sent = [one["path"] for one in module_hub.requests() if one["method"] == "PUT"]
    assert len(sent) == len(set(sent)), "a file was sent again"
    asked = [one["path"] for one in module_hub.requests()]
    ended = next(number for number, path in enumerate(asked) if "tester/ended/commit" in path)
    assert any("/lfs/" in path for path in asked[ended - 5 : ended]), "nothing new was sent"
    assert len(history(module_hub, "tester/ended")) == 1


@pytest.mark.fault(14)
def test_no_login_or_a_token_without_rights_is_said_in_a_sentence(told):
    assert told["nobody"]["code"] == told["reader"]["code"] == 1
    assert "hf auth login" in told["nobody"]["err"]
    assert "tester/first" in told["reader"]["err"]
    for name in ("nobody", "reader"):
        assert "Traceback" not in told[name]["err"]


@pytest.mark.fault(21)
def test_the_token_in_use_stands_in_no_output_and_no_file(module_hub, run, told):
    assert "hf_writer" not in json.dumps(told)
    files = [*run.folder.rglob("*"), *published(module_hub, "tester/first").values()]
    assert not [path for path in files if path.is_file() and b"hf_writer" in path.read_bytes()]


def test_a_space_is_pushed_with_all_that_it_needs(module_hub, run, told):
    assert told["spaced"]["code"] == 0, told["spaced"]
    assert len(history(module_hub, "tester/page", "spaces")) == 1
    names = set(published(module_hub, "tester/page", "spaces")) - {".gitattributes"}
    assert names == {path.as_posix() for path in sharing.contents(run.space, "space")}
    front = ModelCard.load(run.space / "README.md").data
    assert (front.sdk, front.app_file) == ("gradio", "app.py")
    settings = json.loads((run.space / "settings.json").read_text(encoding="utf-8"))
    assert settings["call"] == FASTER_WHISPER
    assert Repository(module_hub.root, "spaces", "tester/page").state["sdk"] == "gradio"


def test_a_file_with_a_token_is_never_pushed(recipe, run, told):
    plain = (run.folder / "recipe.toml").read_text(encoding="utf-8")
    (run.folder / "recipe.toml").write_text(f"{plain}# {CANARY}\n", encoding="utf-8")
    try:
        sharing.stage_model(recipe, run, "tester/whisper-it", EXPORTED)
        leaks = sharing.find_secrets(run.repository, sharing.contents(run.repository, "model"))
        assert leaks == [str(run.repository / "recipe.toml")]
    finally:
        (run.folder / "recipe.toml").write_text(plain, encoding="utf-8")


def test_the_space_starts_on_this_machine_and_gets_no_token(
    recipe, run, wav, tmp_path, monkeypatch
):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    monkeypatch.setenv("HF_TOKEN", CANARY)
    (tmp_path / "film.wav").write_bytes(b"no sound")
    with space.serve_space(space.stage_space(recipe, run)) as url:
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
        space.serve_space(tmp_path / "page"),
    ):
        pass
