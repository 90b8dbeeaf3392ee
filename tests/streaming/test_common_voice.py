import gzip
import io
import json
import tarfile
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from utils.config import RecipeError, Source
from utils.streaming.common_voice import find, read_clips, read_split
from utils.streaming.sound import decode_audio
from utils.streaming.sources import stream

COLUMNS = ["client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes"]
COLUMNS += ["down_votes", "age", "gender", "accents", "variant", "locale", "segment"]
SENTENCES = {
    "train": ['"Buenos días, dijo.', "El niño está aquí.", 'Dijo "hola" y se fue.', "Sin clip."],
    "dev": ["¿Qué tal?"],
    "test": ["Año nuevo."],
    "other": ["Otra frase."],
}


def table(split, sentences):
    rows = [COLUMNS]
    for number, sentence in enumerate(sentences):
        row = dict.fromkeys(COLUMNS, "") | {"client_id": "abc", "locale": "es", "up_votes": "2"}
        row |= {"path": f"common_voice_es_{split}{number}.mp3", "sentence": sentence}
        rows.append([row[column] for column in COLUMNS])
    return "".join("\t".join(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="session")
def mp3():
    import numpy as np
    import soundfile

    file = io.BytesIO()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 32_000)
    soundfile.write(file, tone, 32_000, format="MP3")
    return file.getvalue()


def files_of(mp3, sentences=SENTENCES):
    """A release's files in the order of its archives: the tables lie between the clips."""
    root = "cv-corpus-27.0-2026-09-11/es"
    files = {f"{root}/validated_sentences.tsv": b"sentence_id\tsentence\nx\ty\n"}
    durations = ["clip\tduration[ms]"]
    for split, texts in sentences.items():
        for number, text in enumerate(texts):
            name = f"common_voice_es_{split}{number}.mp3"
            durations.append(f"{name}\t1500")
            if text != "Sin clip.":
                files[f"{root}/clips/{name}"] = mp3
        files[f"{root}/{split}.tsv"] = table(split, texts)
    files[f"{root}/clip_durations.tsv"] = "\n".join(durations).encode()
    files[f"{root}/clips/common_voice_es_extra.mp3"] = mp3
    return files


def pack(path, files):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(params=["folder", "cv-corpus-27.0-es.tar.gz", "cv-corpus-27.0-es.tar"])
def release(request, tmp_path, mp3):
    if request.param != "folder":
        return pack(tmp_path / request.param, files_of(mp3))
    for name, data in files_of(mp3).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path / "cv-corpus-27.0-2026-09-11"


def test_every_row_arrives_with_its_clip_and_a_missing_clip_is_told(release):
    rows = list(stream(Source("common_voice", "es", str(release)), "train"))
    assert [row["text"] for row in rows] == SENTENCES["train"]
    assert [row["seconds"] for row in rows] == [1.5] * 4
    assert [len(row["audio"]) > 0 for row in rows] == [True, True, True, False]
    assert len(decode_audio(rows[0]["audio"])) / 16_000 == pytest.approx(1.5, abs=0.1)
    assert rows[0]["id"].endswith("/common_voice_es_train0.mp3")
    assert {row["speaker"] for row in rows} == {"abc"}


def test_splits_join_and_one_that_is_not_there_is_told(release):
    source = Source("common_voice", "es", str(release))
    assert [row["text"] for row in stream(source, "dev+other")] == ["¿Qué tal?", "Otra frase."]
    with pytest.raises(RecipeError, match=r'no clips in the split "tset"; it has .*dev, .*test'):
        stream(source, "tset")


def test_spontaneous_speech_has_its_splits_in_one_table_and_tags_in_its_text(tmp_path, mp3):
    columns = ["client_id", "audio_id", "audio_file", "duration_ms"]
    columns += ["prompt", "transcription", "split"]
    rows = [
        ["c", "1", "spontaneous-speech-ga-1.mp3", "1500", "?", "[noise] Bhuel  sea", "train"],
        ["c", "2", "spontaneous-speech-ga-2.mp3", "", "?", "Ní hea", "test"],
        ["c", "3", "spontaneous-speech-ga-3.mp3", "1500", "?", "", "unassigned"],
    ]
    root = "sps-corpus-5.0-2026-09-11-ga-IE"
    tsv = "\r\n".join("\t".join(row) for row in [columns, *rows]).encode()
    files = {f"{root}/audios/spontaneous-speech-ga-{i}.mp3": mp3 for i in (1, 2, 3)}
    files |= {f"{root}/ss-corpus-ga-IE.tsv": tsv, f"{root}/ss-reported-audios-ga-IE.tsv": b"x\n"}
    path = pack(tmp_path / "sps.tar.gz", files)
    assert {name: one["text"].split() for name, one in read_split(path, "train").items()} == {
        "spontaneous-speech-ga-1.mp3": ["Bhuel", "sea"]
    }
    (entry,) = (entry for _, entry, _ in read_clips(path, "test"))
    assert (entry["seconds"], entry["speaker"]) == (None, "c")
    with pytest.raises(RecipeError, match="it has test, train, unassigned"):
        read_split(path, "dev")
    none = tsv.replace(b"\ttrain", b"\tunassigned").replace(b"\ttest", b"\tunassigned")
    path = pack(tmp_path / "none.tar.gz", files | {f"{root}/ss-corpus-ga-IE.tsv": none})
    with pytest.raises(RecipeError, match=r"assigned none of its 3 clips.*unassigned"):
        read_split(path, "train")


