"""The scales of RepOptimizer: read from a search network or a file, kept, and fitted to blocks.

A file has a tensor for each factor and no other, under the authors' names where the blocks are called as this package
calls them: `stage1.0.scale_conv.weight`. Keras is not imported to read one, unless it is a Keras file.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from repvgg.base.errors import CheckpointError, InputError
from repvgg.base.files import atomic_output, refuse_existing, require_file
from repvgg.base.run_folder import LAST, OPTIMIZER_SCALES, RunFolder
from repvgg.blocks import KINDS
from repvgg.blocks.csla import scale_parameters
from repvgg.blocks.kind import BlockKind
from repvgg.checkpoints.canonical import block_prefix, place_of
from repvgg.checkpoints.dialects.repopt import REPOPT
from repvgg.checkpoints.tensor_files import TensorFile, read_tensors
from repvgg.core.architecture import Architecture, BlockShape

_ABOUT: Final = "repvgg_scales"
_SHOWN: Final = 4


@dataclass(frozen=True)
class Scales:
    """Factors by block and by name, (channels,) each, such as `blocks["stage1_block0"]["scale_conv"]`.

    Attributes:
        blocks: by the name of the block's layer.
        source: where they come from, in words.
    """

    blocks: Mapping[str, Mapping[str, np.ndarray]] = field(hash=False)
    source: str

    def digest(self) -> str:
        """Eight characters that other numbers would not give."""
        value = 0
        for name, array in sorted(self._tensors().items()):
            value = zlib.crc32(np.asarray(array, np.float32).tobytes(), zlib.crc32(name.encode(), value))
        return f"{value:08x}"

    def _tensors(self) -> dict[str, np.ndarray]:
        names = {f"{block}.{name}": array for block, one in self.blocks.items() for name, array in one.items()}
        return {f"{_file_name(name)}.weight": array for name, array in names.items()}


def searched_kinds() -> dict[str, str]:
    """The kinds of block that scales are searched with, and the plain ones that are trained by them."""
    return {kind.trained_as.name: kind.name for kind in KINDS.values() if kind.trained_as is not None}


def load_scales(path: str | Path) -> Scales:
    """Scales from a file.

    Args:
        path: what a run wrote (`scales.safetensors`, or the run's folder), the authors' `RepOpt-VGG-B1-scales.pth`, or
            a search network as a checkpoint or a `.keras` file, whose other weights are left.

    Raises:
        FileError: if there is no such file, it cannot be read, or holds no scales.

    Example:
        >>> load_scales("RepOpt-VGG-B1-scales.pth").blocks["stage0"]["scale_conv"].shape  # doctest: +SKIP
        (64,)
    """
    path = Path(path)
    if path.is_dir():
        if not RunFolder(path).started:
            raise CheckpointError(f"'{path}' is a folder without a run in it, and a file of scales was expected.")
        path = next((one for one in (path / OPTIMIZER_SCALES, path / LAST) if one.exists()), path / OPTIMIZER_SCALES)
    require_file(path, what="file of scales")
    if path.suffix == ".keras":
        from repvgg.models.saving import load_model

        return scales_of(load_model(path), source=path.name)
    file = read_tensors(path)
    blocks = _blocks(file)
    if not blocks:
        raise CheckpointError(
            f"There are no scales in '{path}'. They are in the checkpoint of a search network (names such as "
            "stage1.0.scale_conv.weight), and not in that of the network they are for."
        )
    about = json.loads(file.metadata.get(_ABOUT, "{}"))
    return Scales(blocks, about.get("source", path.name))


def save_scales(scales: Scales, path: str | Path, *, force: bool = False) -> Path:
    """Writes scales as a safetensors file, which says where they come from.

    Raises:
        InputError: if the suffix is another.
        OutputExistsError: if the file exists and `force` is not set.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"Scales are saved as .safetensors. Received: '{path.name}'.")
    refuse_existing(path, force=force)
    tensors = {name: np.asarray(array, np.float32, order="C") for name, array in scales._tensors().items()}
    with atomic_output(path) as temporary:
        save_file(tensors, temporary, {_ABOUT: json.dumps({"source": scales.source})})
    return path


def scales_of(model: Any, source: str | None = None) -> Scales:
    """The scales of a search network.

    Raises:
        CheckpointError: if it has none.
    """
    from repvgg.blocks.branches import float64_of

    found: dict[str, dict[str, np.ndarray]] = {}
    for block in search_blocks(model):
        parameters = scale_parameters(block.kind, block.shape)
        found[block.name] = {_short(one.tensor): float64_of(block.variable(one.path)) for one in parameters}
    if not found:
        raise CheckpointError(
            f"'{model.name}' has no scales: it is made of no block that they are searched with "
            f"({', '.join(searched_kinds())}) in its training form."
        )
    return Scales(found, source or model.name)


