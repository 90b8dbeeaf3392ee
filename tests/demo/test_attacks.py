"""The pages under attack: the real demo, recorder and Space, each a process on the loopback.

None opens a file that was not uploaded, asks another server, or takes memory that nobody has.
"""

import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.conftest import ROOT

MOST_MIB = 200  # above an idle page
RATE = 8000
START = """
import sys
from pathlib import Path
from utils.demo import guard, serve
guard.PATIENCE, guard.MAX_KEPT = 1, 64 * 2**20
guard.end_on_signals()
from utils.whisper.captions import Segment

def transcribe(samples, language, task):
    yield len(samples) / 16000, [Segment(0.0, 1.0, f"{len(samples)} samples")]
"""
DEMO = """
from utils.demo.page import build_page
models = {"a": transcribe, "b": transcribe}
page = build_page(models, {"it": "Italian"}, corrections=Path(sys.argv[1]))
"""
RECORDER = """
from utils.recorder import build_recorder
page = build_recorder(["Uno.", "Due."], Path(sys.argv[1]))
"""
SERVE = """
print(serve.launch(page), guard.private_folder(), flush=True)
page.block_thread()
"""
STUB = """
import guard
guard.PATIENCE, guard.MAX_KEPT = 1, 64 * 2**20
class WhisperModel:
    def __init__(self, *_, **__): pass
    def transcribe(self, samples, **_):
        return [type("Segment", (), {"text": f"{len(samples)} samples"})], None
BatchedInferencePipeline = WhisperModel
"""


class Served:
    """A page in its own process: how to ask it, and what it takes."""

    def __init__(self, kind, process, url):
        self.kind, self.process, self.url = kind, process, url
        self.client = Client(url, verbose=False, analytics_enabled=False)

    def ask(self, path):
        """Upload a file, and return what the page says to it."""
        file = handle_file(str(path)) if isinstance(path, Path) else path
        if self.kind == "demo":
            return self.client.predict(file, "it", "transcribe", api_name="/transcribe")[1]
        if self.kind == "recorder":
            return self.client.predict(file, "Uno.", api_name="/keep")[0]
        return self.client.predict(file, "it", api_name="/transcribe")

    def call(self, file):
        """Ask as a program that uploads nothing; return the events that come back."""
        name, data = {
            "demo": ("transcribe", [file, "it", "transcribe"]),
            "recorder": ("keep", [file, "Uno.", 0]),
            "space": ("transcribe", [file, "it"]),
        }[self.kind]
        call = f"{self.url}gradio_api/call/{name}"
        asked = httpx.post(call, json={"data": data})
        return httpx.get(f"{call}/{asked.json()['event_id']}", timeout=60).text

    def mib(self, which):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(rf"{which}:\s+(\d+) kB", status)[1]) / 1024


@contextmanager
def serve(kind, folder):
    if kind == "space":
        shutil.copy(ROOT / "spaces/app.py", folder)
        shutil.copy(ROOT / "utils/demo/guard.py", folder)
        (folder / "faster_whisper.py").write_text(STUB, encoding="utf-8")
        settings = {"title": "T", "languages": {"it": "I"}, "gaps": {"it": " "}}
        settings = json.dumps(settings | {"credit": "", "call": {}})
        (folder / "settings.json").write_text(settings, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command, at = ["app.py"], {"GRADIO_SERVER_PORT": str(port)}
    else:
        script = START + {"demo": DEMO, "recorder": RECORDER}[kind] + SERVE
        command, at = ["-c", script, str(folder / "kept")], {}
    where = {"cwd": folder if kind == "space" else ROOT, "env": os.environ | at}
    (folder / "tmp").mkdir()
    where["env"] |= {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, **where
    )
    try:
        line = "" if kind == "space" else process.stdout.readline()
        url = f"http://127.0.0.1:{port}/" if kind == "space" else line.split()[0]
        patience = time.monotonic() + 120
        while True:
            try:
                assert httpx.get(url, timeout=10).status_code == 200
                break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < patience
                time.sleep(0.2)
        yield Served(kind, process, url)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=["demo", "recorder", "space"])
def page(request, tmp_path_factory):
    with serve(request.param, tmp_path_factory.mktemp(request.param)) as served:
        yield served


