"""A Hub on localhost: the endpoints that unmodified Hugging Face libraries ask, over a folder.

As a process, `python tests/hub_server.py FOLDER` prints its address and serves until it is ended.
As a module, `Hub` starts that process and steers it: publish repositories, set faults, read what
was asked for. A client reads HF_ENDPOINT when it is imported, so it runs in a process of its own:
`Hub.environment` is what that process needs.

Standard library alone, so that nothing here can share a fault with what is tested.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

# Token → (user, may write). Short on purpose: what looks like a secret must not be in a repository.
TOKENS = {"hf_writer": ("tester", True), "hf_reader": ("guest", False)}
LFS_SUFFIXES = {".parquet", ".safetensors", ".arrow", ".bin", ".wav", ".flac", ".mp3", ".zip"}
LFS_BYTES = 10_000_000  # larger than this goes to LFS whatever it is called
HANG_SECONDS = 600  # longer than the patience of any client


class Refused(Exception):
    """A request that is answered with an error, in the Hub's words."""

    def __init__(self, status, message, code=None, headers=None):
        self.status, self.message, self.code = status, message, code
        self.headers = headers or {}


def is_lfs(path, size):
    return size > LFS_BYTES or Path(path).suffix in LFS_SUFFIXES


@lru_cache(maxsize=10_000)  # a commit never changes: neither does the digest of a file in it
def oids(path):
    """Return git's SHA-1 and the SHA-256 of a file's content."""
    git, lfs = hashlib.sha1(f"blob {path.stat().st_size}\0".encode()), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            git.update(block)
            lfs.update(block)
    return git.hexdigest(), lfs.hexdigest()


