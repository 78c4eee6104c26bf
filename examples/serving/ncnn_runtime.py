"""Classifies pictures in ncnn, for phones and small boards: ncnn, NumPy and Pillow, and nothing else.

repvgg export model.keras model.onnx --batch 1 --size 224
python ../web/prepare.py model.onnx .          # writes model.json: an ncnn file has no place for metadata
pnnx model.onnx "inputshape=[1,3,224,224]" fp16=0     # writes model.ncnn.param and model.ncnn.bin
python ncnn_runtime.py model.ncnn.param photo.jpg ...
"""

import json
import sys
from pathlib import Path
from typing import Any

import ncnn
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
    folder, stem = Path(artifact).parent, Path(artifact).name.removesuffix(".ncnn.param")
    metadata = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
    network = ncnn.Net()
    # By itself ncnn calculates in 16 bits where the processor can, which is quicker and off by about 1e-3.
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    network.load_param(artifact)
    network.load_model(str(folder / f"{stem}.ncnn.bin"))
    for picture in pictures:
        images = normalized(read_pixels(picture, metadata["preprocessing"]), metadata["preprocessing"])
        extractor = network.create_extractor()
        # ncnn has channels first and no batch, and a Mat does not keep its array alive. pnnx names the ends in0, out0.
        pixels = np.ascontiguousarray(images[0].transpose(2, 0, 1))
        extractor.input("in0", ncnn.Mat(pixels))
        _, scores = extractor.extract("out0")
        print(picture)
        for name, probability in best_classes(np.array(scores), metadata):
            print(f"{probability:11.4%}  {name}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
