"""What an exported file says about itself, for `repvgg inspect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from repvgg.base.files import size_on_disk
from repvgg.base.processor import PROCESSORS

if TYPE_CHECKING:
    from repvgg.runners.runner import Runner

ARTIFACT_SUFFIXES = (".onnx", ".xml", ".tflite", ".repvgg")


def is_artifact(path: Path) -> bool:
    """Whether a file or folder is one that another runtime runs, and shows no blocks."""
    return path.suffix in ARTIFACT_SUFFIXES or path.is_dir()


def describe_artifact(path: Path) -> dict[str, str]:
    """Label and text of everything that is known of an exported file, which its own runtime loads.

    Raises:
        FileError: if it is missing, damaged or of an unknown kind.
        MissingDependencyError: if its runtime is not installed.
    """
    from repvgg.cli.networks import load_network
    from repvgg.cli.terminal import human_size

    runner = load_network(path)
    metadata = runner.metadata
    names = metadata.class_names or ()
    return {
        "file": f"{path} ({human_size(size_on_disk(path))})",
        "input": _input(runner),
        "output": metadata.output,
        "precision": metadata.precision,
        "form": metadata.form,
        "variant": metadata.variant or "none of the named ones",
        "class names": ", ".join(names[:10]) + (f" ... {len(names)} in all" if len(names) > 10 else "") or "-",
        "preprocessing": str(metadata.preprocessing or "-"),
        "source": metadata.source or "-",
        **_quantization(metadata.quantization or {}),
        **_tuned(runner),
    }


def _input(runner: "Runner") -> str:
    sides = (runner.batch_size, *runner.input_shape)
    shape = ", ".join("any" if side is None else str(side) for side in sides)
    return f"{'pixels, 0 to 255' if runner.takes_uint8 else 'normalized images'} ({shape})"


def _quantization(told: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    if "scheme" in told:
        found["scheme"] = str(told["scheme"])
    if "processor" in told:
        found["made for"] = f"{told['processor']}: {PROCESSORS.get(told['processor'], 'unknown')}"
    if told.get("accuracy_int8") is not None:
        found["accuracy"] = f"{told['accuracy_int8']:.2%}, and {told['accuracy_float32']:.2%} in float32"
    if told.get("agreement") is not None:
        found["top-1 agreement with float32"] = f"{told['agreement']:.2%} of {told['images']} images"
    return found


def _tuned(runner: "Runner") -> dict[str, str]:
    """The cases in which the engine has measured which way of computing each layer is fastest."""
    entries = getattr(runner, "tuned", None)
    if entries is None:
        return {}
    cases = [
        f"{entry.processor}, {entry.batch} x {entry.image_size[0]} x {entry.image_size[1]} on {entry.threads} "
        f"thread{'s' if entry.threads > 1 else ''}"
        for entry in entries
    ]
    return {"tuned for": "; ".join(cases) or "- (repvgg tune)"}