class Repository:
    """`FOLDER/datasets/owner/name/`: `commits/SHA/` is a whole tree, `repository.json` the rest."""

    def __init__(self, root, kind, name):
        self.kind, self.name, self.folder = kind, name, Path(root) / kind / name

    @property
    def exists(self):
        return (self.folder / "repository.json").exists()

    @property
    def state(self):
        return json.loads((self.folder / "repository.json").read_text("utf-8"))

    def save(self, **changes):
        state = (self.state if self.exists else {"private": False, "gated": False}) | changes
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / "repository.json.partial"
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(self.folder / "repository.json")

    def create(self, **settings):
        self.save(refs={}, history=[], **settings)
        self.commit({".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})

    def resolve(self, revision):
        """Return the commit that a branch or a commit names."""
        state = self.state
        if revision in state["refs"]:
            return state["refs"][revision]
        if revision in state["history"]:
            return revision
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def tree(self, commit):
        return self.folder / "commits" / commit

    def commit(self, changes, branch="main", message="commit", commit=None):
        """Write a new commit: path → bytes, a file to link, or None to delete (also a folder)."""
        state = self.state
        parent = state["refs"].get(branch) or state["refs"].get("main")
        stamp = f"{parent} {message} {time.time_ns()} {sorted(changes)}"
        commit = commit or hashlib.sha1(stamp.encode()).hexdigest()
        tree = self.tree(commit)
        if parent:
            shutil.copytree(self.tree(parent), tree, copy_function=os.link)
        for path, content in changes.items():
            target = tree / path
            if content is None and target.is_dir():
                shutil.rmtree(target)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link: writing into it would change older commits
            if isinstance(content, Path):
                os.link(content, target)
            elif content is not None:
                target.write_bytes(content)
        self.save(refs=state["refs"] | {branch: commit}, history=[*state["history"], commit])
        return commit

    def files(self, commit, folder=""):
        """Return the paths below a folder of a commit, as the Hub lists them."""
        tree = self.tree(commit)
        return sorted(path.relative_to(tree).as_posix() for path in (tree / folder).rglob("*"))

    def entry(self, commit, path):
        """Return what a listing says about one path, or None where nothing is."""
        target = self.tree(commit) / path
        if target.is_dir():
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        if not target.is_file():
            return None
        size, (git, lfs) = target.stat().st_size, oids(target.resolve())
        entry = {"type": "file", "path": path, "oid": git, "size": size}
        if is_lfs(path, size):
            entry["lfs"] = {"oid": lfs, "size": size, "pointerSize": 134}
        return entry


class Handler(BaseHTTPRequestHandler):
    """One connection. `routes` at the end of the class says which method answers what."""

    protocol_version = "HTTP/1.1"  # clients keep their connections
    # Else headers and body leave as two packets, and the second waits 40 ms for an answer.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *arguments):
        """Say nothing: requests.jsonl has it."""

    # What every request goes through.

    def answer(self):
        if self.path == "/steer":
            self.server.fault = json.loads(self.read_body())
            self.send_response(204)
            return self.end_headers()
        self.fault = self.server.fault_of(f"{self.command} {unquote(self.path)}")
        try:
            self.body = self.read_body()
            if self.fault in REFUSALS:
                raise Refused(**REFUSALS[self.fault])
            path = urlsplit(self.path).path
            for method, pattern, function in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    return function(
                        self, **{k: unquote(v or "") for k, v in match.groupdict().items()}
                    )
            raise Refused(404, f"Sorry, we can't find {path}")
        except Refused as refusal:
            headers = {"X-Error-Message": refusal.message} | refusal.headers
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.send_json({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @property
    def fields(self):
        """The request's JSON or form, whichever it is."""
        if "json" in self.headers.get("Content-Type", ""):
            return json.loads(self.body or b"{}")
        return parse_qs(self.body.decode())

    @property
    def query(self):
        return {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}

    def send_json(self, value, status=200, headers=None):
        body = json.dumps(value).encode()
        self.send(status, {"Content-Type": "application/json"} | (headers or {}), [body], len(body))

    def send(self, status, headers, blocks, length):
        """Send an answer, or spoil it as a fault demands; what it is stands in the log before."""
        self.server.log(
            method=self.command,
            path=unquote(self.path),
            range=self.headers.get("Range"),
            status=status,
            bytes=0 if self.command == "HEAD" else length,
            fault=self.fault,
        )
        if self.fault == "hang":
            time.sleep(HANG_SECONDS)
        if self.fault in ("hang", "drop"):
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        left = length // 2 if self.fault == "truncate" else length
        for block in blocks:
            self.wfile.write(block[:left])
            left -= len(block[:left])
        if self.fault == "truncate":
            self.close_connection = True

    # Who asks, and for what.

    def user(self):
        """Return the name of who asks and whether they may write; ("", False) for nobody."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise Refused(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token, ("", False))

    def repository(self, kind, name, content=False, write=False):
        """Return a repository if it exists and who asks may see it (read its files, write)."""
        kind = kind or "models"
        repository = Repository(self.server.root, kind, name)
        user, may_write = self.user()
        is_owner = user == name.split("/")[0]
        if not repository.exists or (repository.state["private"] and not is_owner):
            # The Hub does not tell strangers whether a repository is there.
            status = 404 if user else 401
            raise Refused(status, "Repository not found", "RepoNotFound")
        if content and repository.state["gated"] and not is_owner:
            page = self.page(kind, name)
            raise Refused(
                403 if user else 401,
                f"Access to {name} is restricted. Visit {page} to ask for access.",
                "GatedRepo",
            )
        if write and not (is_owner and may_write):
            raise Refused(403, f"You have no write access to {name}")
        return repository

    def page(self, kind, name):
        prefix = "" if kind == "models" else f"{kind}/"
        return f"{self.server.address}/{prefix}{name}"

    # Reading.

    def whoami(self):
        user, may_write = self.user()
        if not user:
            raise Refused(401, "Invalid username or password.")
        token = {"displayName": "local", "role": "write" if may_write else "read"}
        auth = {"type": "access_token", "accessToken": token}
        self.send_json({"type": "user", "name": user, "fullname": user, "orgs": [], "auth": auth})

    def info(self, kind, name, revision="main"):
        repository = self.repository(kind, name)
        commit, state = repository.resolve(revision), repository.state
        paths = [
            path for path in repository.files(commit) if (repository.tree(commit) / path).is_file()
        ]
        self.send_json(
            {
                "id": name,
                "modelId": name,
                "author": name.split("/")[0],
                "sha": commit,
                "private": state["private"],
                "gated": "auto" if state["gated"] else False,
                "disabled": False,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "sdk": state.get("sdk"),
                "siblings": [{"rfilename": path} for path in paths],
            }
        )

    def listing(self, kind, name, revision, folder=""):
        repository = self.repository(kind, name)
        commit, folder = repository.resolve(revision), folder.strip("/")
        if not (repository.tree(commit) / folder).is_dir():
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        paths = repository.files(commit, folder)
        if self.query.get("recursive", "").lower() not in ("1", "true"):
            depth = len(Path(folder).parts) + 1
            paths = [path for path in paths if len(Path(path).parts) == depth]
        self.send_json([repository.entry(commit, path) for path in paths])

    def paths_info(self, kind, name, revision):
        repository = self.repository(kind, name)
        commit, paths = repository.resolve(revision), self.fields["paths"]
        entries = [repository.entry(commit, path) for path in paths]
        self.send_json([entry for entry in entries if entry])

    def file(self, kind, name, revision, path):
        repository = self.repository(kind, name, content=True)
        commit = repository.resolve(revision)
        target = repository.tree(commit) / path
        entry = repository.entry(commit, path)
        if entry is None or entry["type"] != "file":
            # The client notes the commit that lacks the file, and takes it for the newest one.
            told = {"X-Repo-Commit": commit}
            raise Refused(404, f"{path} does not exist", "EntryNotFound", told)
        size, lfs = entry["size"], entry.get("lfs")
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{lfs["oid"] if lfs else entry["oid"]}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if lfs:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(size)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.send(200, headers, self.blocks(target, 0, size), size)
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last) + 1, size) if first and last else size
        if start >= size:
            raise Refused(416, "Not satisfiable", headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self.send(206, headers, self.blocks(target, start, end), end - start)

    def blocks(self, path, start, end):
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                block = file.read(min(1 << 20, end - start))
                start += len(block)
                yield block

    # Writing.

    def create(self):
        user, may_write = self.user()
        asked = self.fields
        kind = {"dataset": "datasets", "space": "spaces"}.get(asked.get("type"), "models")
        name = f"{asked.get('organization') or user}/{asked['name']}"
        if not may_write or name.split("/")[0] != user:
            raise Refused(403, f"You don't have the rights to create {name}")
        told = {"url": self.page(kind, name), "name": name, "id": name}
        repository = Repository(self.server.root, kind, name)
        if repository.exists:
            return self.send_json(told | {"error": "You already created this repo"}, 409)
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repository.create(private=is_private, gated=False, sdk=asked.get("sdk"))
        self.send_json(told)

    def validate(self):
        # The front matter itself is not judged here: an empty file is the only error known.
        self.send_json({"errors": [], "warnings": []})

    def preupload(self, kind, name, revision):
        repository = self.repository(kind, name, write=True)
        commit, answers = repository.resolve(revision), []
        for file in self.fields["files"]:
            there = repository.entry(commit, file["path"]) or {}
            lfs = is_lfs(file["path"], file["size"])
            oid = there.get("lfs", {}).get("oid") if lfs else there.get("oid")
            mode = "lfs" if lfs else "regular"
            answers.append(
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}
            )
        self.send_json({"files": answers})

    def batch(self, kind, name):
        self.repository(kind, name, write=True)
        objects = []
        for asked in self.fields["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if not self.server.object_path(asked["oid"]).exists():
                link = {"href": f"{self.server.address}/lfs/{asked['oid']}", "header": {}}
                verify = {"href": f"{self.server.address}/lfs/{asked['oid']}/verify", "header": {}}
                answer["actions"] = {"upload": link, "verify": verify}
            objects.append(answer)
        self.send_json({"transfer": "basic", "objects": objects})

    def store(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "The content is not what its digest says")
        target = self.server.object_path(oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.body)
        self.send_json({}, headers={"ETag": f'"{oid}"'})

    def verify(self, oid):
        path, size = self.server.object_path(oid), self.fields["size"]
        if not path.exists() or path.stat().st_size != size:
            raise Refused(404, "Object not stored")
        self.send_json({})

    def commit(self, kind, name, branch):
        repository = self.repository(kind, name, write=True)
        changes, header = {}, {}
        for line in self.body.splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "header":
                header = value
                continue
            path = value["path"].strip("/")
            if ".." in Path(path).parts:
                raise Refused(400, f"Invalid path {path}")
            if record["key"] == "file":
                changes[path] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                changes[path] = self.server.object_path(value["oid"])
            else:  # deletedFile, deletedFolder
                changes[path] = None
        with self.server.lock:
            head = repository.resolve(branch)
            if header.get("parentCommit", head) != head:
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            commit = repository.commit(changes, branch, header.get("summary", ""))
        url = f"{self.page(kind, name)}/commit/{commit}"
        self.send_json({"success": True, "commitOid": commit, "commitUrl": url})


KIND, NAME = r"(?P<kind>models|datasets|spaces)", r"(?P<name>[^/]+(?:/[^/]+)?)"
REVISION = r"(?P<revision>[^/]+)"  # a slash inside comes as %2F
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?" + NAME
ROUTES = [
    (("GET",), r"/api/whoami-v2", Handler.whoami),
    (("GET",), rf"/api/{KIND}/{NAME}/revision/{REVISION}", Handler.info),
    (("GET",), rf"/api/{KIND}/{NAME}/tree/{REVISION}(?P<folder>/.*)?", Handler.listing),
    (("POST",), rf"/api/{KIND}/{NAME}/paths-info/{REVISION}", Handler.paths_info),
    (("GET", "HEAD"), rf"{PAGE}/resolve/{REVISION}/(?P<path>.+)", Handler.file),
    (("GET",), rf"/api/{KIND}/{NAME}", Handler.info),
    (("POST",), r"/api/repos/create", Handler.create),
    (("POST",), r"/api/validate-yaml", Handler.validate),
    (("POST",), rf"/api/{KIND}/{NAME}/preupload/{REVISION}", Handler.preupload),
    (("POST",), rf"/api/{KIND}/{NAME}/commit/(?P<branch>[^/]+)", Handler.commit),
    (("POST",), rf"{PAGE}\.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.store),
    (("POST",), r"/lfs/(?P<oid>[0-9a-f]{64})/verify", Handler.verify),
]
REFUSALS = {
    "401": dict(status=401, message="Invalid credentials in Authorization header"),
    "403": dict(status=403, message="Access is restricted.", code="GatedRepo"),
    "404": dict(status=404, message="Repository not found", code="RepoNotFound"),
    "412": dict(status=412, message="A commit has happened since. Please refresh and try again."),
    "429": dict(status=429, message="Too many requests", headers={"Retry-After": "1"}),
    "503": dict(status=503, message="Service unavailable"),
}


class Server(ThreadingHTTPServer):
    """The state that connections share: the folder, the faults and the log."""

    daemon_threads = True

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.fault, self.lock = Path(root), {"count": 0}, threading.RLock()
        self.address = f"http://127.0.0.1:{self.server_port}"
        (self.root / "requests.jsonl").touch()

    def handle_error(self, request, client_address):
        """Say nothing of clients that hang up; everything else is an error of this file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def object_path(self, oid):
        return self.root / "objects" / oid

    def log(self, **entry):
        with self.lock, (self.root / "requests.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **entry}) + "\n")

    def fault_of(self, request):
        """Return the fault that a request meets, and count it."""
        with self.lock:
            if not self.fault["count"] or not re.search(self.fault["pattern"], request):
                return None
            if self.fault["skip"]:
                self.fault["skip"] -= 1
                return None
            self.fault["count"] -= 1
            return self.fault["kind"]


def steer(address, kind, pattern, count=1, skip=0):
    """Let `count` requests meet a fault, after `skip` that do not; it replaces the last one.

    `kind` is drop, truncate, hang, 401, 403 (gated), 404, 412, 429 or 503; `pattern` is a regular
    expression that is searched in `GET /path?query`.
    """
    fault = dict(kind=kind, pattern=pattern, count=count, skip=skip)
    data = json.dumps(fault).encode()
    urllib.request.urlopen(f"{address}/steer", data=data, timeout=10).close()


class Hub:
    """Starts the server as a process, fills it and steers it."""

    def __init__(self, root):
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(root)], stdout=subprocess.PIPE, text=True
        )
        self.address = self.process.stdout.readline().strip()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def publish(self, kind, name, files, branch="main", private=False, gated=False, commit=None):
        """Commit files (path → bytes) to a repository, which is made if need be.

        Returns the commit, whose id may be given. `kind` is models, datasets or spaces; `name` is
        `owner/name`.
        """
        repository = Repository(self.root, kind, name)
        if not repository.exists:
            repository.create()
        repository.save(private=private, gated=gated)
        return repository.commit(files, branch, commit=commit)

    def read(self, kind, name, path, revision="main"):
        """Return a published file's bytes."""
        repository = Repository(self.root, kind, name)
        return (repository.tree(repository.resolve(revision)) / path).read_bytes()

    def fault(self, kind, pattern, count=1, skip=0):
        """See `steer`."""
        steer(self.address, kind, pattern, count, skip)

    def requests(self):
        """Return what was asked so far: time, method, path, range, status, bytes, fault."""
        log = self.root / "requests.jsonl"
        return [json.loads(line) for line in log.read_text("utf-8").splitlines()]

    def environment(self, home, token=None):
        """Return the variables of a process that knows no other Hub; `home` is its cache."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        added = {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",  # else uploads ask for tokens of another server
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return kept | added | ({"HF_TOKEN": token} if token else {})

    def run(self, script, token=None, cwd=None):
        """Run a script in a process that knows this Hub alone; return what it printed.

        Its cache is empty at first and then kept, so that a second run finds what the first left.
        """
        # A parquet stream that is left in the middle has threads, which now and then abort Python
        # while it takes itself down: it ends at once instead, after all is said.
        script = f"{textwrap.dedent(script)}\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=self.environment(self.root / "client", token),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            raise AssertionError(f"the script ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout


if __name__ == "__main__":
    server = Server(sys.argv[1])
    print(server.address, flush=True)
    server.serve_forever()
