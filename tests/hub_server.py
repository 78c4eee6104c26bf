"""A server on loopback that speaks the Hugging Face hub's protocol for one file, and can misbehave on request."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What is served, and what was asked for.

    Attributes:
        repository: the only one there is.
        content: its `model.safetensors`.
        published: the SHA-256 it gives for that.
        cut: how many downloads break off in the middle.
        spoil: how many downloads arrive with a flipped bit.
        requests: (method, path, Range header) of every request.
    """

    repository: str
    content: bytes
    published: str = ""
    cut: int = 0
    spoil: int = 0
    address: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.published = self.published or hashlib.sha256(self.content).hexdigest()

    def downloads(self) -> list[str | None]:
        """Range headers of all downloads."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.startswith("/cdn/")]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serves `hub` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            if self.path == f"/{hub.repository}/resolve/main/model.safetensors":
                self.send_response(302)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Linked-Etag", f'"{hub.published}"')
                self.send_header("X-Linked-Size", str(len(hub.content)))
                # The files themselves lie on another host, as in reality.
                self.send_header("Location", f"http://localhost:{port}/cdn/{hub.published}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path == f"/cdn/{hub.published}":
                self._send_file(with_body=with_body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def _send_file(self, *, with_body: bool) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            body = bytearray(hub.content[start:])
            self.send_response(206 if asked else 200)
            self.send_header("ETag", f'"{hub.published}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(body)))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
            self.end_headers()
            if not with_body:
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

        def log_message(self, *args: object) -> None:
            pass

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


def use(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which huggingface_hub reads once, when it is imported."""
    constants = import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
