"""Speed of training batches: this package's pipeline beside Pillow behind PyTorch's DataLoader, on the same files.

    python benchmarks/input_pipeline.py flowers/train                    # 128 and 224 px, batch 64
    python benchmarks/input_pipeline.py flowers/train --rounds 2 --images 256 --sizes 64

Both do the same: random resized crop, flip, normalization, batches of float32. The loader has `--workers` processes
(2 by default) that keep running between rounds; the pipeline has as many threads as TensorFlow gives it. They take
turns, A B A B, so that a slow minute of the machine hits both; the first round, which starts and warms up, is not
counted. Prints medians, spread and the ratio of the medians; `--out` keeps them.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import PIL
import tensorflow as tf
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from repvgg.base.metadata import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from repvgg.data.augmentation import Augmentation
from repvgg.data.folder import LabelledImages, find_labelled_images
from repvgg.data.scan import scan
from repvgg.pipeline import FolderSource, steps_per_epoch, training_batches


class PillowImages(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """What torchvision's RandomResizedCrop, RandomHorizontalFlip, ToTensor and Normalize do, without torchvision."""

    def __init__(self, images: LabelledImages, size: int) -> None:
        self.images, self.size = images, size
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with self.images.paths[index].open("rb") as file:
            image = Image.open(file).convert("RGB")
        left, top, width, height = self.window(*image.size)
        image = image.crop((left, top, left + width, top + height))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return pixels.sub_(self.mean).div_(self.std), int(self.images.labels[index])

    @staticmethod
    def window(width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * torch.empty(1).uniform_(0.08, 1).item()
            ratio = math.exp(torch.empty(1).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return (
                    int(torch.randint(0, width - w + 1, (1,)).item()),
                    int(torch.randint(0, height - h + 1, (1,)).item()),
                    w,
                    h,
                )
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side


def loader(images: LabelledImages, size: int, batch: int, workers: int) -> Callable[[int], Iterator[Any]]:
    loaded: Any = torch.utils.data.DataLoader(
        PillowImages(images, size),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda _: iter(loaded)


def pipeline(images: LabelledImages, plain: np.ndarray, size: int, batch: int) -> Callable[[int], Iterator[Any]]:
    source, preprocessing = FolderSource(images, plain), Preprocessing(crop=size, resize=size)
    steps = steps_per_epoch(source, batch)
    return lambda epoch: iter(
        training_batches(
            source,
            preprocessing,
            Augmentation(),
            batch_size=batch,
            seed=0,
            first_step=epoch * steps,
            last_step=(epoch + 1) * steps,
        )
    )


def timed(batches: Iterator[Any], shape: tuple[int, int]) -> float:
    """Seconds for an image, from the first batch to the last: what starts and traces is not the speed of a training."""
    next(batches)
    start, count = time.perf_counter(), 0
    for images, _ in batches:
        if (len(images), images.shape[-2]) != shape:
            raise SystemExit(f"A batch has the shape {tuple(images.shape)}.")
        count += len(images)
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one sub-folder a class")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224], help="pixels a side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7, help="counted epochs of each")
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--images", type=int, help="take only so many")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    report = scan(find_labelled_images(arguments.folder))
    chosen = np.random.default_rng(0).permutation(len(report.images))[: arguments.images]
    images, plain = report.images.subset(chosen), report.plain[chosen]
    sides = [Image.open(path).size for path in images.paths]
    record: dict[str, Any] = {
        "images": len(images),
        "plain": int(plain.sum()),
        "median_sides": [statistics.median(side) for side in zip(*sides, strict=True)],
        "batch": arguments.batch,
        "workers": arguments.workers,
        "tensorflow": tf.__version__,
        "torch": torch.__version__.split("+")[0],
        "pillow": PIL.__version__,
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "sizes": {},
    }
    out = Console()
    for size in arguments.sizes:
        runs = {
            "repvgg": pipeline(images, plain, size, arguments.batch),
            "Pillow and DataLoader": loader(images, size, arguments.batch, arguments.workers),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for epoch in range(arguments.rounds + 1):
            for name, start in runs.items():
                elapsed = timed(start(epoch), (arguments.batch, size))
                if epoch:
                    seconds[name].append(elapsed)
        table = Table("pipeline", "images/s (median)", "spread", title=f"{len(images)} images, {size} px")
        for name, values in seconds.items():
            spread = f"{1 / max(values):.0f} to {1 / min(values):.0f}"
            table.add_row(name, f"{1 / statistics.median(values):.0f}", spread)
        out.print(table)
        ours, theirs = (statistics.median(values) for values in seconds.values())
        out.print(f"{theirs / ours:.2f} times as many images a second ({arguments.rounds} epochs of each).")
        record["sizes"][size] = {"seconds_per_image": seconds, "ratio_of_medians": theirs / ours}
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
