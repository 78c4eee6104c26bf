"""Parameters, multiplications and receptive fields, counted from the architecture alone.

Counting rule (the one behind the published figures): multiply-accumulates of convolutions and of the classifier;
batch normalization, bias, activation and pooling are not counted. "Winograd multiplications" take every dense or
grouped 3x3 convolution of stride 1 as F(2x2, 3x3), which needs 16 multiplications where the plain form needs 36 (paper,
section 2.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from repvgg.base.errors import UnknownNameError
from repvgg.blocks import KINDS
from repvgg.blocks.kind import BlockKind
from repvgg.core.architecture import Architecture, BlockSpec

WINOGRAD_SHARE = 4 / 9


@dataclass(frozen=True)
class BlockCost:
    """What one block costs, at one image size."""

    spec: BlockSpec
    branches: int
    output_size: tuple[int, int]
    train_parameters: int
    deploy_parameters: int
    train_macs: int
    deploy_macs: int
    winograd_multiplications: float
    receptive_field: int


@dataclass(frozen=True)
class Cost:
    """What a network costs for one image; parameters are trainable ones."""

    blocks: tuple[BlockCost, ...]
    train_parameters: int
    deploy_parameters: int
    train_macs: int
    deploy_macs: int
    winograd_multiplications: float

    @property
    def receptive_field(self) -> int:
        """Side, in pixels, of the square of the image that one value of the last feature map sees."""
        return self.blocks[-1].receptive_field

    @property
    def has_branches(self) -> bool:
        """Whether any block is more than one convolution in training."""
        return any(block.branches > 1 for block in self.blocks)


def alike(blocks: Sequence[BlockCost]) -> list[list[BlockCost]]:
    """Neighbours that differ in nothing but their place, together: how tables of long networks stay short."""
    runs: list[list[BlockCost]] = []
    for block in blocks:
        if runs and _looks(runs[-1][-1]) == _looks(block):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _looks(block: BlockCost) -> tuple[object, ...]:
    spec = block.spec
    return spec.stage, spec.in_channels, spec.filters, spec.strides, spec.dilation, spec.groups, spec.kernel_size


def label_of(run: Sequence[BlockCost]) -> str:
    """Names of blocks that are alike: 'stage3_block1-13'."""
    first, last = run[0].spec, run[-1].spec
    return first.name if first is last else f"{first.name}-{last.index}"


def _squeeze_excite_weights(spec: BlockSpec) -> int:
    if spec.squeeze_excite is None:
        return 0
    return 2 * spec.filters * spec.squeeze_excite.hidden(spec.filters)


def _block_cost(
    spec: BlockSpec, kind: BlockKind, input_size: tuple[int, int], size: tuple[int, int], receptive_field: int
) -> BlockCost:
    attention = _squeeze_excite_weights(spec)
    attention_parameters = (
        attention + spec.filters + spec.squeeze_excite.hidden(spec.filters) if spec.squeeze_excite else 0
    )
    inputs, pixels = input_size[0] * input_size[1], size[0] * size[1]
    parameters = list(kind.parameters(spec.shape))
    dense = spec.kernel_size**2 * spec.in_channels // spec.groups * spec.filters
    depthwise = spec.groups == spec.in_channels > 1
    by_winograd = spec.strides == 1 and spec.kernel_size == 3 and not depthwise
    return BlockCost(
        spec=spec,
        branches=sum(1 for _ in kind.branches(spec.shape)),
        output_size=size,
        train_parameters=sum(one.size for one in parameters if one.role != "statistic") + attention_parameters,
        deploy_parameters=dense + spec.filters + attention_parameters,
        train_macs=attention
        + sum(one.size * (inputs if one.before_stride else pixels) for one in parameters if one.role == "kernel"),
        deploy_macs=dense * pixels + attention,
        winograd_multiplications=dense * pixels * (WINOGRAD_SHARE if by_winograd else 1) + attention,
        receptive_field=receptive_field,
    )


def count_cost(
    architecture: Architecture, num_classes: int | None, image_size: tuple[int, int], in_channels: int = 3
) -> Cost:
    """Counts parameters and multiplications of `architecture`.

    Args:
        num_classes: outputs of the classifier; None counts the feature extractor alone.
        image_size: height and width in pixels.
        in_channels: channels of the image.

    Raises:
        UnknownNameError: for a kind of block that is not in `repvgg.blocks.KINDS`.
    """
    if architecture.block not in KINDS:
        raise UnknownNameError("kind of block", architecture.block, KINDS)
    kind = KINDS[architecture.block]
    height, width = image_size
    receptive_field, jump = 1, 1
    blocks: list[BlockCost] = []
    for spec in architecture.blocks(in_channels):
        before = height, width
        height, width = -(-height // spec.strides), -(-width // spec.strides)
        receptive_field += (spec.kernel_size - 1) * jump * spec.dilation
        jump *= spec.strides
        blocks.append(_block_cost(spec, kind, before, (height, width), receptive_field))

    features = blocks[-1].spec.filters
    head_macs = features * num_classes if num_classes is not None else 0
    head = head_macs + (num_classes or 0)
    auxiliary_parameters = auxiliary_macs = 0
    if num_classes is not None:
        by_name = {block.spec.name: block for block in blocks}
        for tap in architecture.auxiliary_taps().values():
            source = by_name[tap]
            channels = source.spec.filters
            pixels = -(-source.output_size[0] // 2) * -(-source.output_size[1] // 2)
            auxiliary_parameters += 9 * channels**2 + 2 * channels + (channels + 1) * num_classes
            auxiliary_macs += 9 * channels**2 * pixels + channels * num_classes
    return Cost(
        blocks=tuple(blocks),
        train_parameters=sum(block.train_parameters for block in blocks) + head + auxiliary_parameters,
        deploy_parameters=sum(block.deploy_parameters for block in blocks) + head,
        train_macs=sum(block.train_macs for block in blocks) + head_macs + auxiliary_macs,
        deploy_macs=sum(block.deploy_macs for block in blocks) + head_macs,
        winograd_multiplications=sum(block.winograd_multiplications for block in blocks) + head_macs,
    )
