"""Classifies pictures with TensorFlow Serving, by its REST interface: NumPy and Pillow, and nothing else.

repvgg export model.keras flowers/1 --with-preprocessing --softmax
tensorflow_model_server --rest_api_port=8501 --model_name=flowers --model_base_path="$PWD/flowers"
python tf_serving_request.py flowers/1 http://localhost:8501/v1/models/flowers:predict photo.jpg ...

With `local` in place of the address, TensorFlow runs the same signature on the same request without a server.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SIGNATURE = "serving_default"


def read_pixels(path: str, preprocessing: dict[str, Any]) -> np.ndarray:
    """The picture as the network was trained to see it: (1, crop, crop, channels), uint8."""
    crop, channels = preprocessing["crop"], len(preprocessing["mean"])
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
    scale = preprocessing["resize"] / min(image.size)
    width, height = (max(crop, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return np.asarray(image.crop((left, top, left + crop, top + crop))).reshape(1, crop, crop, channels)


def normalized(pixels: np.ndarray, preprocessing: dict[str, Any]) -> np.ndarray:
    """What an artifact without --with-preprocessing takes instead of pixels: the same shape, float32."""
    mean, std = np.float32(preprocessing["mean"]), np.float32(preprocessing["std"])
    return (pixels.astype(np.float32) / 255 - mean) / std


def best_classes(scores: np.ndarray, metadata: dict[str, Any], top: int = 5) -> list[tuple[str, float]]:
    """Names and probabilities, best first, of one picture's scores (classes,)."""
    if metadata["output"] == "logits":  # without --softmax
        scores = np.exp(scores - scores.max())
        scores = scores / scores.sum()
    names = metadata["class_names"] or [str(place) for place in range(len(scores))]
    return [(names[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")[:top]]


def request_body(pictures: list[str], metadata: dict[str, Any]) -> bytes:
    """The JSON that the server takes: one instance a picture, each (crop, crop, channels)."""
    images = np.concatenate([read_pixels(picture, metadata["preprocessing"]) for picture in pictures])
    if metadata["input"] == "float32":
        images = normalized(images, metadata["preprocessing"])
    return json.dumps({"signature_name": SIGNATURE, "instances": images.tolist()}).encode()


def ask_server(address: str, body: bytes) -> np.ndarray:
    """Scores (N, classes) from a server."""
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return np.array(json.load(response)["predictions"])


def run_here(artifact: str, body: bytes) -> np.ndarray:
    """Scores (N, classes) from TensorFlow, which a server calls in the same way."""
    import tensorflow as tf

    model = tf.saved_model.load(artifact)
    signature = model.signatures[SIGNATURE]
    ((name, expected),) = signature.structured_input_signature[1].items()
    (scores,) = signature(**{name: tf.constant(json.loads(body)["instances"], expected.dtype)}).values()
    return scores.numpy()


def main(artifact: str, address: str, *pictures: str) -> None:
    """Prints the most likely classes of each picture, all of which go in one request."""
    metadata = json.loads(Path(artifact, "assets.extra", "repvgg.json").read_text(encoding="utf-8"))
    body = request_body(list(pictures), metadata)
    scores = run_here(artifact, body) if address == "local" else ask_server(address, body)
    for picture, row in zip(pictures, scores, strict=True):
        print(picture)
        for name, probability in best_classes(row, metadata):
            print(f"{probability:11.4%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 3 else sys.exit(__doc__)
