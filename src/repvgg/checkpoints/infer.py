"""From the names and shapes of a checkpoint to the architecture they belong to."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from repvgg.base.errors import CheckpointError, InputError
from repvgg.base.metadata import Form
from repvgg.blocks import KINDS
from repvgg.blocks.kind import BlockKind
from repvgg.checkpoints.canonical import (
    AUXILIARY,
    REPARAM,
    Place,
    Shape,
    Shapes,
    block_prefix,
    canonical_shapes,
    place_of,
)
from repvgg.core.architecture import (
    PAPERS_BLOCK,
    STAGES,
    Adaptation,
    Architecture,
    BlockShape,
    BlockSpec,
    SqueezeExcite,
)
from repvgg.models.variants import Variant, as_trained, find_variant

_PREFERRED_REDUCTIONS = (16, 4)
_ATTENTION = re.compile(r"(post_)?se\.down\.weight$")
_WITH_ALL_BRANCHES = BlockShape(8, 8)
"""A block whose output is as large as its input has every branch of its kind."""


@dataclass(frozen=True)
class Inferred:
    """What a checkpoint holds.

    Attributes:
        num_classes: outputs of the classifier, or None if the file has none.
    """

    architecture: Architecture
    form: Form
    in_channels: int
    num_classes: int | None

    @property
    def variant(self) -> Variant | None:
        """The named network it is, or None."""
        return named_variant(self.architecture)

    def adapted(self, adaptation: Adaptation) -> "Inferred":
        """The same weights with other strides, dilation or epsilon, which they do not tell."""
        return replace(self, architecture=replace(self.architecture, adaptation=adaptation))

    def shapes(self) -> dict[str, Shape]:
        """Every tensor that such a checkpoint has."""
        return canonical_shapes(self.architecture, self.form, self.in_channels, self.num_classes)


def named_variant(architecture: Architecture) -> Variant | None:
    """The named network with this architecture; auxiliary classifiers, which come and go, are not asked for."""
    return find_variant(architecture) or find_variant(replace(architecture, auxiliary_heads=True))


def infer(shapes: Shapes, blocks: Collection[str] | None = None) -> Inferred:
    """Reads depths, widths, groups, attention, heads and form from canonical names and PyTorch shapes.

    What is missing or too much is not looked for here: compare with `Inferred.shapes()`.

    Args:
        blocks: the kinds of block that it may consist of; any of `KINDS` if None.

    Raises:
        CheckpointError: if they leave no network to be told.
    """
    places = [place for name in shapes if (place := place_of(name))]
    kind = _kind(places, KINDS if blocks is None else blocks)
    form: Form = "deploy" if kind is None else "training"
    kernels = _Kernels(shapes, f"{REPARAM}.weight" if kind is None else _main_kernel(kind))
    for stage in range(1, STAGES + 1):
        if not any(place.stage == stage for place in places):
            raise CheckpointError(f"It has no blocks of stage {stage}; a RepVGG has four stages. Is it only a part?")
    stem = kernels.required(0, 0)
    auxiliary = any(name.startswith(tuple(f"{head}." for head in AUXILIARY)) for name in shapes)
    try:
        specs = _specs(kernels, places, _attention(shapes, places), kind)
        architecture = Architecture.of_blocks(
            specs, block=PAPERS_BLOCK if kind is None else kind.name, auxiliary_heads=auxiliary
        )
        architecture.blocks(stem[1])
        architecture.auxiliary_taps()
    except InputError as error:
        raise CheckpointError(f"Its shapes make no RepVGG. {error}") from error
    if kind is None:
        architecture = as_trained(architecture, None)
    classifier = shapes.get("linear.weight")
    return Inferred(architecture, form, stem[1], classifier[0] if classifier else None)


def _kind(places: Iterable[Place], blocks: Collection[str]) -> BlockKind | None:
    """The kind of block whose branches have most of these names, or None if there are no branches."""
    names = {place.inner for place in places}
    kinds = [KINDS[name] for name in blocks]
    known = {kind: {parameter.tensor for parameter in kind.parameters(_WITH_ALL_BRANCHES)} for kind in kinds}
    # Of two kinds with as many names in common, the one that has fewer besides.
    best = max(known, key=lambda kind: (len(names & known[kind]), -len(known[kind] - names)))
    return best if names & known[best] else None


def _main_kernel(kind: BlockKind) -> str:
    """The name of the kernel from which the architecture is told: the first one."""
    return next(parameter.tensor for parameter in kind.parameters(_WITH_ALL_BRANCHES) if parameter.role == "kernel")


class _Kernels:
    """The 3x3 kernels, one a block. Single ones may be missing: who compares the names will say which."""

    def __init__(self, shapes: Shapes, inner: str) -> None:
        self.shapes = shapes
        self.inner = inner

    def find(self, stage: int, index: int) -> Shape | None:
        name = block_prefix(stage, index) + self.inner
        shape = self.shapes.get(name)
        if shape is not None and (len(shape) != 4 or 0 in shape):
            raise CheckpointError(f"'{name}' has the shape {shape}; a convolution's kernel has 4 axes, none of them 0.")
        return shape

    def required(self, stage: int, index: int) -> Shape:
        shape = self.find(stage, index)
        if shape is None:
            raise CheckpointError(
                f"It has no '{block_prefix(stage, index)}{self.inner}', from which the architecture would be told."
            )
        return shape


def _specs(
    kernels: _Kernels, places: Collection[Place], attention: SqueezeExcite | None, kind: BlockKind | None
) -> list[BlockSpec]:
    """What each block shows. One whose kernel is missing is taken for one like the last of its stage."""
    attentive = {(place.stage, place.block) for place in places if _ATTENTION.match(place.inner)}
    specs: list[BlockSpec] = []
    for stage in range(STAGES + 1):
        depth = len({place.block for place in places if place.stage == stage})
        found = [kernels.find(stage, index) for index in range(depth)]
        substitute = next((shape for shape in reversed(found) if shape), None) or kernels.required(stage, 0)
        for index, shape in enumerate(found):
            filters, fan, side, _ = shape or substitute
            channels = specs[-1].filters if specs else fan
            specs.append(
                BlockSpec(
                    block_prefix(stage, index).rstrip("."),
                    stage,
                    index,
                    channels,
                    filters,
                    2 if index == 0 else 1,
                    channels // fan if shape and channels % fan == 0 else 1,
                    attention if (stage, index) in attentive else None,
                    side,
                    1 if kind is None else _copies(kind, places, stage, index),
                )
            )
    return specs


def _copies(kind: BlockKind, places: Collection[Place], stage: int, index: int) -> int:
    """How many copies of the main branch a block has."""
    if not kind.has_copies:
        return 1
    names = {place.inner for place in places if (place.stage, place.block) == (stage, index)}
    count = 1
    while {parameter.tensor for parameter in kind.parameters(replace(_WITH_ALL_BRANCHES, copies=count + 1))} - {
        parameter.tensor for parameter in kind.parameters(replace(_WITH_ALL_BRANCHES, copies=count))
    } <= names:
        count += 1
    return count


def _attention(shapes: Shapes, places: Iterable[Place]) -> SqueezeExcite | None:
    """Told from the widths of all squeezed vectors: one alone leaves several reductions possible."""
    down = {place for place in places if _ATTENTION.match(place.inner)}
    if not down:
        return None
    lowest, highest = 1, 2**31
    for stage, index, inner in down:
        shape = shapes[block_prefix(stage, index) + inner]
        if len(shape) != 4 or 0 in shape:
            raise CheckpointError(f"'{block_prefix(stage, index)}{inner}' has the shape {shape}; 4 axes were expected.")
        hidden, channels = shape[:2]
        lowest = max(lowest, channels // (hidden + 1) + 1)
        # `SqueezeExcite.hidden` is never 0, so a single one fits every larger reduction.
        highest = highest if hidden == 1 else min(highest, channels // hidden)
    fitting = [reduction for reduction in _PREFERRED_REDUCTIONS if lowest <= reduction <= highest]
    reduction = fitting[0] if fitting else lowest
    late = all(place.inner.startswith("se.") for place in down)
    return SqueezeExcite("before_activation" if late else "after_activation", reduction)
