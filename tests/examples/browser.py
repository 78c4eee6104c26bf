"""A headless Chromium that tests drive, through the pipes it speaks its DevTools protocol on: no package is needed."""

import json
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OPTIONS = (
    "--headless",
    "--no-sandbox",  # a container's root may not make one
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's is small
    # Nothing but the page under test is fetched.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-proxy-server",
)

# Chromium reads commands from file 3 and writes answers to file 4.
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One page. Leaving the `with` block ends the browser.

    Args:
        profile: a new folder for what it writes.
        seconds: how long any answer may take.
        options: of Chromium's, beside those that it always gets.
    """

    def __init__(self, profile: Path, seconds: float = 60, options: Sequence[str] = ()) -> None:
        assert CHROMIUM is not None
        self.seconds = seconds
        self.last = 0
        self.rest = b""
        theirs_in, self.commands = os.pipe()
        self.answers, theirs_out = os.pipe()
        # Numbers above 4, so that neither is overwritten while the other is put in its place.
        descriptors = [self._high(theirs_in), self._high(theirs_out)]
        options = (*OPTIONS, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank")
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, descriptors), CHROMIUM, *options],
            pass_fds=descriptors,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (*descriptors, theirs_in, theirs_out):
            os.close(descriptor)
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.commands)  # It ends when nobody can command it any more.
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.answers)

    def open(self, address: str) -> None:
        """Goes to a page and waits until it and its scripts are there."""
        self._in_page("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or what a promise ends in; an error there is one here."""
        answer = self._in_page("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + self.seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, (
                f"{condition} did not come true. The page: {self.evaluate('document.body.innerText')}"
            )
            time.sleep(0.05)

    def choose_files(self, selector: str, files: Sequence[Path]) -> None:
        """What a person does with a file input."""
        root = self._in_page("DOM.getDocument")["root"]["nodeId"]
        node = self._in_page("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._in_page("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def set_size(self, width: int, height: int, scale: float = 1) -> None:
        self._in_page(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )

    def set_scheme(self, scheme: str) -> None:
        """What the reader prefers: "light" or "dark"."""
        self._in_page("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self) -> str:
        """A PNG, in base 64."""
        return str(self._in_page("Page.captureScreenshot", format="png")["data"])

    def _in_page(self, method: str, **parameters: Any) -> Any:
        return self._send(method, session=self.session, **parameters)

    def _send(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive(method)).get("id") != self.last:
            pass  # An event that nobody here waits for.
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self, method: str) -> Any:
        with selectors.DefaultSelector() as selector:
            selector.register(self.answers, selectors.EVENT_READ)
            while b"\0" not in self.rest:
                assert selector.select(self.seconds), f"No answer to {method} within {self.seconds} seconds."
                part = os.read(self.answers, 2**16)
                assert part, f"Chromium ended at {method}."
                self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    @staticmethod
    def _high(descriptor: int) -> int:
        import fcntl

        return fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
