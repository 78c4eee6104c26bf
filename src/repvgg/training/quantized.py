"""Quantization-aware training: what a run begins with, and how it ends in an INT8 file."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from repvgg.base.dependencies import require
from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.base.processor import PORTABLE, get_processor, overflows
from repvgg.base.progress import working
from repvgg.base.run_folder import BEST, DEPLOYED, INT8, SCALES, RunFolder
from repvgg.blocks.fake_quantization import QUANTIZED, Precision
from repvgg.checkpoints import load_checkpoint
from repvgg.data.augmentation import Augmentation
from repvgg.models.layers import all_layers
from repvgg.models.metadata import set_metadata
from repvgg.models.saving import save_model
from repvgg.pipeline import evaluation_batches, training_batches
from repvgg.quantization.calibration import COUNT
from repvgg.quantization.prepare import prepare
from repvgg.quantization.qat import finish_qat, prepare_qat
from repvgg.quantization.schemes import DEFAULT
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner
from repvgg.targets.onnx.qdq import PORTABLE_BITS, export_qdq
from repvgg.training.finish import Outcome, compare, look_at, tell, where_to_start
from repvgg.training.inputs import Source
from repvgg.training.recipe import Recipe
from repvgg.training.state import Progress
from repvgg.training.teacher import in_deploy_form

_CALCULATE_IN = {
    INT8: "8-bit integers, ONNX Runtime",
    BEST: "rounded floats, as trained",
    DEPLOYED: "float32, rounded nowhere",
}

PROOF_IMAGES = 64
"""Validation images on which the INT8 file is compared with rounded floats before it is kept."""


@dataclass(frozen=True)
class QuantizedStart:
    """A trained network that is to be trained on in 8-bit numbers.

    Attributes:
        network: in either form, in float32.
        per_channel: a grid for the weights of each output channel; otherwise one for a layer.
        name: what the run calls it.
        weight_bits: 7 for a file that is right on every processor, 8 for one for processors with VNNI.
    """

    network: Any
    per_channel: bool
    name: str
    weight_bits: int = PORTABLE_BITS

    def describe(self) -> str:
        """What decides the numbers of a run, besides the network."""
        return f"{'per-channel' if self.per_channel else 'per-tensor'} weights of {self.weight_bits} bits"

    def prepare(self, images: np.ndarray) -> Any:
        """The folded network in rounded numbers, as near to itself in float32 as it comes without training.

        Args:
            images: for calibration, (N, H, W, C), prepared.
        """
        levels = Precision(self.weight_bits).weight_levels
        scheme = replace(DEFAULT, per_channel=self.per_channel, weight_levels=levels)
        prepared = prepare(in_deploy_form(self.network), images, scheme)
        model = prepare_qat(prepared, per_channel=self.per_channel, weight_bits=self.weight_bits)
        model.name = self.name
        return model


def quantized_start(path: Path, *, per_channel: bool, processor: str = PORTABLE) -> QuantizedStart:
    """What a run in 8-bit numbers begins with, from a file.

    Args:
        processor: a name of `repvgg.base.processor.PROCESSORS`: which the INT8 file has to be right on.

    Raises:
        FileError: if it cannot be read.
        InputError: if the INT8 file could not be proved on this machine, or there is no such kind of processor.
        MissingDependencyError: without ONNX and its runtime, in which the run would end.
    """
    for module in ("onnx", "onnxruntime"):
        require(module, extra="onnx", purpose="Quantization-aware training, which ends in an ONNX file,")
    portable = get_processor(processor) == PORTABLE
    if not portable and overflows():
        raise InputError(
            "A run ends with its INT8 file compared and measured, and one for processors with VNNI cannot be run here, "
            "where products of 8 bits may overflow: train a portable one (--processor portable), or train on a "
            "processor with VNNI."
        )
    bits = PORTABLE_BITS if portable else 8
    return QuantizedStart(load_checkpoint(path), per_channel, f"{path.stem}-qat", bits)


def calibration_batch(source: Source, recipe: Recipe, crops: Preprocessing, seed: int) -> np.ndarray:
    """Training images, cropped and mirrored as in training but not changed otherwise."""
    pictures = Augmentation(crop_scale=recipe.augmentation.crop_scale, crop_ratio=recipe.augmentation.crop_ratio)
    steps = -(-COUNT // recipe.batch_size)
    batches = training_batches(
        source, crops, pictures, batch_size=recipe.batch_size, seed=seed, first_step=0, last_step=steps
    )
    return np.concatenate([images for images, _ in batches.as_numpy_iterator()])[:COUNT]


def is_quantized(model: Any) -> bool:
    """Whether a model calculates in rounded numbers."""
    return any(isinstance(layer, QUANTIZED) for layer in all_layers(model))


def finish_quantized(
    network: Any,
    validation: Source,
    folder: RunFolder,
    progress: Progress,
    console: Console,
    *,
    teacher: Runner | None = None,
    report: bool = True,
) -> tuple[Any, Outcome]:
    """Writes the deploy form, its scales and the INT8 file, which is run on every validation image, and the report.

    Args:
        report: write the report.
        teacher: the network whose answers were learnt; the table says how often the file gives the same class.

    Raises:
        VerificationError: if the file's answers are not those of the rounded network; it is not kept.
    """
    with working(console, "writing the INT8 file"):
        deployed, scales = finish_qat(network)
        images = next(
            evaluation_batches(
                validation, network.repvgg_metadata.preprocessing, batch_size=min(PROOF_IMAGES, len(validation))
            ).as_numpy_iterator()
        )[0]
        proof = export_qdq(deployed, scales, folder / INT8, images=images, force=True)
    epoch = progress.best_epoch or 0
    rounded, integers = KerasRunner(network, BEST), load_runner(folder / INT8)
    with working(console, "comparing", len(validation), unit="images") as work:
        comparison = compare(rounded, integers, validation, epoch, advance=work.advance)
    set_metadata(deployed, verification=proof.to_dict())
    save_model(deployed, folder / DEPLOYED, force=True)
    folder.write_text(SCALES, scales.to_json() + "\n")
    comparison.draw(folder, progress)
    outcome = comparison.outcome
    runners = {DEPLOYED: KerasRunner(deployed, DEPLOYED), INT8: integers, BEST: rounded}
    before = teacher or runners[DEPLOYED]
    if teacher is not None:
        runners = {f"the teacher, {teacher.name}": teacher, **runners}
    with working(console, "comparing", len(validation), unit="images") as work:
        found = look_at(runners, validation, advance=work.advance)
    with working(console, "writing the report"):
        tell(folder, runners, found, proof, report=report)
    table = Table(
        "file", "calculates in", "accuracy", "top-1 agreement", title=f"After training in 8 bits, epoch {epoch}"
    )
    for file, answers in found.answers.items():
        what = _CALCULATE_IN.get(file, "")
        table.add_row(file, what, f"{answers.top1:.2%}", f"{answers.same} of {outcome.images}")
    console.print(table)
    console.print(
        f"Top-1 agreement: with {before.name}. {INT8} and {BEST}, which are the same numbers, agree on "
        f"{outcome.same_class}.",
        soft_wrap=True,
    )
    console.print(where_to_start(folder, report=report), soft_wrap=True)
    return deployed, outcome
