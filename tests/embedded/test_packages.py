"""Debian packages: from apt, a folder or an address, verified, and unpacked without dpkg."""

import gzip
import os
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from utils.embedded import carried, packages
from utils.embedded.cache import FetchError
from utils.embedded.deb import unpack
from utils.embedded.fetch import speech

FILES = {
    "./usr/share/toy/a.ogg": b"sound",
    "./usr/share/toy/a.txt.gz": gzip.compress(b"text"),
    "./usr/share/doc/toy/copyright": b"GPL",
    "./usr/share/toy/picture.png": b"not used",
}
USED = r"usr/share/toy/.*\.(ogg|txt\.gz)"


@pytest.fixture
def toy(tmp_path, monkeypatch, make_deb):
    """A folder with the package toy_1.0_all.deb, which is known by its digest."""
    folder = tmp_path / "debs"
    folder.mkdir()
    unpack(make_deb(folder / "toy_1.0_all.deb", FILES), USED, tmp_path / "once")
    package = carried.Package(USED, packages.digest(tmp_path / "once", USED), 1)
    monkeypatch.setattr(packages, "PACKAGES", {"toy": package})
    monkeypatch.setenv("WHISPER_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def served(toy):
    """The address at which a web server lists that folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=toy)
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# --- Where a package comes from --------------------------------------------------------------


def test_a_folder_is_enough_and_only_used_files_are_kept(toy, monkeypatch):
    monkeypatch.setenv("PATH", "")  # neither apt-get nor dpkg
    monkeypatch.setenv("WHISPER_SPEECH", str(toy))
    folder = packages.unpacked("toy")
    kept = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert kept == {
        "manifest.json",
        "usr/share/toy/a.ogg",
        "usr/share/toy/a.txt.gz",
        "usr/share/doc/toy/copyright",
    }


def test_an_address_is_enough(served, monkeypatch):
    monkeypatch.setenv("WHISPER_SPEECH", served)
    assert (packages.unpacked("toy") / "usr/share/toy/a.ogg").read_bytes() == b"sound"


def test_a_package_built_again_with_the_same_files_passes(toy, make_deb, monkeypatch):
    again = {**FILES, "./usr/share/toy/a.txt.gz": gzip.compress(b"text", 1, mtime=7)}
    make_deb(toy / "toy_1.0build2_all.deb", again, "gz")
    monkeypatch.setenv("WHISPER_SPEECH", str(toy))
    assert packages.unpacked("toy").is_dir()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://example.org/debs", r"has to begin with https://"),
        ("ftp://127.0.0.1/debs", r"has to begin with https://"),
        ("https://me:secret@example.org/debs", r"^(?!.*secret).*names a user.*into a folder"),
        ("https://example.org:x/debs", r"toy cannot be fetched from .*nonnumeric port"),
        ("http://127.0.0.1:9/debs", r"toy cannot be fetched from .*refused.*browser"),
        ("{served}/missing", r"toy cannot be fetched from .*404"),
        ("{empty}", r"no toy_….deb in .*apt-get download toy"),
        ("{empty}/missing", r"no toy_….deb in .*apt-get download toy"),
    ],
)
def test_an_address_or_folder_that_will_not_do_is_named(
    served, tmp_path, monkeypatch, address, says
):
    (tmp_path / "empty").mkdir()
    given = address.format(served=served, empty=tmp_path / "empty")
    monkeypatch.setenv("WHISPER_SPEECH", given)
    with pytest.raises(FetchError, match=says):
        packages.unpacked("toy")


@pytest.mark.parametrize("files", [{"./usr/share/toy/a.ogg": b"other sound"}, {}])
def test_other_recordings_are_refused(toy, empty_cache, make_deb, monkeypatch, files):
    make_deb(toy / "toy_2.0_all.deb", files)
    monkeypatch.setenv("WHISPER_SPEECH", str(toy))
    with pytest.raises(FetchError, match=r"toy_2\.0_all\.deb holds other recordings.*12 or 13"):
        packages.unpacked("toy")


def test_a_machine_without_apt_is_told_the_ways_out(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    says = r"apt-get is not on this machine.*apt-get download .*fillets-ng-data-cs.*WHISPER_SPEECH"
    with pytest.raises(FetchError, match=says):
        speech("cs", "big")


def test_a_package_that_cannot_be_fetched_is_named(empty_cache, tmp_path, monkeypatch, script):
    script(tmp_path / "bin" / "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    says = r"asterisk-core-sounds-it cannot.*Unable to locate package.*sources.*WHISPER_SPEECH"
    with pytest.raises(FetchError, match=says):
        speech("it", "carlo")


# --- What is in it ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil.ogg", "/evil.ogg", "usr/share/toy/../../../evil.ogg"])
def test_a_path_that_leads_out_is_refused(tmp_path, make_deb, name):
    deb = make_deb(tmp_path / "evil.deb", {name: b"x"})
    with pytest.raises(FetchError, match=r"evil\.deb is refused.*outside"):
        unpack(deb, ".*", tmp_path / "inside")
    assert not list(tmp_path.rglob("*.ogg"))


def test_a_link_is_left_out(tmp_path, make_deb, monkeypatch):
    add = tarfile.TarFile.addfile

    def as_link(tar, member, data):
        member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
        add(tar, member)

    monkeypatch.setattr(tarfile.TarFile, "addfile", as_link)
    unpack(make_deb(tmp_path / "link.deb", FILES), ".*", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no Debian package"),
        (b"<html>", "no Debian package"),
        (b"!<arch>\n", "ends before"),
        (None, "damaged"),  # half of a real one
    ],
)
def test_a_damaged_package_is_refused(tmp_path, make_deb, data, says):
    deb = make_deb(tmp_path / "half.deb", {"./a": os.urandom(50_000)})
    deb.write_bytes(deb.read_bytes()[:30_000] if data is None else data)
    with pytest.raises(FetchError, match=f"half.deb is damaged.*{says}|half.deb is {says}"):
        unpack(deb, ".*", tmp_path / "out")


def test_zstd_is_left_to_dpkg_or_refused(tmp_path, make_deb, monkeypatch, script):
    if "zst" in tarfile.TarFile.OPEN_METH:
        pytest.skip("this Python unpacks zstd itself")
    deb = make_deb(tmp_path / "ubuntu.deb", FILES)
    deb.write_bytes(deb.read_bytes().replace(b"data.tar.xz ", b"data.tar.zst"))
    plain = make_deb(tmp_path / "plain.deb", FILES, "").read_bytes()
    (tmp_path / "tar").write_bytes(plain[plain.index(b"data.tar") + 60 :])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(FetchError, match=r"ubuntu\.deb is packed with zstd.*Debian machine"):
        unpack(deb, ".*", tmp_path / "out")
    script(tmp_path / "bin" / "dpkg-deb", f'/bin/cat "{tmp_path / "tar"}"')
    unpack(deb, USED, tmp_path / "out")
    assert (tmp_path / "out/usr/share/toy/a.ogg").read_bytes() == b"sound"


def test_what_unpacks_to_too_much_is_refused(tmp_path, make_deb, monkeypatch):
    monkeypatch.setattr("utils.embedded.deb.MAX_BYTES", 100)
    with pytest.raises(FetchError, match="unpacks to more than"):
        unpack(make_deb(tmp_path / "large.deb", {"./a": bytes(101)}), ".*", tmp_path / "out")
