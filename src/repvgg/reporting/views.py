"""Facts as rows of tables, for whatever writes them down."""

import io
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from repvgg.blocks import KINDS
from repvgg.blocks.kind import AveragePool, Branch, Conv
from repvgg.core.architecture import Architecture
from repvgg.evaluation.metrics import most_confused
from repvgg.models.cost import Cost, alike, label_of
from repvgg.reporting.facts import Mistake, Quality, Training

MOST_CLASSES = 30
"""Classes up to which a confusion matrix can be read; of more, the worst are listed."""

CONFUSIONS = 15
THUMBNAIL = 192


@dataclass(frozen=True)
class BlockRow:
    """Blocks that are alike, in both forms.

    Attributes:
        branches: what each is, such as '3x3'.
        size: of its output, in pixels.
    """

    label: str
    count: int
    branches: tuple[str, ...]
    deployed: str
    channels: str
    stride: str
    groups: int
    size: str
    train_parameters: int
    deploy_parameters: int
    macs: int


def block_rows(architecture: Architecture, cost: Cost) -> Iterator[BlockRow]:
    """The network from the stem on."""
    kind = KINDS[architecture.block]
    for run in alike(cost.blocks):
        spec = run[0].spec
        height, width = run[0].output_size
        yield BlockRow(
            label=label_of(run),
            count=len(run),
            branches=tuple(branch_label(branch) for branch in kind.branches(spec.shape)),
            deployed=f"{spec.kernel_size}x{spec.kernel_size}",
            channels=f"{spec.in_channels} → {spec.filters}",
            stride=str(spec.strides) if spec.dilation == 1 else f"{spec.strides}, dilation {spec.dilation}",
            groups=spec.groups,
            size=f"{height}x{width}",
            train_parameters=sum(one.train_parameters for one in run),
            deploy_parameters=sum(one.deploy_parameters for one in run),
            macs=sum(one.deploy_macs for one in run),
        )


def branch_label(branch: Branch) -> str:
    """Its windows in order; 'identity' where it has none."""
    parts = []
    for step in branch.steps:
        if isinstance(step, Conv | AveragePool):
            size = "x".join(map(str, step.kernel_size))
            parts.append(size if isinstance(step, Conv) else f"mean {size}")
    return ", ".join(parts) or "identity"


@dataclass(frozen=True)
class ClassRow:
    """One class on the labelled images; shares are None where there is nothing to take a share of."""

    name: str
    images: int
    recall: float | None
    precision: float | None


def class_rows(quality: Quality) -> list[ClassRow]:
    """All classes; of many, those with the lowest recall."""
    right, true, answers = (
        quality.confusion.diagonal(), quality.confusion.sum(axis=1), quality.confusion.sum(axis=0)
    )  # fmt: skip
    rows = [
        ClassRow(
            name,
            int(true[place]),
            float(right[place] / true[place]) if true[place] else None,
            float(right[place] / answers[place]) if answers[place] else None,
        )
        for place, name in enumerate(quality.class_names)
    ]
    if len(rows) <= MOST_CLASSES:
        return rows
    return sorted((row for row in rows if row.recall is not None), key=lambda row: row.recall or 0.0)[:MOST_CLASSES]


def matrix(quality: Quality) -> list[tuple[str, list[tuple[int, float]]]] | None:
    """Of each true class the images by predicted class, as numbers and as shares of the row; None for many classes."""
    if len(quality.class_names) > MOST_CLASSES:
        return None
    shares = quality.confusion / np.maximum(quality.confusion.sum(axis=1, keepdims=True), 1)
    return [
        (name, [(int(count), round(float(share), 4)) for count, share in zip(counts, row, strict=True)])
        for name, counts, row in zip(quality.class_names, quality.confusion, shares, strict=True)
    ]


def confusions(quality: Quality) -> list[tuple[str, str, int]]:
    """What is mixed up most: true class, predicted class, images."""
    names = quality.class_names
    return [(names[row], names[column], count) for row, column, count in most_confused(quality.confusion, CONFUSIONS)]


def thumbnail(mistake: Mistake) -> str:
    """A small JPEG as a data address."""
    pixels = np.rint(mistake.image * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3])
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(stream.getvalue()).decode()}"


def setting_rows(training: Training) -> list[tuple[str, str]]:
    """Every setting of the run by its name; those of the recipe and its augmentation stand among the others."""
    return list(_flat(training.settings))


def _flat(values: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = f"{group}: {name}" if group else name
        if isinstance(value, Mapping):
            yield from _flat(value, "" if name in ("recipe", "augmentation") else label)
        else:
            yield label.replace("_", " "), _in_words(value)


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_in_words(one) for one in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
