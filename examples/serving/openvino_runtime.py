"""Classifies pictures with an OpenVINO model: OpenVINO, NumPy and Pillow, and nothing else.

repvgg export model.keras model.xml --with-preprocessing --softmax
python openvino_runtime.py model.xml photo.jpg ...
"""

import json
import sys
from typing import Any

import numpy as np
import openvino
from PIL import Image, ImageOps


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


def main(artifact: str, *pictures: str) -> None:
    """Prints the most likely classes of each picture."""
    core = openvino.Core()
    model = core.read_model(artifact)
    metadata = json.loads(model.get_rt_info(["repvgg", "metadata"]).astype(str))
    # Without the second hint a CPU that has bfloat16 calculates in it: faster, and off by about 1 %.
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(model, "CPU", hints)
    for picture in pictures:
        images = read_pixels(picture, metadata["preprocessing"])
        if metadata["input"] == "float32":
            images = normalized(images, metadata["preprocessing"]).transpose(0, 3, 1, 2)
        scores = network({"images": images})[0]
        print(picture)
        for name, probability in best_classes(scores[0], metadata):
            print(f"{probability:11.4%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
