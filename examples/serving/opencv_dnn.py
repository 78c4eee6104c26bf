"""Classifies pictures in OpenCV's dnn: OpenCV, NumPy and Pillow, and nothing else.

repvgg export model.keras model.onnx --batch 1 --size 224
python ../web/prepare.py model.onnx .          # writes model.json: OpenCV cannot read an ONNX file's metadata
python opencv_dnn.py model.onnx photo.jpg ...
"""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
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
    metadata = json.loads(Path(artifact).with_suffix(".json").read_text(encoding="utf-8"))
    network = cv2.dnn.readNetFromONNX(artifact)
    for picture in pictures:
        images = normalized(read_pixels(picture, metadata["preprocessing"]), metadata["preprocessing"])
        network.setInput(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        print(picture)
        for name, probability in best_classes(network.forward()[0], metadata):
            print(f"{probability:11.4%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
