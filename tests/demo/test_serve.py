"""The page as programs see it: what it answers, what it says to bad recordings, what it keeps."""

import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from utils.demo import serve as demo
from utils.demo.answers import in_turn
from utils.demo.guard import private_folder
from utils.demo.page import build_page
from utils.whisper.captions import Segment

SECOND = np.sin(np.arange(16_000) / 16_000 * 440 * 2 * np.pi).astype(np.float32) / 4
ASKED = []  # what reached the transcribers of the page below


def hear_nothing(clip, language, task):
    yield len(clip) / 16_000, []


def wav(folder, name, samples):
    soundfile.write(folder / name, samples, 16_000)
    return str(folder / name)


def film(path):
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    return str(path)


@pytest.fixture(scope="module")
def served():
    def transcribe(clip, language, task):
        ASKED.append((len(clip), language, task))
        for second in range(0, len(clip) // 16_000, 30):
            text = f"{len(clip)} {language} <b>"
            yield second + 30.0, [Segment(second, second + 1.0, text)]

    def in_capitals(*asked):
        for done, segments in transcribe(*asked):
            yield done, [Segment(start, end, text.upper()) for start, end, text in segments]

    row = {"audio": (SECOND * 32767).astype(np.int16), "language": "it", "text": "Un tono."}
    names = {"it": "Italian", "th": "Thai"}
    page = build_page({"Before": transcribe, "After": in_capitals}, names, [row], "A speaker")
    yield page, demo.launch(page)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def client(served):
    return Client(served[1], verbose=False, analytics_enabled=False)


def ask(client, file, language="it", task="transcribe"):
    """Return what each model returned, what changed, the timestamps and the captions."""
    file = file and handle_file(file)
    return client.predict(file, language, task, api_name="/transcribe")[1:6]


def test_a_recording_and_its_language_reach_both_models_and_their_texts_come_back(client, tmp_path):
    ASKED.clear()
    before, after, changes, times, captions = ask(client, wav(tmp_path, "a.wav", SECOND), "th")
    assert ASKED == [(16_000, "th", "transcribe")] * 2
    assert (before, after) == ("16000 th <b>", "16000 TH <B>")
    for html in (changes, times):  # foreign text, escaped
        assert "&lt;" in html and "<b>" not in html.lower()
    assert captions["srt"] == "1\n00:00:00,000 --> 00:00:01,000\n16000 TH <B>\n"


def test_the_task_reaches_both_models_and_a_translation_is_compared_by_words(client, tmp_path):
    ASKED.clear()
    changes = ask(client, wav(tmp_path, "a.wav", SECOND), "th", "translate")[2]
    assert ASKED == [(16_000, "th", "translate")] * 2
    assert ">th &lt;b&gt;</del>" in changes


def test_a_long_recording_comes_window_by_window_with_its_progress(client, tmp_path):
    file = handle_file(wav(tmp_path, "long.wav", np.tile(SECOND, 70)))
    job = client.submit(file, "it", "transcribe", api_name="/transcribe")
    last = job.result()
    shares = [re.search(r'value="([\d.]+)"', output[0])[1] for output in job.outputs()]
    assert shares == ["0.0", "0.0", "30.0", "30.0", "60.0", "60.0", "69.9", "70.0"]
    assert last[5]["srt"].count("-->") == 3


def test_what_changed_is_marked_by_words_or_where_there_are_none_by_characters(client, tmp_path):
    file = wav(tmp_path, "a.wav", SECOND)
    italian, thai = (ask(client, file, language)[2] for language in ("it", "th"))
    assert ">it &lt;b&gt;</del>" in italian and ">IT &lt;B&gt;</ins>" in italian
    assert ">th</del>" in thai and ">b</del>" in thai


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "There is no recording yet"),
        (lambda folder: wav(folder, "none.wav", SECOND[:0]), "no readable audio"),
        (lambda folder: wav(folder, "quiet.wav", 0 * SECOND), "is silent"),
        (lambda folder: film(folder / "film.wav"), "no readable audio"),
    ],
    ids=["nothing", "no samples", "silence", "noise"],
)
def test_a_bad_recording_gets_its_sentence_and_the_page_lives_on(client, tmp_path, make, sentence):
    """Other files that are no recording: test_kept."""
    ASKED.clear()
    with pytest.raises(AppError, match=sentence):
        ask(client, make(tmp_path))
    assert ASKED == []
    assert ask(client, wav(tmp_path, "good.wav", SECOND))[0] == "16000 it <b>"


def test_an_upload_beyond_200_mb_is_refused(served):
    files = {"files": ("big.wav", io.BytesIO(bytes(201 * 2**20)))}
    assert httpx.post(f"{served[1]}gradio_api/upload", files=files).status_code == 413


def test_a_language_that_is_not_offered_is_refused(client, tmp_path):
    ASKED.clear()
    with pytest.raises(AppError):
        ask(client, wav(tmp_path, "a.wav", SECOND), "xx")
    assert ASKED == []


@pytest.mark.fault(24)
def test_the_page_listens_on_the_loopback_alone_and_is_not_shared(served):
    page, url = served
    assert url.startswith("http://127.0.0.1:") and page.share is False
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in {one for one in others if not one.startswith(("127.", "::1"))}:
        with pytest.raises(OSError), socket.create_connection((address, page.server_port), 2):
            pass