def search_blocks(model: Any) -> list[Any]:
    """The blocks of a model that scales are searched with."""
    kinds = searched_kinds()
    return [block for block in _training_blocks(model) if block.kind.name in kinds]


def plain_blocks(model: Any) -> dict[str, Any]:
    """The blocks of a model that are trained as sums, by name.

    Raises:
        InputError: if two of them have the same name.
    """
    blocks = [block for block in _training_blocks(model) if block.kind.trained_as is not None]
    named = {block.name: block for block in blocks}
    if len(named) < len(blocks):
        raise InputError(f"'{model.name}' has blocks of the same name, and scales know blocks by their names.")
    return named


def scaled_blocks(model: Any, scales: Scales) -> list[tuple[Any, dict[str, np.ndarray]]]:
    """Each plain block of a network with its factors by path.

    Raises:
        InputError: if the scales are another network's; the message says what differs.
    """
    blocks = plain_blocks(model)
    wanted = {name: (block.kind.trained_as, block.shape) for name, block in blocks.items()}
    return [(blocks[name], factors) for name, factors in _matched(wanted, scales, model.name).items()]


def require_fitting(scales: Scales, architecture: Architecture, name: str, in_channels: int = 3) -> None:
    """Makes sure that scales are a network's, before there is one.

    Raises:
        InputError: if they are another's; the message says what differs.
    """
    kind = KINDS[architecture.block].trained_as
    specs = architecture.blocks(in_channels) if kind is not None else ()
    _matched({spec.name: (kind, spec.shape) for spec in specs if kind is not None}, scales, name)


def _matched(
    wanted: Mapping[str, tuple[BlockKind, BlockShape]], scales: Scales, network: str
) -> dict[str, dict[str, np.ndarray]]:
    if not wanted:
        raise InputError(
            f"'{network}' has no blocks that are trained by scales, which are {', '.join(searched_kinds().values())}s. "
            "Leave the scales out, or train a RepOpt-VGG."
        )
    missing, other, left = [], [], []
    result: dict[str, dict[str, np.ndarray]] = {}
    for block, (kind, shape) in wanted.items():
        result[block] = {}
        given = dict(scales.blocks.get(block, {}))
        for parameter in scale_parameters(kind, shape):
            array = given.pop(_short(parameter.tensor), None)
            label = f"{block}.{_short(parameter.tensor)}"
            if array is None:
                missing.append(label)
            elif array.shape != parameter.shape:
                other.append(f"{label} ({array.shape[0]} channels, {parameter.shape[0]} wanted)")
            else:
                result[block][parameter.path] = np.asarray(array, np.float64)
        left += [f"{block}.{name}" for name in given]
    left += [f"{block}.{name}" for block in scales.blocks if block not in wanted for name in scales.blocks[block]]
    told = [
        f"{what}: {', '.join(names[:_SHOWN])}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}"
        for what, names in (("missing", missing), ("of other widths", other), ("without a place", left))
        if names
    ]
    if told:
        raise InputError(
            f"The scales ({scales.source}) are not those of '{network}': {'; '.join(told)}. Scales are searched with a "
            "network of the same depths and widths."
        )
    return result


def _training_blocks(model: Any) -> Iterator[Any]:
    from repvgg.blocks.layers import ReparameterizableBlock
    from repvgg.models.layers import all_layers

    return (layer for layer in all_layers(model) if isinstance(layer, ReparameterizableBlock) and not layer.deploy)


def _blocks(file: TensorFile) -> dict[str, dict[str, np.ndarray]]:
    names = {_short(one.tensor) for kind in searched_kinds() for one in scale_parameters(KINDS[kind], BlockShape(1, 1))}
    canonical = REPOPT.to_canonical(file.tensors)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in file.tensors.items():
        place = place_of(canonical.get(name, ""))
        if place is None:
            block, _, factor = name.removesuffix(".weight").rpartition(".")
        else:
            block = f"stage{place.stage}_block{place.block}" if place.stage else "stage0"
            factor = _short(place.inner)
        if factor in names and name.endswith(".weight") and array.ndim == 1:
            found.setdefault(block, {})[factor] = np.array(array, np.float64)
    return found


def _file_name(name: str) -> str:
    """The authors' name of a block's factor, where the block is called as this package calls it."""
    block, _, factor = name.rpartition(".")
    stage, _, index = block.removeprefix("stage").partition("_block")
    if block == "stage0" or (block.startswith("stage") and stage in "1234" and index.isdigit()):
        return f"{block_prefix(int(stage), int(index or 0))}{factor}"
    return name


def _short(tensor: str) -> str:
    return tensor.removesuffix(".weight")
