"""Facts of a network that nobody trained: whole enough to draw every part of the page."""

import numpy as np

from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.benchmarking.figures import Figures, Spread
from repvgg.benchmarking.machine import ForeignLoad, Machine
from repvgg.models.cost import count_cost
from repvgg.models.variants import get_variant
from repvgg.reporting.facts import Artifact, Facts, Mistake, Quality, Training
from repvgg.verification import BlockRow, VerificationReport

NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
SIDE = 64


def made_facts() -> Facts:
    generator = np.random.default_rng(0)
    architecture = get_variant("RepVGG-A0").architecture
    cost = count_cost(architecture, len(NAMES), (SIDE, SIDE))
    metadata = Metadata("RepVGG-A0", class_names=NAMES, preprocessing=Preprocessing(SIDE, 73), source="made up")
    confusion = generator.integers(0, 4, (5, 5)) + np.diag([90, 120, 100, 110, 130])
    picture = generator.random((SIDE, SIDE, 3))
    layers = tuple(
        {
            "name": block.spec.name,
            "spread": 10.0,
            "before": 20 + index,
            "after": 30 + index,
            "agreement_before": 0.9,
            "agreement_after": 1.0,
        }
        for index, block in enumerate(cost.blocks)
    )
    told = {"scheme": "weights per channel", "processor": "portable", "layers": layers}
    return Facts(
        name="RepVGG-A0-flowers",
        metadata=metadata,
        side=SIDE,
        architecture=architecture,
        cost=cost,
        training=Training(
            settings={"data": "flowers", "recipe": {"epochs": 12, "augmentation": {"crop_scale": [0.3, 1.0]}}},
            command="repvgg train flowers --model RepVGG-A0 --epochs 12",
            versions={"keras": "3"},
            history=tuple(_row(epoch) for epoch in range(1, 13)),
        ),
        quality=Quality(
            network="best.keras",
            data="flowers",
            images=int(confusion.sum()),
            top1=float(np.trace(confusion) / confusion.sum()),
            top5=1.0,
            calibration_error=0.03,
            class_names=NAMES,
            confusion=confusion,
            mistakes=tuple(Mistake(picture, NAMES[0], NAMES[1], 0.9 - index / 50, "a.jpg") for index in range(12)),
        ),
        proof=VerificationReport(
            "training form", "deploy form", 2e-6, 1e-5, 1.0, 1e-4, 4, ((4, SIDE, SIDE, 3),),
            tuple(BlockRow(block.spec.name, 10.0 ** (-5 - index % 3), 1e-6) for index, block in enumerate(cost.blocks)),
        ),
        artifacts=(
            Artifact("best.keras", "Keras", 36_000_000, metadata, 0.93, 1.0, 0.0, _speed(30.0, 1.0)),
            Artifact("deploy.keras", "Keras", 33_000_000, metadata, 0.93, 1.0, 1e-6, _speed(14.0, 2.1)),
            Artifact("int8.onnx", "ONNX Runtime INT8", 8_000_000, Metadata(quantization=told), 0.93, 0.99, 0.1),
            Artifact("broken.onnx", "-", problem="It is truncated."),
        ),
        machine=Machine("a processor", ("avx2",), 2, 8.0, "Linux", "3.12"),
        load=ForeignLoad((0.0, 0.01)),
        versions={"repvgg": "0"},
    )  # fmt: skip


def _row(epoch: int) -> dict[str, float]:
    accuracy = 1 - 0.8 / epoch
    return {
        "epoch": epoch,
        "accuracy": accuracy - 0.05,
        "val_accuracy": accuracy,
        "cross_entropy": 2 / epoch,
        "val_cross_entropy": 1.5 / epoch,
        "seconds": 60.0,
    }


def _speed(milliseconds: float, times: float) -> Figures:
    seconds = milliseconds / 1000
    return Figures(Spread(seconds, seconds * 0.95, seconds * 1.1), Spread(times, times, times), 20, 1)