@pytest.fixture(scope="module")
def other_server():
    """A server that counts who asks it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def header(rate, channels, claimed=2**31, samples=50_000):
    """A WAV of 16 bits whose header says what no recording has."""
    kind = struct.pack("<HHIIHH", 1, channels, rate, 0, (2 * channels) & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + kind + b"data" + struct.pack("<I", claimed)
    return b"RIFF" + struct.pack("<I", claimed) + body + b"\1\2" * samples


def silence(hours, level=0.0):
    """Hours of nothing, or of a tone, in half a megabyte of FLAC."""
    file, second = io.BytesIO(), level * np.sin(np.arange(RATE) * (2 * np.pi * 50 / RATE))
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16", format="FLAC") as out:
        for _ in range(round(hours * 60)):
            out.write(np.tile(second, 60))
    return file.getvalue()


def of_length(flac, samples):
    """Put another number of samples into a FLAC's header: the 36 bits from bit 172 on."""
    bits = int.from_bytes(flac[18:26], "big")
    return flac[:18] + (bits >> 36 << 36 | samples).to_bytes(8, "big") + flac[26:]


@pytest.fixture(scope="module")
def attacks(tmp_path_factory, other_server):
    """Files that want what is not theirs, by name."""
    folder = tmp_path_factory.mktemp("attacks")
    secrets = tmp_path_factory.mktemp("secret")
    tone = 0.3 * np.sin(np.arange(3 * 16_000) / 20)
    for kind in ("mp3", "wav", "flac", "ogg"):
        soundfile.write(secrets / f"clip.{kind}", tone, 16_000)
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:60\n#EXTINF:60,\n"
    texts = {}
    for number, target in enumerate(
        [
            f"{secrets}/clip.mp3",
            f"file://{secrets}/clip.mp3",
            f"{secrets}/clip.wav",
            f"concat:{secrets}/clip.mp3|{secrets}/clip.mp3",
            f"subfile,,start,0,end,0,,:{secrets}/clip.mp3",
            f"{other_server[0]}/playlist.mp3",
        ]
    ):
        for suffix in ("m3u8", "mp3", "wav"):
            texts[f"playlist_{number}.{suffix}"] = f"{head}{target}\n#EXT-X-ENDLIST\n"
        texts[f"list_{number}.ffconcat"] = f"ffconcat version 1.0\nfile '{target}'\n"
        texts[f"list_{number}.pls"] = f"[playlist]\nFile1={target}\nNumberOfEntries=1\n"
        texts[f"dash_{number}.mpd"] = (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
            'mediaPresentationDuration="PT3S"><Period><AdaptationSet mimeType="audio/mpeg">'
            f'<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
            "</Representation></AdaptationSet></Period></MPD>"
        )
    texts["line.sdp"] = "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"
    hours = silence(1.5)
    files = {name: text.encode() for name, text in texts.items()}
    files |= {
        "rate_1e9.wav": header(10**9, 1),
        "rate_2e31.wav": header(2**31 - 1, 1),
        "rate_0.wav": header(0, 1),
        "channels_1024.wav": header(655_350, 1024),
        "channels_65535.wav": header(48_000, 65_535),
        "hours.flac": hours,
        "hours_that_say_nothing.flac": of_length(hours, 0),
        "hours_that_say_a_second.flac": of_length(silence(1.1, level=0.3), RATE),
        "hours_that_say_for_ever.flac": of_length(hours, 2**36 - 1),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


@pytest.mark.fault(24)
def test_no_file_opens_another_one_asks_a_server_or_takes_memory(page, attacks, other_server, wav):
    good = Path(attacks[0].parent / "good.wav")
    good.write_bytes(wav(seconds=2))
    assert page.ask(good)  # before anything is weighed, all of it has run once
    Path(f"/proc/{page.process.pid}/clear_refs").write_text("5", encoding="ascii")
    idle, answered, slow = page.mib("VmRSS"), [], []
    for path in attacks:
        started = time.monotonic()
        try:
            answered.append((path.name, page.ask(path)))
        except AppError as error:
            assert len(str(error).splitlines()) == 1, path.name
        slow += [path.name] if time.monotonic() - started > 30 else []
    # libsndfile believes a header that says less: one second of what was uploaded is no leak.
    answered = [one for one in answered if one[0] != "hours_that_say_a_second.flac"]
    assert not answered, f"sound that nobody uploaded: {answered}"
    assert not slow and other_server[1] == []
    assert page.mib("VmHWM") - idle < MOST_MIB
    assert page.ask(good)


@pytest.mark.fault(24)
def test_no_path_or_address_is_taken_for_an_upload(page, attacks, other_server, wav):
    secret = attacks[0].parent / "secret.wav"
    secret.write_bytes(wav(seconds=2))
    for place in (str(secret), f"file://{secret}", f"{other_server[0]}/clip.wav", "/etc/passwd"):
        assert "event: error" in page.call({"path": place, "meta": {"_type": "gradio.FileData"}})
        assert "event: error" in page.call({"url": place, "meta": {"_type": "gradio.FileData"}})
    for route in ("file=", "proxy=", "stream/", "custom_component/"):
        for place in (
            *(str(secret), "/etc/passwd", "/etc/../etc/passwd", "../../etc/passwd"),
            *("utils/demo/serve.py", "../.env", f"{other_server[0]}/clip.wav"),
        ):
            answer = httpx.get(f"{page.url}gradio_api/{route}{place}")
            assert answer.status_code >= 400, (route, place)
    assert other_server[1] == []


@pytest.mark.fault(24)
def test_other_sites_and_other_names_are_refused(page):
    host = page.url[7:-1]
    port = host.rpartition(":")[2]
    file = {"files": ("a.wav", b"x")}
    upload = f"{page.url}gradio_api/upload"
    for name in (
        f"evil.example:{port}",
        "evil.example",
        f"127.0.0.1.evil.example:{port}",
        "[::1",
        "",
    ):
        assert httpx.get(page.url, headers={"host": name}).status_code in (400, 403), name
    for origin in (
        "http://evil.example",
        "null",
        f"http://127.0.0.1.evil.example:{port}",
        "http://127.0.0.1:1",
    ):
        answer = httpx.post(upload, files=file, headers={"origin": origin})
        assert answer.status_code == 403, origin
    for origin in (None, page.url[:-1]):
        assert httpx.post(
            upload, files=file, headers={"origin": origin} if origin else {}
        ).is_success
    for name in (f"localhost:{port}", "127.0.0.1"):  # a port that ssh forwards is another one
        assert httpx.get(page.url, headers={"host": name}).status_code == 200
    headers = httpx.get(page.url).headers
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "*" not in re.findall(r"https?://(\S+?):\*", headers["content-security-policy"])
    assert headers["x-content-type-options"] == "nosniff"


def test_a_request_that_is_no_upload_has_an_end(page):
    join = f"{page.url}gradio_api/queue/join"
    assert httpx.post(join, content=b"[" * 5_000_000).status_code == 413
    idle = page.mib("VmRSS")

    def for_ever():  # and no length is given
        for _ in range(400):
            yield b" " * 2**20

    try:
        answer = httpx.post(join, content=for_ever(), timeout=60).status_code
    except httpx.TransportError:
        answer = 413  # it hung up
    assert answer >= 400
    assert page.mib("VmRSS") - idle < MOST_MIB


@pytest.mark.fault(24)
def test_all_uploads_together_have_a_limit(page):
    upload, answers = f"{page.url}gradio_api/upload", []
    for number in range(8):  # of 10 MiB each, each another one
        file = {"files": ("a.wav", bytes([number]) * 10 * 2**20)}
        answers.append(httpx.post(upload, files=file, timeout=60).status_code)
    assert set(answers[:4]) == {200} and answers[-1] == 507, answers
    assert httpx.get(page.url).status_code == 200


@pytest.mark.fault(24)
def test_half_open_sockets_are_closed_and_slow_answers_are_not(page):
    host, port = page.url[7:-1].split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(50)]
    for number, one in enumerate(held):
        one.sendall([b"", b"GET / HT", b"POST /gradio_api/upload HTTP/1.1\r\nHost: "][number % 3])
    body = socket.create_connection((host, int(port)))
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 999\r\n"
    body.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x".encode())
    assert httpx.get(page.url).status_code == 200
    for one in [*held, body]:
        one.settimeout(10)
        with suppress(ConnectionResetError):
            assert one.recv(1) == b""
        one.close()


@pytest.mark.parametrize("kind", ["demo", "space"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.fault(24, 2)
def test_recordings_go_with_the_page_however_it_ends(kind, number, tmp_path, wav):
    recording = tmp_path / "good.wav"
    recording.write_bytes(wav(seconds=2))
    with serve(kind, tmp_path) as served:
        assert served.ask(recording)
        assert list((tmp_path / "tmp").rglob("*.wav"))
        served.process.send_signal(number)
        served.process.wait(30)
    if number == signal.SIGKILL:  # nobody can tidy up after that, but whoever comes next
        script = "import utils.demo.guard as guard; guard.private_folder()"
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
            check=True,
        )
    assert not list((tmp_path / "tmp").glob("whisper-demo-*"))
