"""Integer ends: images and answers as integers, for processors that have nothing else."""

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from exported import deployed, write
from helpers import random_images
from repvgg.base.errors import InputError
from repvgg.runners import load_runner
from repvgg.targets.litert.ends import require_integers

litert = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnxruntime")

IMAGES = random_images((16, 32, 32, 3), seed=3)
INT8: dict[str, Any] = {"calibration": IMAGES, "scheme": "per-channel", "max_drop": 100, "batch": 1, "image_size": 32}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same network in INT8, with each kind of ends."""

    @cache
    def written(ends: str | None) -> Path:
        folder = tmp_path_factory.mktemp("ends")
        return write(deployed("plain"), folder, "litert", "int8", integer_io=ends, **INT8).path

    return written


@pytest.mark.parametrize("ends", ["int8", "uint8"])
def test_integer_ends(ends: str, artifact: Any) -> None:
    """With LiteRT's own interpreter, as somebody's firmware would: the answers of float32 ends, rounded."""
    interpreter = litert.Interpreter(model_path=str(artifact(ends)))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["dtype"] is target["dtype"] is getattr(np, ends)
    assert not [tensor["name"] for tensor in interpreter.get_tensor_details() if tensor["dtype"] is np.float32]
    with_floats = load_runner(artifact(None))
    (scale, zero), limits = source["quantization"], np.iinfo(source["dtype"])
    # The whole range of the images that it was calibrated on, and no more.
    assert scale == pytest.approx((IMAGES.max() - IMAGES.min()) / 255, rel=0.02)
    step, middle = target["quantization"]
    for image in IMAGES[:4]:
        integers = np.clip(np.rint(image[None] / scale) + zero, limits.min, limits.max).astype(source["dtype"])
        interpreter.set_tensor(source["index"], integers)
        interpreter.invoke()
        logits = step * (interpreter.get_tensor(target["index"]).astype(np.float32) - middle)
        # Both round the same numbers on the same grids, wherever they do it.
        assert np.abs(logits - with_floats(image[None])).max() <= 1.01 * step


@pytest.mark.parametrize("ends", ["int8", "uint8"])
def test_the_runner_takes_and_gives_what_the_integers_stand_for(ends: str, artifact: Any) -> None:
    runner, with_floats = load_runner(artifact(ends)), load_runner(artifact(None))
    assert not runner.takes_uint8
    received, expected = runner(IMAGES[:1]), with_floats(IMAGES[:1])
    assert received.dtype == np.float32
    assert np.abs(received - expected).max() <= 0.02 * np.abs(expected).max()
    report = repvgg.verify(artifact(None), artifact(ends), IMAGES[:1], rtol=0.02)
    assert report.passed
    assert report.top1_agreement == 1


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("onnx", {"precision": "int8"}, r"are for LiteRT in INT8 .*; 'onnx' in int8 was asked for"),
        ("litert", {}, "'litert' in float32 was asked for"),
        ("litert", {"precision": "int8", "integer_io": "int4"}, r"Integer ends are int8 or uint8\. Received: 'int4'"),
        ("litert", {"precision": "int8", "softmax": True}, "`softmax` is calculated in float32"),
        ("litert", {"precision": "int8", "with_preprocessing": True}, "`with_preprocessing` is calculated in float32"),
    ],
)
def test_what_integer_ends_do_not_go_with(target: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    options = {"precision": "float32", "integer_io": "int8", **options}
    if options["precision"] == "int8":
        options["calibration"] = IMAGES
    with pytest.raises(InputError, match=message):
        write(deployed("plain"), tmp_path, target, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_without_an_integer_kernel_is_named(tmp_path: Path) -> None:
    """A file whose layers calculate in float32 stands for what the converter could not bring to integers."""
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(2, 3, name="first")(inputs)
    for outputs, name in ((first, "first"), (keras.layers.GlobalAveragePooling2D(name="second")(first), "first")):
        content = write(keras.Model(inputs, outputs), tmp_path, "litert", force=True).path.read_bytes()
        with pytest.raises(InputError, match=rf"'{name}.*' \(CONV_2D\) has no integer kernel in LiteRT"):
            require_integers(content)
