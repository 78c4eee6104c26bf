"""Whether what was written is the network: loaded by its own runtime, and compared."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from repvgg.base.errors import VerificationError
from repvgg.base.metadata import Preprocessing
from repvgg.models.layers import all_layers
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner, images_for
from repvgg.targets import Target
from repvgg.targets.network import scale_and_shift
from repvgg.targets.object.run import ObjectRunner
from repvgg.targets.operations import FLOAT16, in_float16
from repvgg.verification import TOLERANCES, VerificationReport, verify

NORMALIZATIONS = (keras.layers.BatchNormalization, keras.layers.Normalization, keras.layers.Rescaling)


def proved(deployed: Any, path: Path, target: Target, precision: str, images: Any = None) -> VerificationReport:
    """Compares an artifact with its network on probe inputs, and on the caller's images if there are any.

    One in float16 is compared twice: with the network whose weights are rounded in the same way, which it has to equal
    as closely as one in float32 does, and with the network as it is, from which it may be as far as rounding takes it.

    Returns:
        The comparison with the network as it is.

    Raises:
        VerificationError: if it differs.
    """
    runner = ObjectRunner.load(path) if target.machine_code else load_runner(path)
    if images is not None and runner.takes_uint8:
        images = images_for(runner, images)
    # A runtime may fold a normalization into its neighbours before it rounds, so there is nothing to be equal to.
    foldable = any(isinstance(layer, NORMALIZATIONS) for layer in all_layers(deployed))
    if precision == FLOAT16 and not foldable:
        _prove_rounded(deployed, runner, images)
    return _kept(KerasRunner(deployed), runner, TOLERANCES[precision], images)


def compared(deployed: Any, path: Path, images: Any = None) -> VerificationReport:
    """How far an INT8 artifact is from its network; whether it is good enough was decided by its answers before.

    Loading it from the file it was written to is part of the proof.
    """
    return verify(KerasRunner(deployed), load_runner(path), images, rtol=math.inf)


def _prove_rounded(deployed: Any, runner: Runner, images: Any) -> None:
    rounded = keras.models.clone_model(deployed)
    rounded.set_weights([in_float16(weight) for weight in deployed.get_weights()])
    metadata = runner.metadata
    try:
        if runner.takes_uint8:
            runner.metadata = replace(metadata, preprocessing=_rounded_preprocessing(metadata.preprocessing))
        reference = KerasRunner(rounded, f"{deployed.name} (weights in float16)")
        _kept(reference, runner, TOLERANCES["float32"], images)
    finally:
        runner.metadata = metadata


def _rounded_preprocessing(preprocessing: Preprocessing | None) -> Preprocessing | None:
    """What a normalization with constants in float16 amounts to."""
    if preprocessing is None:
        return None
    scale, shift = (part.astype(float) for part in scale_and_shift(preprocessing, FLOAT16))
    std = 1 / (255 * scale)
    return replace(preprocessing, mean=tuple(-shift * std), std=tuple(std))


def _kept(reference: Runner, runner: Runner, rtol: float, images: Any) -> VerificationReport:
    reports = [verify(reference, runner, rtol=rtol)]
    if images is not None:
        reports.append(verify(reference, runner, images, rtol=rtol))
    report = max(reports, key=lambda report: report.max_relative_error)
    if not report.passed:
        raise VerificationError(f"'{runner.name}' was not kept: {report.summary()}")
    return report
