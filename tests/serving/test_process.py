"""The server as a process: signals, slow clients, and mistakes on the command line."""

import http.client
import json
import signal
import socket
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from colours import CLASSES, best, painted, write_colours
from server_process import server


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("models") / "colours.onnx")


def request(content: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of what a form sends."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="p.png"\r\n\r\n'
    body = head + content + b"\r\n--x--\r\n"
    return {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(len(body))}, body


def ask(port: int, content: bytes) -> tuple[int, dict[str, object]]:
    headers, body = request(content)
    with connected(port) as connection:
        connection.request("POST", "/predict", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def connected(port: int) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_has_begun_is_answered_before_the_end(file: Path, number: signal.Signals) -> None:
    with server(file) as (started, port), connected(port) as connection:
        # Half of a request is there when the signal comes.
        headers, body = request(painted("blue"))
        connection.putrequest("POST", "/predict")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body[:50])
        # A second one is answered, so the first one's beginning has been read by then.
        status, answer = ask(port, painted("lime"))
        assert (status, best(answer)) == (200, CLASSES[1])
        started.send_signal(number)
        wait_until_nobody_listens(port)
        assert started.poll() is None
        connection.send(body[50:])
        response = connection.getresponse()
        assert (response.status, best(json.loads(response.read()))) == (200, CLASSES[2])
        assert started.wait(60) == 0
        assert started.stderr is not None
        assert started.stderr.read() == ""


def wait_until_nobody_listens(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            probe.settimeout(10)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.05)
    pytest.fail("it still listens")


def test_a_request_that_does_not_arrive(file: Path) -> None:
    with server(file, "--max-seconds", 0.3) as (_, port), connected(port) as connection:
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"only this")
        response = connection.getresponse()
        assert response.status == 408
        assert "has not arrived within 0.3 seconds" in json.loads(response.read())["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx"], "does not exist"),
        (["{file}", "{file}"], "A file is served once"),
        (["{file}", "--host", "192.0.2.1"], "Nobody can be served at 192.0.2.1"),
        (["{file}", "--host", "no host"], "is not an address of this machine"),
        (["{file}", "--port", "{taken}"], "Choose another --port"),
        (["{file}", "--max-megabytes", "0"], "Invalid value for '--max-megabytes'"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from repvgg.cli import main

    monkeypatch.setenv("COLUMNS", "200")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values = {"file": str(file), "taken": str(taken.getsockname()[1])}
        monkeypatch.setattr(sys, "argv", ["repvgg", "serve", *(part.format(**values) for part in arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
