"""Quantization-aware training: what a run begins with, and how it ends in an INT8 file."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from repvgg.checkpoints import load_checkpoint
from repvgg.dependencies import require
from repvgg.layers import all_layers
from repvgg.metadata import set_metadata
from repvgg.pipeline import evaluation_batches
from repvgg.quantization.qat import finish_qat, prepare_qat
from repvgg.quantization.qat_layers import QUANTIZED
from repvgg.quantization.qdq import export_qdq
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.saving import save_model
from repvgg.training.checkpoint import Progress
from repvgg.training.finish import Outcome, compare
from repvgg.training.inputs import Source
from repvgg.training.run_folder import DEPLOYED, INT8, PICTURE, README, SCALES, RunFolder

PROOF_IMAGES = 64
"""Validation images on which the INT8 file is compared with rounded floats before it is kept."""


def quantized_start(path: Path, *, per_channel: bool) -> Any:
    """A trained network, ready to be trained on in 8-bit numbers.

    Raises:
        FileError: if it cannot be read.
        MissingDependencyError: without ONNX and its runtime, in which the run would end.
    """
    for module in ("onnx", "onnxruntime"):
        require(module, extra="onnx", purpose="Quantization-aware training, which ends in an ONNX file,")
    model = prepare_qat(load_checkpoint(path), per_channel=per_channel)
    model.name = f"{path.stem}-qat"
    return model


def is_quantized(model: Any) -> bool:
    """Whether a model calculates in rounded numbers."""
    return any(isinstance(layer, QUANTIZED) for layer in all_layers(model))


def finish_quantized(
    network: Any, validation: Source, folder: RunFolder, progress: Progress, console: Console
) -> tuple[Any, Outcome]:
    """Writes the deploy form, its scales and the INT8 file, which is run on every validation image.

    Raises:
        VerificationError: if the file's answers are not those of the rounded network; it is not kept.
    """
    deployed, scales = finish_qat(network)
    images = next(
        evaluation_batches(
            validation, network.repvgg_metadata.preprocessing, batch_size=min(PROOF_IMAGES, len(validation))
        ).as_numpy_iterator()
    )[0]
    report = export_qdq(deployed, scales, folder / INT8, images=images, force=True)
    epoch = progress.best_epoch or 0
    rounded = KerasRunner(network, "rounded floats")
    comparison = compare(rounded, load_runner(folder / INT8), validation, epoch)
    unrounded = compare(KerasRunner(deployed), rounded, validation, epoch).outcome
    set_metadata(deployed, verification=report.to_dict())
    save_model(deployed, folder / DEPLOYED, force=True)
    folder.write_text(SCALES, scales.to_json() + "\n")
    comparison.draw(folder, progress)
    outcome = comparison.outcome
    rows = [
        ("deploy.keras", "float32, rounded nowhere", unrounded.top1, unrounded.images),
        ("best.keras", "rounded floats, as trained", outcome.top1, unrounded.same_class),
        (INT8, "8-bit integers, ONNX Runtime", outcome.deployed_top1, outcome.same_class),
    ]
    folder.write_text(README, _readme(rows, outcome))
    table = Table("file", "calculates in", "accuracy", "same class", title=f"After training in 8 bits, epoch {epoch}")
    for file, what, accuracy, same in rows:
        table.add_row(file, what, f"{accuracy:.2%}", f"{same} of {outcome.images}")
    console.print(table)
    console.print("Same class: as the row above it.")
    console.print(f"Everything is in [bold]{folder.path}/[/] (start with README.md and {PICTURE}).", soft_wrap=True)
    return deployed, outcome


def _readme(rows: list[tuple[str, str, float, int]], outcome: Outcome) -> str:
    lines = [
        f"# Trained in 8-bit numbers: {outcome.deployed_top1:.2%} on {outcome.images} validation images",
        "",
        "| file | calculates in | accuracy | same class as the row above |",
        "|---|---|---|---|",
        *(f"| `{file}` | {what} | {accuracy:.2%} | {same} |" for file, what, accuracy, same in rows),
        "",
        f"`{SCALES}` has the grid of each layer. `run.json`, `data.json`, `history.csv` and `checkpoints/` are as in "
        "any run.",
        "",
        f"    repvgg predict {INT8} photos/",
        f"    repvgg evaluate {INT8} images/",
        "",
    ]
    return "\n".join(lines)
