"""The names and shapes a RepVGG checkpoint has, as data: no Keras here.

Canonical names are those of the official repository's `repvgg.py`, for every network; in the branches of other kinds of
block, those that the kind gives. Shapes are PyTorch's: kernels (out, in / groups, height, width), linear layers
(out, in).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from repvgg.base.metadata import Form
from repvgg.blocks import KINDS
from repvgg.blocks.kind import BlockKind, Parameter
from repvgg.core.architecture import Architecture, BlockShape, BlockSpec

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

CLASSIFIER: Final = "linear"
AUXILIARY: Final = ("stage1_aux", "stage2_aux", "stage3_first_aux")
HEADS: Final = (CLASSIFIER, *(f"{head}.{part}" for head in AUXILIARY for part in ("0.conv", "0.bn", "3")))
"""Modules outside the blocks: the classifier, and RepVGGplus's auxiliary ones (convolution, its norm, linear layer)."""

PARTS: Final = (
    "se.down",
    "se.up",
    "post_se.down",
    "post_se.up",
    "rbr_identity",
    "rbr_dense.conv",
    "rbr_dense.bn",
    "rbr_1x1.conv",
    "rbr_1x1.bn",
    "rbr_reparam",
)
"""Modules inside the paper's block. `se` is attention before the activation, `post_se` after it."""

REPARAM: Final = "rbr_reparam"
"""The one convolution of a block in deploy form, of whatever kind it was."""

_NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")
_COUNTER = "num_batches_tracked"
_BLOCK_NAME = re.compile(r"stage(?:0|([1-4])\.(\d{1,4}))\.(.+)")


class Place(NamedTuple):
    """A tensor's place in a block: its stage (0: the stem), the block's number there, and the name inside the block."""

    stage: int
    block: int
    inner: str


def place_of(name: str) -> Place | None:
    """Where the tensor called `name` sits; None outside the blocks."""
    match = _BLOCK_NAME.fullmatch(name)
    if match is None:
        return None
    stage, index, inner = match.groups()
    return Place(int(stage or 0), int(index or 0), inner)


def block_prefix(stage: int, index: int) -> str:
    """What the names of a block's tensors begin with."""
    return "stage0." if stage == 0 else f"stage{stage}.{index}."


def canonical_shapes(
    architecture: Architecture, form: Form, in_channels: int = 3, num_classes: int | None = 1000
) -> dict[str, Shape]:
    """Every tensor of a network's state dict but the batch counters, in PyTorch's order.

    Auxiliary classifiers exist in training form only, and no head at all where `num_classes` is None.
    """
    shapes: dict[str, Shape] = {}
    for spec in architecture.blocks(in_channels):
        shapes.update(_block_shapes(spec, KINDS[architecture.block], form))
    if num_classes is None:
        return shapes
    shapes.update(_linear(CLASSIFIER, num_classes, architecture.stage_widths[-1]))
    if architecture.auxiliary_heads and form == "training":
        for head, stage in zip(AUXILIARY, (1, 2, 3), strict=True):
            width = architecture.stage_widths[stage - 1]
            shapes[f"{head}.0.conv.weight"] = (width, width, 3, 3)
            shapes.update(_norm(f"{head}.0.bn", width))
            shapes.update(_linear(f"{head}.3", num_classes, width))
    return shapes


def _block_shapes(spec: BlockSpec, kind: BlockKind, form: Form) -> Iterator[tuple[str, Shape]]:
    prefix = block_prefix(spec.stage, spec.index)
    width, fan = spec.filters, spec.in_channels // spec.groups
    attention = spec.squeeze_excite
    if attention is not None:
        name = prefix + ("se" if attention.position == "before_activation" else "post_se")
        hidden = attention.hidden(width)
        yield f"{name}.down.weight", (hidden, width, 1, 1)
        yield f"{name}.down.bias", (hidden,)
        yield f"{name}.up.weight", (width, hidden, 1, 1)
        yield f"{name}.up.bias", (width,)
    if form == "deploy":
        yield f"{prefix}{REPARAM}.weight", (width, fan, *spec.shape.kernel_size)
        yield f"{prefix}{REPARAM}.bias", (width,)
        return
    for parameter in torch_ordered(kind, spec.shape):
        yield prefix + parameter.tensor, parameter.torch_shape


def torch_ordered(kind: BlockKind, shape: BlockShape) -> list[Parameter]:
    """The parameters of a block in the order of PyTorch's modules: those of the input itself are registered first."""
    return sorted(kind.parameters(shape), key=lambda parameter: not parameter.path.startswith("identity."))


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    for leaf in _NORM_LEAVES:
        yield f"{name}.{leaf}", (width,)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def counter_after(name: str) -> str | None:
    """The batch counter that PyTorch keeps after the tensor called `name`, if it is a norm's last one."""
    module, _, leaf = name.rpartition(".")
    return f"{module}.{_COUNTER}" if leaf == _NORM_LEAVES[-1] else None


def is_statistic(name: str) -> bool:
    """Whether the tensor called `name` is measured in training and not learned."""
    return name.endswith((".running_mean", ".running_var"))


def of_linear_layer(name: str) -> bool:
    """Whether the tensor called `name` has one row, or one value, for each class."""
    module = name.rpartition(".")[0]
    return module == CLASSIFIER or module in {f"{head}.3" for head in AUXILIARY}
