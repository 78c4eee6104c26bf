"""A server on loopback that speaks the Hugging Face hub's protocol, for downloads and uploads, and can misbehave on
request.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".keras", ".onnx")
"""Files that lie elsewhere, under their SHA-256, and are uploaded there by themselves."""


@dataclass
class Commit:
    """A state of a repository, and what was said of it."""

    oid: str
    files: dict[str, bytes]
    message: str = ""


@dataclass
class Hub:
    """What is served, and what was asked for.

    Attributes:
        repository: one that is there from the beginning, if it has a name.
        content: its `model.safetensors`.
        published: the SHA-256 it gives for that.
        cut: how many downloads break off in the middle.
        spoil: how many downloads arrive with a flipped bit.
        token: what whoever writes has to show.
        refuse: status and words of the answers to requests whose path has a piece of text in it.
        repositories: the commits of each, oldest first.
        private: those that only who shows the token may read.
        requests: (method, path, Range header) of every request.
    """

    repository: str = ""
    content: bytes = b""
    published: str = ""
    cut: int = 0
    spoil: int = 0
    token: str = ""
    address: str = ""
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    repositories: dict[str, list[Commit]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.published = self.published or hashlib.sha256(self.content).hexdigest()
        if self.repository:
            self.add(self.repository, {"model.safetensors": self.content})

    def add(self, repository: str, files: Mapping[str, bytes], message: str = "") -> Commit:
        """One more commit, in which these are all the files."""
        commits = self.repositories.setdefault(repository, [])
        number = sum(map(len, self.repositories.values()))
        commits.append(Commit(COMMIT[number:] + COMMIT[:number], dict(files), message))
        return commits[-1]

    def files(self, repository: str) -> Mapping[str, bytes]:
        """The latest ones."""
        return self.repositories[repository][-1].files

    def downloads(self) -> list[str | None]:
        """Range headers of all downloads."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.startswith("/cdn/")]

    def name_of(self, content: bytes) -> str:
        """What a large file is found under."""
        return self.published if content is self.content else hashlib.sha256(content).hexdigest()

    def stored(self, name: str) -> bytes | None:
        """The large file that is found under a name."""
        every = (body for commits in self.repositories.values() for one in commits for body in one.files.values())
        return next((body for body in every if self.name_of(body) == name), None)