@pytest.mark.parametrize("name", ["../evil.mp3", "/etc/evil.mp3"])
def test_a_path_out_of_the_archive_is_refused(tmp_path, mp3, name):
    path = pack(tmp_path / "bad.tar.gz", {name: mp3} | files_of(mp3))
    with pytest.raises(RecipeError, match="leads out of it"):
        read_split(path, "train")
    rows = table("train", ["Uno"]).replace(b"common_voice_es_train0.mp3", name.encode())
    path = pack(
        tmp_path / "table.tar", files_of(mp3) | {"cv-corpus-27.0-2026-09-11/es/train.tsv": rows}
    )
    with pytest.raises(RecipeError, match="leads out of"):
        read_split(path, "train")


def test_a_broken_or_foreign_archive_is_told(tmp_path, mp3):
    whole = pack(tmp_path / "es.tar.gz", files_of(mp3)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.tar.gz").write_bytes(b"<html>sign in</html>")
    for name in ("cut", "page"):
        with pytest.raises(RecipeError, match=r"cannot be read to its end|no clips in the split"):
            read_split(tmp_path / f"{name}.tar.gz", "test")
    with pytest.raises(RecipeError, match="is it Common Voice"):
        read_split(pack(tmp_path / "other.tar", {"a.txt": b"x"}), "train")


def test_reading_many_clips_holds_none_of_them(tmp_path):
    clip, count = bytes(50_000), 2_000  # 100 MB; the slow test below reads 2 GB
    sentences = {"train": ["Uno"] * count, "dev": ["Due"], "test": ["Tre"]}
    path = pack(tmp_path / "big.tar", files_of(clip, sentences))
    clips = read_clips(path, "train")
    next(clips)
    tracemalloc.start()
    total = sum(len(data) for _, _, data in clips)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == (count - 1) * len(clip)
    assert peak < 8e6


@pytest.mark.slow
def test_reading_2_gb_leaves_memory_flat_and_the_disk_alone(tmp_path):
    import os
    from pathlib import Path

    def resident_mib():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    clip, count = os.urandom(40_000), 50_000
    path = tmp_path / "cv-corpus-27.0-es.tar.gz"
    root = "cv-corpus-27.0-2026-09-11/es"
    rows = table("train", ["Uno."] * count)
    # Level 0: MP3 does not compress, and packing is not what is tested.
    with tarfile.open(path, "w:gz", compresslevel=0) as tar:
        for name, data in [("train.tsv", rows)] + [
            (f"clips/common_voice_es_train{i}.mp3", clip) for i in range(count)
        ]:
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert path.stat().st_size > 2e9
    clips, sizes, resident = read_clips(path, "train"), 0, []
    for number, (_, _, data) in enumerate(clips):
        sizes += len(data)
        if number % 1000 == 999:
            resident.append(resident_mib())
    print(f"{resident[0]:.0f} MiB after 1,000 clips, at most {max(resident):.0f} MiB")
    assert sizes == count * len(clip)
    assert max(resident) - resident[0] < 50
    assert [one.name for one in tmp_path.iterdir()] == [path.name], "something was unpacked"
    path.unlink()


class Collective(BaseHTTPRequestHandler):
    """The four answers of the Mozilla Data Collective that a download needs."""

    archive = b""
    status = 200

    def answer(self, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def details(self, release):
        name = f"Common Voice Scripted Speech {release}.0 - Spanish"
        return {"id": f"id{release}", "name": name, "filename": f"cv-{release}-es.tar.gz"}

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/datasets":
            items = [self.details(9), self.details(27), self.details(26)]
            items.append({"id": "x", "name": "Common Voice Spontaneous Speech 50.0 - Spanish"})
            found = items if "locale=es" in query else []
            self.answer({"items": found, "total": len(found)})
        elif path == "/file":
            self.answer(self.archive, "application/gzip")
        else:
            self.answer(self.details(int(path.removeprefix("/datasets/id"))))

    def do_POST(self):
        url = f"http://127.0.0.1:{self.server.server_port}/file"
        self.answer({"downloadUrl": url, "sizeBytes": str(len(self.archive)), "checksum": None})

    def log_message(self, *arguments):
        pass


@pytest.fixture
def collective(monkeypatch, tmp_path, mp3):
    handler = type("Handler", (Collective,), {"archive": gzip.compress(b"")})
    handler.archive = pack(tmp_path / "es.tar.gz", files_of(mp3)).read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MDC_API_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MDC_API_KEY", "test-key")
    monkeypatch.setenv("MDC_DOWNLOAD_PATH", str(tmp_path / "downloads"))
    yield handler
    server.shutdown()


def test_a_locale_is_found_downloaded_and_read(collective, tmp_path):
    path = find("es")
    assert path == tmp_path / "downloads/cv-27-es.tar.gz", "27.0 is the newest scripted release"
    rows = list(stream(Source("common_voice", "es", "es"), "dev"))
    assert [row["text"] for row in rows] == ["¿Qué tal?"]


def test_what_stands_in_the_way_of_a_download_is_told(collective, monkeypatch):
    with pytest.raises(RecipeError, match='no Common Voice scripted speech for "xx"'):
        find("xx")
    collective.status = 403
    with pytest.raises(RecipeError, match="Access denied") as refused:
        find("es")
    assert "test-key" not in str(refused.value)
    monkeypatch.delenv("MDC_API_KEY")
    with pytest.raises(RecipeError, match="MDC_API_KEY"):
        find("es")
    with pytest.raises(RecipeError, match="is not there"):
        find("archives/es.tar.gz")


def test_an_unpacked_mirror_of_the_hub_has_its_clips_elsewhere(tmp_path, mp3):
    for name, data in files_of(mp3).items():
        kind = "transcript/es" if name.endswith(".tsv") else "audio/es/train/es_train_0"
        path = tmp_path / kind / name.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    clips = list(read_clips(tmp_path, "train"))
    assert [len(audio) for *_, audio in clips] == [len(mp3)] * 3 + [0]
