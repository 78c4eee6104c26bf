"""The examples of serving, run as a person runs them: a process of their own, which knows nothing of this package."""

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image

import repvgg
from exported import NETWORKS, TOLERANCES, deployed, write
from helpers import infer, random_images, relative_error, trained_like
from repvgg.data import read_batch
from repvgg.evaluation.prediction import predict
from repvgg.exporting import export
from repvgg.runners import as_runner
from repvgg.targets import TARGETS
from repvgg.targets.int8 import INT8_TARGETS

ROOT = Path(__file__).parents[2]
SERVING, WEB = ROOT / "examples" / "serving", ROOT / "examples" / "web"

EXAMPLES = {
    "onnx": ("onnx_runtime.py", "model.onnx"),
    "openvino": ("openvino_runtime.py", "model.xml"),
    "litert": ("litert_single_thread.py", "model.tflite"),
    "savedmodel": ("tf_serving_request.py", "flowers/1"),
}

FORMS: dict[str, dict[str, Any]] = {
    "pixels to probabilities": {"with_preprocessing": True, "softmax": True},
    "normalized to logits": {},
    "int8": {"precision": "int8", "scheme": "per-channel", "max_drop": 100, "image_size": 48},
}

CASES = [
    (target, form)
    for target in EXAMPLES
    for form in FORMS
    # A SavedModel of the other form goes through the server below: the same lines without the seconds TensorFlow takes
    # to start.
    if (target in INT8_TARGETS if form == "int8" else (target, form) != ("savedmodel", "normalized to logits"))
]

CLASSES = ("daisy", 'a "bee" & <more>', "käfer", "tulip")
PREPROCESSING = repvgg.Preprocessing(crop=48, resize=53, mean=(0.2, 0.5, 0.7), std=(0.2, 0.5, 0.35))

# Another runtime adds up in another order, and the fixture's classifier amplifies that: logits move by up to 7e-6, and
# probabilities by a quarter of it. The rest is for other processors.
TOLERANCE = 1e-5

Classes = list[tuple[str, float]]


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """Edges, colours and noise, so that another way to resize, crop or turn shows."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / generator.uniform(2, 20) + rows / generator.uniform(2, 20)) for _ in range(3)]
    values = 128 + 90 * np.stack(waves, -1) + 30 * generator.standard_normal((height, width, 3))
    return values.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smaller and larger than the network's images, in colour and grey, one lying on its side."""
    folder = tmp_path_factory.mktemp("pictures")
    names = [folder / name for name in ("small.png", "grey.png", "turned.jpg")]
    Image.fromarray(picture(41, 38, seed=0)).save(names[0])
    Image.fromarray(picture(301, 140, seed=1)).convert("L").save(names[1])
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture(211, 333, seed=2)).save(names[2], quality=92, exif=turned)
    return names


@pytest.fixture(scope="module")
def network(pictures: list[Path]) -> Any:
    """In deploy form, with a classifier that tells these pictures apart."""
    keras.utils.set_random_seed(3)  # a fixture of a module comes before those of its tests, one of which sets the seed
    model = trained_like(repvgg.RepVGG([1, 1, 2, 1], [0.25] * 4, num_classes=len(CLASSES)))
    repvgg.set_metadata(model, class_names=CLASSES, preprocessing=PREPROCESSING)
    deployed = repvgg.reparameterize(model)
    logits = as_runner(deployed)(read_batch(pictures, PREPROCESSING))
    kernel, bias = deployed.layers[-1].get_weights()
    factor = 0.4 / logits.std(axis=0)
    deployed.layers[-1].set_weights([kernel * factor, (bias - logits.mean(axis=0)) * factor])
    return deployed