def use(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which huggingface_hub reads once, when it is imported."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own, a connection, and no progress bars in the output."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    return folder


TOKEN = "hf_aSecretThatNobodyMaySee"


@contextmanager
def logged_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories, where whoever runs the block may write under the name "user"."""
    library, constants = pytest.importorskip("huggingface_hub"), pytest.importorskip("huggingface_hub.constants")
    use_cache(folder / "hub", monkeypatch)
    # The hub's own storage needs a server of its own; without it large files go the way of Git LFS.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "none"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running(Hub(token=TOKEN)) as hub:
        use(hub, monkeypatch)
        yield hub
        library.close_session()


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serves `hub` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            self.body = self._received()
            path = self.path.partition("?")[0]
            for piece, (status, words) in hub.refuse.items():
                if piece in path:
                    self._refuse(status, words)
                    return
            for method, pattern, handle in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    handle(self, *match.groups())
                    return
            self._refuse(404, "There is no such address.", "EntryNotFound")

        def _received(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        @property
        def _known(self) -> bool:
            return bool(hub.token) and self.headers.get("Authorization") == f"Bearer {hub.token}"

        def _refuse(self, status: int, words: str, code: str = "") -> None:
            headers = {"X-Error-Message": words, **({"X-Error-Code": code} if code else {})}
            self._send(status, json.dumps({"error": words}).encode(), headers)

        def _json(self, values: Any) -> None:
            self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def resolve(self, repository: str, revision: str, name: str) -> None:
            commits = hub.repositories.get(repository)
            if commits is None or (repository in hub.private and not self._known):
                self._refuse(404, "Repository not found", "RepoNotFound")
                return
            commit = next((one for one in commits if one.oid == revision), commits[-1] if revision == "main" else None)
            if commit is None:
                self._refuse(404, "Invalid rev id", "RevisionNotFound")
                return
            content = commit.files.get(name)
            if content is None:
                self._refuse(404, "Entry not found", "EntryNotFound")
                return
            headers = {"X-Repo-Commit": commit.oid}
            if not name.endswith(LARGE):
                self._send(200, content, {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})
                return
            stored = hub.name_of(content)
            headers |= {"X-Linked-Etag": f'"{stored}"', "X-Linked-Size": str(len(content))}
            # The files themselves lie on another host, as in reality.
            self._send(302, b"", {**headers, "Location": f"http://localhost:{port}/cdn/{stored}"})

        def download(self, name: str) -> None:
            content = hub.stored(name)
            if content is None:
                self._refuse(404, "Entry not found", "EntryNotFound")
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            body = bytearray(content[start:])
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{name}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if self.command == "HEAD":
                return
            if hub.spoil:
                hub.spoil -= 1
                body[-1] ^= 1
            if hub.cut:
                hub.cut -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return
            self.wfile.write(body)

        def whoami(self) -> None:
            if self._known:
                self._json({"type": "user", "name": "user", "orgs": []})
            else:
                self._refuse(401, "Invalid credentials in Authorization header")

        def create(self) -> None:
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}"
            if not self._known or asked["organization"] != "user":
                self._refuse(403, f"You don't have the rights to create a model under {asked['organization']}")
                return
            if name in hub.repositories:
                self._send(409, json.dumps({"error": "exists", "url": f"{hub.address}/{name}"}).encode())
                return
            hub.add(name, {".gitattributes": b"*.safetensors filter=lfs"}, "initial commit")
            if asked.get("visibility") == "private" or asked.get("private"):
                hub.private.add(name)
            self._json({"url": f"{hub.address}/{name}", "name": name})

        def about(self, repository: str) -> None:
            if repository not in hub.repositories or (repository in hub.private and not self._known):
                self._refuse(404, "Repository not found", "RepoNotFound")
                return
            commit = hub.repositories[repository][-1]
            siblings = [{"rfilename": name} for name in commit.files]
            self._json(
                {"id": repository, "private": repository in hub.private, "sha": commit.oid, "siblings": siblings}
            )

        def tree(self, repository: str) -> None:
            files = hub.files(repository)
            self._json([{"type": "file", "path": name, "size": len(files[name]), "oid": "0" * 40} for name in files])

        def check_card(self) -> None:
            content = json.loads(self.body)["content"]
            self._json({"errors": [], "warnings": [] if content.startswith("---\n") else [{"message": "empty"}]})

        def preupload(self, repository: str) -> None:
            asked = json.loads(self.body)["files"]
            modes = {one["path"]: "lfs" if one["path"].endswith(LARGE) else "regular" for one in asked}
            self._json(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
            )

        def batch(self, repository: str) -> None:
            objects = json.loads(self.body)["objects"]
            for one in objects:
                if hub.stored(one["oid"]) is None:
                    one["actions"] = {"upload": {"href": f"http://localhost:{port}/store/{one['oid']}"}}
            self._json({"transfer": "basic", "objects": objects})

        def store(self, name: str) -> None:
            if hashlib.sha256(self.body).hexdigest() != name:
                self._refuse(400, "These are other bytes.")
                return
            hub.uploaded[name] = self.body
            self._send(200)

        def commit(self, repository: str) -> None:
            if not self._known:
                self._refuse(403, "You don't have the rights to write")
                return
            header, *operations = (json.loads(line) for line in self.body.splitlines())
            files = dict(hub.files(repository))
            for operation in operations:
                value = operation["value"]
                if operation["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile":
                    stored = hub.stored(value["oid"])
                    files[value["path"]] = hub.uploaded[value["oid"]] if stored is None else stored
                else:
                    del files[value["path"]]
            made = hub.add(repository, files, header["value"]["summary"])
            self._json({"commitUrl": f"{hub.address}/{repository}/commit/{made.oid}", "commitOid": made.oid})

        def log_message(self, *args: object) -> None:
            pass

    repository = r"([^/]+/[^/]+)"
    ROUTES = [  # noqa: N806
        ("HEAD GET", rf"/{repository}/resolve/([^/]+)/(.+)", Handler.resolve),
        ("HEAD GET", r"/cdn/(.+)", Handler.download),
        ("GET", r"/api/whoami-v2", Handler.whoami),
        ("POST", r"/api/repos/create", Handler.create),
        ("GET", rf"/api/models/{repository}", Handler.about),
        ("GET", rf"/api/models/{repository}/tree/main", Handler.tree),
        ("POST", r"/api/validate-yaml", Handler.check_card),
        ("POST", rf"/api/models/{repository}/preupload/main", Handler.preupload),
        ("POST", rf"/{repository}\.git/info/lfs/objects/batch", Handler.batch),
        ("PUT", r"/store/(.+)", Handler.store),
        ("POST", rf"/api/models/{repository}/commit/main", Handler.commit),
    ]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    hub.address = f"http://127.0.0.1:{port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
