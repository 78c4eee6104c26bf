"""What a conversion has to pass before anybody gets its result."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from repvgg.base.errors import VerificationError
from repvgg.blocks.layers import ReparameterizableBlock, SinglePath, recorded_inputs
from repvgg.runners.keras import named_outputs, to_numpy
from repvgg.verification import Difference, difference, differences, worst

TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
"""Relative error of a whole network, by the dtype it computes in.

Some hundreds of roundings of each dtype: the two forms add up in different orders, and a deep network carries that on.
"""

BLOCK_TOLERANCE = 1e-4
PROBE_SIDE = 9
"""Pixels a side of a block's own probe: odd, and small enough for the widest blocks."""

Pairs = Sequence[tuple[ReparameterizableBlock, SinglePath]]


def check_conversion(model: Any, deployed: Any, pairs: Pairs, rtol: float | None) -> None:
    """Raises `VerificationError` unless `deployed` answers as the functional `model` does in inference mode, both in
    float32 or wider.

    Each block is compared on its own input too: what is wrong in one may hardly show in the outputs.
    """
    limit = rtol if rtol is not None else TOLERANCES[_compute_dtype(pairs)]
    inputs = _probe_inputs(model)
    with recorded_inputs() as recorded:
        expected = named_outputs(model(inputs, training=False), set())
    received = named_outputs(deployed(inputs, training=False), set())
    found = worst(differences(expected, received).values())
    if not found.relative <= limit:
        raise VerificationError(
            f"The converted model differs from '{model.name}' by {found.relative:.1e} of the largest output (limit "
            f"{limit:.0e}), so it is not handed over. {_told(_worst_block(pairs, recorded))}"
        )
    guilty = _worst_block(pairs, recorded)
    if guilty is not None and not guilty[0].relative <= max(limit, BLOCK_TOLERANCE):
        raise VerificationError(
            f"A block of '{model.name}' differs after conversion, so the model is not handed over. {_told(guilty)}"
        )


def check_block(block: ReparameterizableBlock, path: SinglePath | None = None) -> None:
    """Raises `VerificationError` unless the two forms of one block agree, both calculated in float32 or wider."""
    dtype = "float64" if block.compute_dtype == "float64" else "float32"
    inputs = keras.ops.convert_to_tensor(_block_probe(block), dtype=dtype)
    wide = type(block).from_config({**block.get_config(), "dtype": dtype, "name": f"{block.name}_check"})
    wide.build(inputs.shape)
    wide.set_weights(block.get_weights())
    single = SinglePath.of_block(wide)
    single(inputs)
    if path is None:
        single.copy_weights(block)
    else:
        for suffix, layer in single.layers.items():
            layer.set_weights(path.layers[suffix].get_weights())
    found = difference(to_numpy(wide(inputs, training=False)), to_numpy(single(inputs)))
    if not found.relative <= BLOCK_TOLERANCE:
        raise VerificationError(
            f"The two forms of block '{block.name}' differ by {found.relative:.1e} of the largest output (limit "
            f"{BLOCK_TOLERANCE:.0e})."
        )


def _compute_dtype(pairs: Pairs) -> str:
    """The least precise dtype that a block computes in."""
    dtypes = {str(block.compute_dtype) for block, _ in pairs} or {"float32"}
    return max(dtypes, key=lambda dtype: TOLERANCES[dtype])


def _block_probe(block: ReparameterizableBlock) -> np.ndarray:
    side, channels = PROBE_SIDE, block.in_channels
    shape = (2, side, side, channels) if block.data_format == "channels_last" else (2, channels, side, side)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _probe_inputs(model: Any) -> Any:
    """Two random examples for each input of `model`; sides that may vary are 64 pixels."""
    generator = np.random.default_rng(0)

    def probe(tensor: Any) -> Any:
        shape = [2 if tensor.shape[0] is None else tensor.shape[0], *(size or 64 for size in tensor.shape[1:])]
        if keras.backend.is_float_dtype(tensor.dtype):
            values: np.ndarray = generator.standard_normal(shape)
        else:
            values = generator.integers(0, 2, shape)
        return keras.ops.convert_to_tensor(values, dtype=tensor.dtype)

    return keras.tree.map_structure(probe, model.input)


def _worst_block(pairs: Pairs, recorded: dict[int, np.ndarray]) -> tuple[Difference, str] | None:
    rows: list[tuple[Difference, str]] = []
    for block, path in pairs:
        if id(block) in recorded:
            inputs = keras.ops.convert_to_tensor(recorded[id(block)])
            found = difference(to_numpy(block(inputs, training=False)), to_numpy(path(inputs)))
            rows.append((found, block.name))
    return max(rows, key=lambda row: row[0].relative, default=None)


def _told(guilty: tuple[Difference, str] | None) -> str:
    if guilty is None:
        return "No block could be examined alone."
    found, name = guilty
    if found.relative <= BLOCK_TOLERANCE:
        return (
            f"No block differs on its own input (the worst, '{name}', by {found.relative:.1e}): look at the layers "
            "between them, and at layers that are random in inference."
        )
    return f"The worst block is '{name}': {found.relative:.1e} on its own input."