@pytest.fixture(scope="module")
def artifacts(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes each artifact when it is first asked for."""

    @cache
    def artifact(target: str, form: str) -> Path:
        path = tmp_path_factory.mktemp("artifacts") / EXAMPLES[target][1]
        options = dict(FORMS[form])
        if form == "int8":
            pixels = np.stack([picture(48, 48, seed) for seed in range(8)])
            options["calibration"] = PREPROCESSING.normalize(pixels)
        export(network, path, target, **options)
        return path

    return artifact


def expected(source: Any, pictures: list[Path]) -> list[Classes]:
    """What `repvgg predict` says."""
    found = predict(as_runner(source), pictures)
    return [list(zip(one.classes, one.probabilities, strict=True)) for one in found]


def run_example(target: str, *arguments: object) -> list[Classes]:
    """The classes printed for each picture by the example of a target."""
    return run_script(EXAMPLES[target][0], *arguments)


def run_script(script: str, *arguments: object) -> list[Classes]:
    """The classes that an example prints for each picture."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    finished = subprocess.run(
        [sys.executable, SERVING / script, *map(str, arguments)],
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    results: list[Classes] = []
    for line in finished.stdout.splitlines():
        if not line.startswith(" "):
            results.append([])
            continue
        probability, name = line.split(maxsplit=1)
        results[-1].append((name, float(probability.removesuffix("%")) / 100))
    return results


def assert_same(found: list[Classes], wanted: list[Classes], tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        np.testing.assert_allclose([part for _, part in one], [part for _, part in other], rtol=0, atol=tolerance)


def test_pictures_are_told_apart(network: Any, pictures: list[Path]) -> None:
    """Otherwise the comparisons below would compare nothing; and no two classes are close enough to swap."""
    found = expected(network, pictures)
    assert len({classes[0][0] for classes in found}) > 1
    for classes in found:
        probabilities = np.array([probability for _, probability in classes])
        assert np.diff(-probabilities).min() > 10 * TOLERANCE


def test_each_target_has_an_example_and_the_page_names_it() -> None:
    assert set(EXAMPLES) == {name for name, target in TARGETS.items() if target.adapts}
    scripts = {script for script, _ in EXAMPLES.values()} | {"opencv_dnn.py", "ncnn_runtime.py"}
    assert scripts == {path.name for path in SERVING.glob("*.py")}
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert [script for script in scripts if script not in text] == []


def test_examples_stand_alone_and_share_what_is_the_same() -> None:
    shared: dict[str, set[str]] = {"read_pixels": set(), "normalized": set(), "best_classes": set()}
    for script in SERVING.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        assert "import repvgg" not in text
        assert "from repvgg" not in text
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name in shared:
                shared[node.name].add(str(ast.get_source_segment(text, node)))
    assert {name: len(texts) for name, texts in shared.items()} == dict.fromkeys(shared, 1)


@pytest.mark.parametrize(("target", "form"), CASES)
def test_example_says_what_predict_says(
    target: str, form: str, network: Any, artifacts: Any, pictures: list[Path]
) -> None:
    """INT8 is compared with the same file, whose answers are its own; everything else with the Keras model."""
    artifact = artifacts(target, form)
    arguments = [artifact, "local", *pictures] if target == "savedmodel" else [artifact, *pictures]
    assert_same(run_example(target, *arguments), expected(artifact if form == "int8" else network, pictures))


@pytest.fixture
def fixed(network: Any, tmp_path: Path) -> Path:
    """A file of fixed size, with what its metadata say beside it."""
    path = export(network, tmp_path / "net" / "model.onnx", batch=1, image_size=48).path
    subprocess.run([sys.executable, WEB / "prepare.py", path, tmp_path], check=True, timeout=300)
    return tmp_path / "model.onnx"


def test_opencv(fixed: Path, network: Any, pictures: list[Path]) -> None:
    pytest.importorskip("cv2")
    assert_same(run_script("opencv_dnn.py", fixed, *pictures), expected(network, pictures))


@pytest.mark.parametrize("name", NETWORKS)
def test_opencv_reads_fixed_sizes_exactly_and_no_open_ones(name: str, tmp_path: Path) -> None:
    """As docs/serving.md says; when OpenCV reads open sizes one day, it may say so."""
    cv2 = pytest.importorskip("cv2")
    model = deployed(name)
    height, width, channels = (size or 45 for size in model.input_shape[1:])
    images = random_images((1, height, width, channels))
    for precision in ("float32", "float16"):
        path = write(model, tmp_path, "onnx", precision, batch=1, image_size=(height, width), force=True).path
        opencv = cv2.dnn.readNetFromONNX(str(path))
        opencv.setInput(images.transpose(0, 3, 1, 2).copy())
        # The order of summation, or the rounding of the weights.
        assert relative_error(infer(model, images), opencv.forward()) <= TOLERANCES[precision]
    if name == "plain":
        with pytest.raises(cv2.error, match="Gemm"):
            cv2.dnn.readNetFromONNX(str(write(model, tmp_path, "onnx", force=True).path))


def test_ncnn(fixed: Path, network: Any, pictures: list[Path]) -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    converter = Path(sys.executable).with_name("pnnx")
    arguments = [converter, fixed.name, "inputshape=[1,3,48,48]", "fp16=0"]
    subprocess.run(arguments, cwd=fixed.parent, check=True, capture_output=True, timeout=300)
    artifact = fixed.with_name("model.ncnn.param")
    assert_same(run_script("ncnn_runtime.py", artifact, *pictures), expected(network, pictures))


def test_signature_of_tensorflow_serving(artifacts: Any) -> None:
    import tensorflow as tf

    for form, dtype, output in (
        ("pixels to probabilities", tf.uint8, "probabilities"),
        ("normalized to logits", tf.float32, "logits"),
    ):
        signatures = tf.saved_model.load(artifacts("savedmodel", form)).signatures
        assert list(signatures) == ["serving_default"]
        signature = signatures["serving_default"]
        inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in inputs.items()} == {
            "images": (dtype, [None, None, None, 3])
        }
        assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in outputs.items()} == {
            output: (tf.float32, [None, len(CLASSES)])
        }


@contextmanager
def served(handler: Any) -> Iterator[str]:
    """A server on this machine, and its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("form", ["pixels to probabilities", "normalized to logits"])
def test_request_to_a_server(form: str, network: Any, artifacts: Any, pictures: list[Path]) -> None:
    """A server that knows of TensorFlow Serving's interface what the example uses of it: a row an instance."""
    import tensorflow as tf

    artifact = artifacts("savedmodel", form)
    model = tf.saved_model.load(artifact)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            signature = model.signatures[request.pop("signature_name")]
            images = np.array(request.pop("instances"))
            known = self.path == "/v1/models/flowers:predict" and not request
            dtype = signature.structured_input_signature[1]["images"].dtype
            (scores,) = signature(images=tf.constant(images, dtype)).values()
            answer = json.dumps({"predictions": scores.numpy().tolist()}).encode()
            self.send_response(200 if known else 400)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    with served(Handler) as address:
        found = run_example("savedmodel", artifact, f"{address}/v1/models/flowers:predict", *pictures)
    assert_same(found, expected(network, pictures))


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
            assert "“text.png” is no picture" in browser.evaluate("document.querySelector('#status').textContent")
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
