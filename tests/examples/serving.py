"""What the tests of the examples share: pictures, what is expected of them, and a server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

import repvgg
from repvgg.evaluation.prediction import predict
from repvgg.runners import as_runner

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


def expected(source: Any, pictures: list[Path]) -> list[Classes]:
    """What `repvgg predict` says."""
    found = predict(as_runner(source), pictures)
    return [list(zip(one.classes, one.probabilities, strict=True)) for one in found]


def assert_same(found: list[Classes], wanted: list[Classes], tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        np.testing.assert_allclose([part for _, part in one], [part for _, part in other], rtol=0, atol=tolerance)


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
