"""Classifies pictures with a LiteRT file on one thread, as a phone would: LiteRT, NumPy and Pillow, and nothing else.

repvgg export model.keras model.tflite --batch 1 --size 224 --with-preprocessing --softmax
python litert_single_thread.py model.tflite photo.jpg ...
"""

import json
import sys
import time
import zipfile
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
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


def quantized(images: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """Integers instead of floats, by the tensor's scale and zero point."""
    (scale, zero), limits = tensor["quantization"], np.iinfo(tensor["dtype"])
    return np.clip(np.rint(images / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def main(artifact: str, *pictures: str) -> None:
    """Prints the most likely classes of each picture, and how long the network took."""
    with zipfile.ZipFile(artifact) as archive:  # the model, with an archive behind it
        metadata = json.loads(archive.read("repvgg.json"))
    interpreter = Interpreter(artifact, num_threads=1)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    crop, channels = metadata["preprocessing"]["crop"], len(metadata["preprocessing"]["mean"])
    interpreter.resize_tensor_input(source["index"], (1, crop, crop, channels))  # needed without --batch and --size
    interpreter.allocate_tensors()
    for picture in pictures:
        images = read_pixels(picture, metadata["preprocessing"])
        if metadata["input"] == "float32":
            images = normalized(images, metadata["preprocessing"])
        if source["quantization"][0]:  # with --integer-io
            images = quantized(images, source)
        interpreter.set_tensor(source["index"], images)
        start = time.perf_counter()
        interpreter.invoke()
        milliseconds = 1000 * (time.perf_counter() - start)
        scores = interpreter.get_tensor(target["index"])
        if target["quantization"][0]:
            scale, zero = target["quantization"]
            scores = scale * (scores.astype(np.float32) - zero)
        print(f"{picture} ({milliseconds:.1f} ms)")
        for name, probability in best_classes(scores[0], metadata):
            print(f"{probability:11.4%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
