"""A classifier of colours that needs no training: the average red, green and blue are its logits."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

import repvgg

CLASSES = ("red", "green <b>&", "blåbær")
PREPROCESSING = repvgg.Preprocessing(crop=24, resize=28, mean=(0.25,) * 3, std=(0.25,) * 3)


def write_colours(path: Path, batch: int | str = "batch", classes: tuple[str, ...] = CLASSES) -> Path:
    """As an ONNX file of open or fixed batches."""
    side = PREPROCESSING.crop
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)],
        "colours",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [batch, 3, side, side])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, 3])],
        [onnx.numpy_helper.from_array(np.array([2, 3], np.int64), "axes")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    metadata = repvgg.Metadata(form="deploy", class_names=classes, preprocessing=PREPROCESSING)
    onnx.helper.set_model_props(model, {"repvgg": metadata.to_json()})
    onnx.save(model, path)
    return path


def painted(colour: str, size: tuple[int, int] = (40, 32)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def best(answer: Any, model: int = 0) -> str:
    return str(answer["models"][model]["classes"][0]["class"])


def error(response: Any) -> str:
    """The one sentence that every error is."""
    content = json.loads(response.text)
    assert list(content) == ["error"]
    return str(content["error"])
