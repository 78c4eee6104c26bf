"""Running two networks on the same images and reporting how far they are apart."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.runners import as_runner
from repvgg.runners.classifier import filled_up, log_softmax
from repvgg.runners.recorded import RecordedRunner
from repvgg.runners.runner import Runner, check_images, images_for, logits_of
from repvgg.verification.compare import Difference, difference, differences, top1_matches, worst
from repvgg.verification.probes import probe_images
from repvgg.verification.report import BlockRow, VerificationReport

TOLERANCES: Mapping[str, float] = {
    # 800 roundings of float32: what a different order of summation in a deep network can cause, and far below any
    # mistake in folding or padding.
    "float32": 1e-4,
    # Each weight is rounded to 11 bits, by up to 4.9e-4 of itself, and calculated with in float32. Roundings are as
    # often up as down: the networks of the table are off by 1e-4 to 1e-3 (benchmarks/export_all.py).
    "float16": 5e-3,
}
"""Relative error up to which two forms agree, by the precision in which weights are stored."""

BATCH = 32
LEAST = float(np.log(np.finfo(np.float32).tiny))
"""Logarithm of the least probability that an artifact can give: -87.3."""

BLOCK_IMAGES = 4
"""Block rows need few images, and the inputs of all blocks are held in memory."""


def verify(reference: Any, candidate: Any, images: Any = None, rtol: float | None = None) -> VerificationReport:
    """Compares two forms of one network.

    Both run in inference mode, whatever mode or form they are in. A network that normalizes pixels itself gets pixels;
    probabilities are compared by their logarithms, because they can agree where the logits do not.

    Args:
        reference, candidate: each a `keras.Model`, a path to a file, a callable from images to logits, or a `Runner`.
        images: preprocessed images (N, H, W, C), or pixels in uint8 where one of the two takes these; probe inputs of
            an even and an odd size if None.
        rtol: relative error up to which the candidate passes. If None that of the coarser of the precisions in which
            the two are stored: 1e-4, or 5e-3 for an artifact in float16 (`TOLERANCES`).

    Raises:
        InputError: if the two cannot be run on the same images.

    Example:
        >>> report = verify(model, reparameterize(model))
        >>> report.passed, report.max_relative_error
        (True, 1.3e-06)
    """
    first, second = as_runner(reference, name="reference"), as_runner(candidate, name="candidate")
    batches = (
        probe_images(first, second)
        if images is None
        else [check_images(check_images(_as_images(images, first, second), first), second)]
    )
    limit = max(_tolerance(first), _tolerance(second)) if rtol is None else rtol
    preprocessing = _pixels_normalized_by(first, second)
    probabilities = first.gives_probabilities or second.gives_probabilities
    found: dict[str, Difference] = {}
    matches, count, classifies = 0, 0, True
    for batch in _split(batches, min(first.batch_size or BATCH, second.batch_size or BATCH)):
        expected, received = (
            _outputs(side, images_for(side, batch, preprocessing), probabilities) for side in (first, second)
        )
        for name, one in differences(expected, received).items():
            found[name] = one.joined(found[name]) if name in found else one
        count += len(batch)
        logits = next(iter(expected.values()))
        classifies = classifies and len(expected) == 1 and logits.ndim == 2
        if classifies:
            matches += top1_matches(logits, next(iter(received.values())))
    largest = worst(found.values())
    return VerificationReport(
        reference=first.name,
        candidate=second.name,
        max_relative_error=largest.relative,
        max_absolute_error=largest.absolute,
        top1_agreement=matches / count if classifies else None,
        rtol=limit,
        images=count,
        image_shapes=tuple(batch.shape for batch in batches),
        blocks=_block_rows(first, second, images_for(first, batches[0][:BLOCK_IMAGES], preprocessing)),
    )


def verify_logits(network: Any, images: Any, logits: Any, rtol: float | None = None) -> VerificationReport:
    """Compares a network with logits that another program gave for a few images.

    That is how to see whether a checkpoint was loaded as what it is: strides, dilation and epsilon are not in it.

    Args:
        network: as for `verify`.
        images: as the other program got them, (N, H, W, C).
        logits: what it gave, (N, classes).
        rtol: as for `verify`.

    Raises:
        InputError: if images or logits do not fit each other or the network.

    Example:
        >>> verify_logits(model, images, logits).passed
        True
    """
    recorded = RecordedRunner(np.asarray(images), np.asarray(logits))
    return verify(recorded, network, recorded.images, rtol)


def _tolerance(side: Runner) -> float:
    # An INT8 artifact is judged by its classes (`repvgg.evaluate`); its numbers are compared as those of any other.
    return TOLERANCES.get(side.metadata.precision, TOLERANCES["float32"])


def _pixels_normalized_by(first: Runner, second: Runner) -> Preprocessing | None:
    """How the side that takes pixels normalizes them, for the other side to get the same."""
    for side in (first, second):
        if side.takes_uint8 and side.metadata.preprocessing is not None:
            return side.metadata.preprocessing
        if side.takes_uint8 and not (first.takes_uint8 and second.takes_uint8):
            raise InputError(
                f"'{side.name}' takes pixels in uint8 and does not say how it normalizes them, so the other network "
                "cannot be given the same images."
            )
    return None


def _outputs(side: Runner, images: np.ndarray, probabilities: bool) -> Mapping[str, np.ndarray]:
    outputs = {name: values[: len(images)] for name, values in side.outputs(filled_up(side, images)).items()}
    if not probabilities:
        return outputs
    # Below the smallest float32 a probability is 0, and the logarithm of the other side's must not go on from there.
    return {name: np.maximum(log_softmax(logits_of(side, values)), LEAST) for name, values in outputs.items()}


def _as_images(images: Any, first: Runner, second: Runner) -> np.ndarray:
    array = np.asarray(images)
    if not (array.dtype == np.uint8 and (first.takes_uint8 or second.takes_uint8)):
        array = array.astype(np.float32, copy=False)
    if array.ndim != 4 or len(array) == 0:
        raise InputError(f"`images` must be a non-empty batch (N, H, W, C). Received an array of shape {array.shape}.")
    return array


def _split(batches: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    for batch in batches:
        for start in range(0, len(batch), size):
            yield batch[start : start + size]


def _block_rows(reference: Runner, candidate: Runner, images: np.ndarray) -> tuple[BlockRow, ...]:
    common = [name for name in reference.blocks() if name in set(candidate.blocks())]
    if not common:
        return ()
    inputs = reference.block_inputs(images) or candidate.block_inputs(images)
    rows = []
    for name in common:
        if name not in inputs:
            continue
        found = difference(reference.run_block(name, inputs[name]), candidate.run_block(name, inputs[name]))
        rows.append(BlockRow(name, found.relative, found.absolute))
    return tuple(rows)
