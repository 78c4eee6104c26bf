"""The page of the server, in a browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from colours import CLASSES, painted, write_colours
from server_process import server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""A picture that moves, and nobody asked for permission."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("models")
    other = write_colours(folder / "other.onnx", classes=("ROT", "GRÜN", "BLAU"))
    with server(write_colours(folder / "colours.onnx"), other) as (_, port):
        yield port


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile"), options=CAMERA) as browser:
        yield browser


def shown(browser: Browser) -> list[list[str]]:
    """Names of the classes that each network's card lists."""
    script = "[...card.querySelectorAll('li')].map((item) => item.firstChild.textContent)"
    cards = browser.evaluate(f"[...document.querySelectorAll('#answers section')].map((card) => {script})")
    assert isinstance(cards, list)
    return cards


def test_a_picture_is_chosen_and_answered(port: int, browser: Browser, tmp_path: Path) -> None:
    browser.open(f"http://127.0.0.1:{port}/")
    browser.wait_for("document.querySelector('#about').textContent")
    for colour, classes in {"lime": (CLASSES[1], "GRÜN"), "blue": (CLASSES[2], "BLAU")}.items():
        (tmp_path / f"{colour}.png").write_bytes(painted(colour))
        browser.choose_files("#file", [tmp_path / f"{colour}.png"])
        browser.wait_for(f"document.querySelector('#answers li')?.textContent.startsWith({json.dumps(classes[0])})")
        assert [card[0] for card in shown(browser)] == list(classes)
        assert [len(card) for card in shown(browser)] == [3, 3]
    bars = browser.evaluate("[...document.querySelectorAll('#answers li')].map((i) => i.style.cssText)")
    shares = [float(re.findall(r"--part: ?([\d.]+)%", bar)[0]) for bar in bars]
    assert sum(shares) == pytest.approx(200)
    assert shares[0] > 40
    assert "40 x 32 pixels" in browser.evaluate("document.querySelector('#time').textContent")


def test_what_is_no_picture(port: int, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "red.png").write_bytes(painted("red"))
    browser.open(f"http://127.0.0.1:{port}/")
    browser.choose_files("#file", [tmp_path / "text.png"])
    browser.wait_for("document.querySelector('#status.error')")
    assert "'text.png' cannot be read as an image" in browser.evaluate("document.querySelector('#status').textContent")
    assert shown(browser) == []
    browser.choose_files("#file", [tmp_path / "red.png"])
    browser.wait_for("document.querySelector('#answers li')")
    assert browser.evaluate("document.querySelector('#status').textContent") == ""


def test_the_camera(port: int, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{port}/")
    browser.evaluate("document.querySelector('#camera').click()")
    browser.wait_for("document.querySelector('#answers li')")
    assert browser.evaluate("document.querySelector('#camera').textContent") == "Stop the camera"
    # Answers go on coming while it is on.
    browser.evaluate("document.querySelector('#answers section').id = 'old'")
    browser.wait_for("document.querySelector('#answers section') && !document.querySelector('#old')")
    browser.evaluate("document.querySelector('#camera').click()")
    assert browser.evaluate("document.querySelector('#camera').textContent") == "Use the camera"


def test_the_api_page_needs_no_network(port: int, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{port}/docs")
    browser.wait_for("document.body.innerText.includes('/predict')")
    addresses = browser.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert addresses
    assert all(address.startswith((f"http://127.0.0.1:{port}/", "data:")) for address in addresses)
