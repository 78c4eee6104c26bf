"""Artifacts: one folder a target, which writes it, runs it and quantizes it; and the table of them.

What is written here is proved in `repvgg.exporting`, one floor above.
"""

from dataclasses import dataclass
from pathlib import Path

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing


@dataclass(frozen=True)
class Target:
    """A kind of artifact.

    Attributes:
        module: has `write(model, path, metadata, settings)`.
        suffix: how its name ends; none for a folder.
        precisions: what its weights may be stored in.
        beside: endings of further files that belong to it.
        adapts: whether it follows the settings besides precision. A Keras file holds the model as it is.
        machine_code: whether it is code for one kind of processor and one image size, which nothing but a proof right
            after writing loads: `runners.load_runner` does not run what it finds.
    """

    module: str
    suffix: str
    precisions: tuple[str, ...] = ("float32", "float16")
    beside: tuple[str, ...] = ()
    adapts: bool = True
    machine_code: bool = False


TARGETS: dict[str, Target] = {
    "keras": Target("repvgg.targets.keras.write", ".keras", ("float32",), adapts=False),
    "onnx": Target("repvgg.targets.onnx.write", ".onnx"),
    "openvino": Target("repvgg.targets.openvino.write", ".xml", beside=(".bin",)),
    "litert": Target("repvgg.targets.litert.write", ".tflite"),
    "native": Target("repvgg.targets.native.write", ".repvgg"),
    "object": Target("repvgg.targets.object.write", ".o", ("float32",), beside=(".h",), machine_code=True),
    "savedmodel": Target("repvgg.targets.savedmodel.write", "", ("float32",)),
}


@dataclass(frozen=True)
class Settings:
    """What an artifact is to be like, apart from the network in it.

    Attributes:
        precision: one of its target's precisions.
        batch: images in every call; any number if None.
        image_size: (height, width) of all images; as open as the model is if None.
        softmax: give probabilities instead of logits.
        preprocessing: take pixels in uint8 and normalize them so; take normalized images if None.
        integer_io: "int8" or "uint8": images and answers of an INT8 network as integers, with the scales and zero
            points that the file holds; float32 if None.
        processor: for machine code: a name of `repvgg.engine.isa.PROCESSORS`.
        threads: for machine code: how many a call may ask for.
    """

    precision: str = "float32"
    batch: int | None = None
    image_size: tuple[int, int] | None = None
    softmax: bool = False
    preprocessing: Preprocessing | None = None
    integer_io: str | None = None
    processor: str | None = None
    threads: int | None = None


def format_of(path: Path) -> str:
    """The target whose ending `path` has; a name without any is that of a folder.

    Raises:
        InputError: if there is none.
    """
    for name, target in TARGETS.items():
        if path.suffix == target.suffix:
            return name
    endings = ", ".join(f"{target.suffix or 'none'} ({name})" for name, target in TARGETS.items())
    raise InputError(f"The ending of '{path.name}' tells no format. Known: {endings}. Or name the format: --format.")