def test_a_networks_proxy_is_not_asked_for_the_page(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    page = build_page({"a": hear_nothing, "b": hear_nothing}, {"it": "Italian"})
    try:
        assert httpx.get(demo.launch(page)).status_code == 200
        assert os.environ["NO_PROXY"].startswith("example.org,127.0.0.1")
    finally:
        demo.close(page)


def test_a_page_is_shared_only_behind_a_password(monkeypatch):
    # The tunnel program is not downloaded here: whether it would be is what counts.
    asked = []
    monkeypatch.setattr("gradio.networking.setup_tunnel", lambda **given: asked.append(given) or "")
    page = build_page({"a": hear_nothing, "b": hear_nothing}, {"it": "Italian"})
    url = demo.launch(page, password="a long word")
    try:
        assert page.share is True and asked
        assert httpx.get(f"{url}config").status_code == 401
        login = {"username": demo.GUEST, "password": "a short word"}
        assert httpx.post(f"{url}login", data=login).status_code == 400
        login["password"] = "a long word"
        with httpx.Client() as visitor:
            assert visitor.post(f"{url}login", data=login).status_code == 200
            assert visitor.get(f"{url}config").status_code == 200
    finally:
        demo.close(page)


def test_no_statistics_are_sent_and_nothing_is_kept(served):
    config = httpx.get(f"{served[1]}config").json()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert served[0].delete_cache == (3600, 3600)


def test_the_speaker_of_the_examples_is_named(served):
    config = httpx.get(f"{served[1]}config").json()
    assert any(part["props"].get("value") == "A speaker" for part in config["components"])


def test_a_taken_port_and_one_that_cannot_be_have_a_sentence():
    with pytest.raises(OSError, match="There is no port 65536"):
        demo.launch(build_page({"a": hear_nothing, "b": hear_nothing}, {"it": "Italian"}), 65536)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        page = build_page({"a": hear_nothing, "b": hear_nothing}, {"it": "Italian"})
        with pytest.raises(OSError, match=f"Port {port} of 127.0.0.1 is taken"):
            demo.launch(page, port)


@pytest.mark.fault(24)
def test_a_crowd_is_told_that_the_page_is_busy_and_those_in_line_are_answered(tmp_path):
    go = threading.Event()

    def transcribe(clip, language, task):
        go.wait(60)
        yield 1.0, [Segment(0.0, 1.0, "answered")]

    page = build_page({"a": transcribe, "b": transcribe}, {"it": "Italian"})
    client = Client(demo.launch(page), verbose=False, analytics_enabled=False)
    file = handle_file(wav(tmp_path, "a.wav", SECOND))
    crowd = range(demo.MAX_WAITING + 6)
    jobs = [client.submit(file, "it", "transcribe", api_name="/transcribe") for _ in crowd]
    patience = time.monotonic() + 60
    while not any(job.done() for job in jobs) and time.monotonic() < patience:
        time.sleep(0.05)  # one is at work until `go`: whoever is done by now was refused
    go.set()
    refusals = [str(job.exception()) for job in jobs if job.exception()]
    answers = [job.result()[1] for job in jobs if not job.exception()]
    demo.close(page)
    assert refusals and all("full" in refusal for refusal in refusals)
    assert len(answers) >= demo.MAX_WAITING and set(answers) == {"answered"}


def test_an_open_microphone_holds_up_nobody_who_sends_a_recording():
    page = build_page({"a": hear_nothing, "b": hear_nothing}, {"it": "Italian"})
    (live,) = (one for one in page.fns.values() if one.connection == "stream")
    (sent,) = (one for one in page.fns.values() if one.api_name == "transcribe")
    assert live.concurrency_id != sent.concurrency_id  # Gradio keeps a place while it is open
    turn = threading.Lock()

    def transcribe(*_):
        assert turn.locked()  # one window at a time, of whomever
        yield 1.0, []

    windows = in_turn(transcribe, turn)(None, "it", "transcribe")
    assert next(windows) == (1.0, [])
    assert not turn.locked()
    assert list(windows) == []


def test_a_closed_page_answers_nobody_and_leaves_no_recordings(tmp_path):
    for _ in range(2):  # the second as in a lesson whose cells are run again
        page = build_page({"a": hear_nothing, "b": hear_nothing}, {"it": "Italian"})
        url = demo.launch(page)
        assert httpx.get(url).status_code == 200
        client = Client(url, verbose=False, analytics_enabled=False)
        file = handle_file(wav(tmp_path, "a.wav", SECOND))
        client.predict(file, "it", "transcribe", api_name="/transcribe")
        recordings = private_folder()
        assert list(recordings.rglob("*.wav"))
        assert recordings.stat().st_mode & 0o077 == 0
        demo.close(page)
        assert not list(recordings.iterdir())
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_no_page_s_folder_outlives_its_process():
    script = "from utils.demo.guard import private_folder; print(private_folder())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    folder = Path(done.stdout.strip())
    assert folder.name.startswith("whisper-demo-") and not folder.exists()


def test_the_command_says_in_one_sentence_that_training_has_not_been_run(tmp_path):
    command = [sys.executable, "-m", "utils.demo", "recipes/smoke.toml", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.endswith("is missing: run notebooks/04_training.ipynb first.")
