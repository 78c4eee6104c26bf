"""The web page, in a browser."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image

import repvgg
from repvgg.data import read_batch
from serving import (
    CLASSES,
    FORMS,
    WEB,
    Classes,
    assert_same,
    expected,
    picture,
    served,
)

RUNTIME = WEB / "node_modules" / "onnxruntime-web"
needs_browser = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(
        not RUNTIME.is_dir(), reason="ONNX Runtime Web is not installed: npm install --prefix examples/web"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@contextmanager
def served_page(folder: Path, artifact: Path | None) -> Iterator[str]:
    """The page as it is put on a server, with what prepare.py makes of an artifact; its address."""
    for name in ("index.html", "style.css", "app.js"):
        (folder / name).write_bytes((WEB / name).read_bytes())
    (folder / "node_modules").symlink_to(WEB / "node_modules")
    if artifact is not None:
        subprocess.run([sys.executable, WEB / "prepare.py", artifact, folder], check=True, timeout=300)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            pass

    with served(Handler) as address:
        yield address


def classify_in_page(browser: Browser, path: Path) -> Classes:
    """Chooses a picture, and reads what is shown."""
    browser.wait_for("!document.querySelector('#file').disabled")
    browser.evaluate("document.querySelector('#time').textContent = ''")
    browser.choose_files("#file", [path])
    return shown_classes(browser)


def shown_classes(browser: Browser) -> Classes:
    browser.wait_for("document.querySelector('#time').textContent && !document.querySelector('#file').disabled")
    shown = "[...document.querySelectorAll('#classes li')]"
    names = browser.evaluate(f"{shown}.map((item) => item.firstChild.textContent)")
    probabilities = browser.evaluate(f"{shown}.map((item) => Number(item.dataset.probability))")
    return list(zip(names, probabilities, strict=True))


class TestWeb:
    pytestmark = needs_browser

    @pytest.mark.parametrize("form", FORMS)
    def test_page_says_what_predict_says(
        self, form: str, network: Any, artifacts: Any, pictures: list[Path], browser: Browser, tmp_path: Path
    ) -> None:
        artifact = artifacts("onnx", form)
        with served_page(tmp_path, artifact) as address:
            browser.open(address)
            found = [classify_in_page(browser, path) for path in pictures]
            assert browser.evaluate("document.querySelector('#picture').width") == 333  # turned upright
        assert_same(found, expected(artifact if form == "int8" else network, pictures))

    def test_what_is_no_picture(self, artifacts: Any, pictures: list[Path], browser: Browser, tmp_path: Path) -> None:
        """It is said so, and the next picture is none the worse."""
        (tmp_path / "text.png").write_text("text")
        with served_page(tmp_path, artifacts("onnx", "pixels to probabilities")) as address:
            browser.open(address)
            browser.wait_for("!document.querySelector('#file').disabled")
            browser.choose_files("#file", [tmp_path / "text.png"])
            browser.wait_for("document.querySelector('#status.error')")
            assert "“text.png” is not a picture" in browser.evaluate("document.querySelector('#status').textContent")
            assert len(classify_in_page(browser, pictures[0])) == len(CLASSES)
            assert browser.evaluate("document.querySelector('#status').textContent") == ""

    def test_dropped_picture(
        self, network: Any, artifacts: Any, pictures: list[Path], browser: Browser, tmp_path: Path
    ) -> None:
        (tmp_path / "dropped.png").write_bytes(pictures[0].read_bytes())
        with served_page(tmp_path, artifacts("onnx", "pixels to probabilities")) as address:
            browser.open(address)
            browser.wait_for("!document.querySelector('#file').disabled")
            browser.evaluate(
                f"""(async () => {{
                    const dataTransfer = new DataTransfer();
                    const content = await (await fetch("{address}/dropped.png")).blob();
                    dataTransfer.items.add(new File([content], "dropped.png"));
                    document.querySelector("#drop").dispatchEvent(new DragEvent("drop", {{ dataTransfer }}));
                }})()"""
            )
            assert_same([shown_classes(browser)], expected(network, pictures[:1]))

    def test_page_without_its_network(self, browser: Browser, tmp_path: Path) -> None:
        with served_page(tmp_path, None) as address:
            browser.open(address)
            browser.wait_for("document.querySelector('#status.error')")
            assert "prepare.py" in browser.evaluate("document.querySelector('#status').textContent")

    @pytest.mark.parametrize("channels", [3, 1])
    @pytest.mark.parametrize("size", [(41, 38), (301, 140), (640, 480), (53, 53), (54, 401), (30, 100)])
    def test_pixels_are_those_of_pillow(
        self, size: tuple[int, int], channels: int, artifacts: Any, browser: Browser, tmp_path: Path
    ) -> None:
        """Bit for bit: decoded, made grey, resized up and down, and cut out."""
        path = tmp_path / "picture.png"
        Image.fromarray(picture(*size, seed=3)).save(path)
        preprocessing = repvgg.Preprocessing(48, 53, (0.0,) * channels, (1.0,) * channels)
        wanted = np.rint(read_batch([path], preprocessing)[0] * 255)
        settings = {"crop": 48, "resize": 53, "mean": [0.0] * channels}
        with served_page(tmp_path, None) as address:
            browser.open(address)
            found = browser.evaluate(
                f"""(async () => {{
                    const {{ decode, prepare }} = await import("{address}/app.js");
                    const file = await (await fetch("{address}/picture.png")).blob();
                    return Array.from(prepare(await decode(file), {json.dumps(settings)}));
                }})()"""
            )
        np.testing.assert_array_equal(np.reshape(found, wanted.shape), wanted)

    def test_resize_of_the_canvas_is_another(self, browser: Browser, tmp_path: Path) -> None:
        """Why the page has its own. docs/serving.md has these figures; another browser has others."""
        path = tmp_path / "picture.png"
        pixels = picture(640, 480, seed=3)
        Image.fromarray(pixels).save(path)
        wanted = np.asarray(Image.fromarray(pixels).resize((299, 224), Image.Resampling.BILINEAR)).astype(int)
        with served_page(tmp_path, None) as address:
            browser.open(address)
            for quality in ("low", "medium", "high"):
                found = browser.evaluate(
                    f"""(async () => {{
                        const bitmap = await createImageBitmap(await (await fetch("{address}/picture.png")).blob());
                        const context = new OffscreenCanvas(299, 224).getContext("2d");
                        context.imageSmoothingQuality = "{quality}";
                        context.drawImage(bitmap, 0, 0, 299, 224);
                        return Array.from(context.getImageData(0, 0, 299, 224).data);
                    }})()"""
                )
                difference = np.abs(np.reshape(found, (224, 299, 4))[..., :3] - wanted)
                print(f"{quality}: {difference.mean():.1f} of 255 on average, {difference.max()} at most")
                assert difference.mean() > 2
