"""The page in a real browser: upload, microphone, captions, correction, keyboard, phone and dark.

Continuous integration keeps the pictures that are taken on the way.
"""

import json
import re
import shutil
import time

import numpy as np
import pytest
import soundfile

from utils.config import Source
from utils.demo import serve as demo
from utils.demo.page import build_page
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream
from utils.whisper.long_recordings import transcribe_long

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no browser: install Debian's chromium (apt install chromium)"
    ),
]
PATIENCE = 60_000  # milliseconds; an answer takes 2 s on two idle cores
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def clip():
    rows = stream(Source("embedded", "it", "carlo", max_clips=12), "test")
    row = max((row for row in rows if row["seconds"] < 6.0), key=lambda row: row["seconds"])
    return decode_audio(row["audio"]), row["text"]


@pytest.fixture(scope="module")
def corrections(tmp_path_factory):
    return tmp_path_factory.mktemp("corrections")


@pytest.fixture(scope="module")
def url(base, clip, corrections):
    model, processor = base

    def transcribe(samples, language, task):
        return transcribe_long(model, processor, samples, language=language, task=task)

    row = {"audio": (clip[0] * 32767).astype(np.int16), "language": "it", "text": clip[1]}
    names = {"it": "Italian", "fr": "French"}
    models = {"Before": transcribe, "After": transcribe}
    page = build_page(models, names, [row], "A.", corrections)
    yield demo.launch(page)
    demo.close(page)


@pytest.fixture(scope="module")
def recording(clip, tmp_path_factory):
    """The clip as a file, followed by silence: the fake microphone plays it over and over."""
    path = tmp_path_factory.mktemp("recording") / "clip.wav"
    samples = np.concatenate([clip[0], np.zeros(16_000 * 4, np.float32)])
    soundfile.write(path, np.repeat(samples[:, None], 2, axis=1), 16_000)
    return path


@pytest.fixture(scope="module")
def browser(recording):
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",  # root has no sandbox; the only page is ours
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    context = browser.new_context(viewport=WIDE, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.complaints, page.elsewhere = [], []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.complaints.append(said.text))
    page.on("request", lambda sent: page.elsewhere.append(sent.url))
    page.goto(url)
    button(page, "Transcribe").wait_for()
    yield page
    context.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("page_pictures")


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def upload(page, path):
    """Give the page a file, and wait until its waveform is drawn."""
    page.get_by_label("Upload file").click()
    page.locator("input[type=file]").first.set_input_files(path)
    page.locator("[data-testid^=waveform]").first.wait_for()


def texts(page):
    """Press Transcribe, and return both columns; until they are there, Stop can be pressed."""
    from playwright.sync_api import expect

    button(page, "Transcribe").click()
    expect(button(page, "Stop")).to_be_enabled()
    filled = "[...document.querySelectorAll('textarea')].slice(0, 2).every(box => box.value)"
    page.wait_for_function(filled)
    button(page, "Save SRT").wait_for()
    expect(button(page, "Stop")).to_be_disabled()
    return [page.locator("textarea").nth(column).input_value() for column in (0, 1)]


def transcript(base, clip):
    windows = transcribe_long(*base, clip[0], language="it")
    return " ".join(segment.text for _, new in windows for segment in new)


def test_an_upload_is_transcribed_in_both_columns_and_its_captions_are_saved(
    page, recording, base, clip, pictures
):
    upload(page, recording)
    before, after = texts(page)
    assert before == after and transcript(base, clip).split()[0].lower() in before.lower()
    saved = {}
    for kind in ("srt", "json"):
        with page.expect_download() as download:
            button(page, f"Save {kind.upper()}").click()
        saved[kind] = download.value.path().read_text(encoding="utf-8")
    cues = re.findall(r"\d+\n(\S+) --> (\S+)\n(.+)\n", saved["srt"])
    assert " ".join(text for _, _, text in cues) == after
    assert [row["text"] for row in json.loads(saved["json"])] == [text for _, _, text in cues]
    page.screenshot(path=pictures / "page_wide.png", full_page=True)
    page.set_viewport_size(NARROW)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    page.screenshot(path=pictures / "page_narrow_dark.png", full_page=True)
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(too_wide) <= 0
    assert page.complaints == []
    own = ("http://127.0.0.1", "blob:", "data:")
    assert [sent for sent in page.elsewhere if not sent.startswith(own)] == []


def test_the_microphone_is_transcribed(page, base, clip):
    button(page, "Record").click()
    page.wait_for_timeout(8000)
    button(page, "Stop").first.click()
    page.locator("[data-testid^=waveform] canvas, #waveform").first.wait_for()
    time.sleep(2)
    before, after = texts(page)
    words = {word.strip(".,").lower() for word in transcript(base, clip).split()}
    said = {word.strip(".,").lower() for word in after.split()}
    assert before == after and len(words & said) >= len(words) / 2


def test_all_is_done_by_keyboard_and_a_correction_is_kept_only_after_consent(
    page, clip, corrections
):
    def press(name, key="Enter"):
        """Move on with Tab until the control of that name has the focus, then press a key."""
        focused = "document.activeElement.getAttribute('aria-label') || "
        focused += "(document.activeElement.labels?.[0] || document.activeElement).innerText"
        for _ in range(60):
            page.keyboard.press("Tab")
            if (page.evaluate(focused) or "").strip().startswith(name):
                return page.keyboard.press(key)
        pytest.fail(f"Tab does not reach {name}")

    press(clip[1][:20])
    page.get_by_text(re.compile(r"^0:0[1-9]$")).first.wait_for()  # its length: it has arrived
    press("Transcribe")
    page.wait_for_function("document.querySelectorAll('textarea')[1].value")
    press("That was wrong?")
    press("What was really said", "Control+a")
    page.keyboard.type("Quello che è stato detto.")
    press("That was wrong: keep the correction")
    page.get_by_text("Nothing was stored").wait_for()
    assert list(corrections.rglob("*.wav")) == []
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Thank you").wait_for()
    (line,) = (corrections / "it/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["text"] == "Quello che è stato detto."


def test_stop_keeps_what_was_heard_and_the_page_goes_on(page, clip, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(clip[0], 40), 16_000)
    upload(page, tmp_path / "long.wav")
    button(page, "Transcribe").click()
    page.wait_for_function("document.querySelector('#timestamps code')")
    button(page, "Stop").last.click()
    page.get_by_text(re.compile("Stopped at")).wait_for()
    assert page.locator("textarea").nth(1).input_value()


def test_live_speech_is_written_while_the_microphone_is_open(page, base, clip):
    page.get_by_text("Live: transcribed while you speak").click()
    button(page, "Record").last.click()
    page.wait_for_function("document.querySelector('#live textarea').value.split(' ').length > 2")
    written = page.locator("#live textarea").input_value()
    words = {word.strip(".,").lower() for word in transcript(base, clip).split()}
    assert words & {word.strip(".,").lower() for word in written.split()}, written
    button(page, "Stop").last.click()
    assert page.complaints == []
