"""What a RepVGG network is made of, as plain data: no Keras here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, Self

from repvgg.base.errors import InputError

STAGES = 4
BASE_WIDTHS = (64, 128, 256, 512)
"""Channels of stages 1 to 4 at width multiplier 1 (paper, table 2)."""

PAPERS_BLOCK = "RepVGGBlock"
"""The kind of block where none is named, and the one that stands for all of them once they are converted."""

EPSILON = 1e-5
"""Of every batch normalization: PyTorch's default, and the published networks'."""

OUTPUT_STRIDES = (8, 16, 32)

SqueezeExcitePosition = Literal["before_activation", "after_activation"]


@dataclass(frozen=True)
class SqueezeExcite:
    """Channel attention of a block: before the ReLU (RepVGG-D2se) or after it (RepVGGplus)."""

    position: SqueezeExcitePosition
    reduction: int

    def __post_init__(self) -> None:
        if self.position not in ("before_activation", "after_activation"):
            raise InputError(
                f"`position` of squeeze-and-excitation is 'before_activation' or 'after_activation'. Received: "
                f"{self.position!r}."
            )
        if self.reduction < 1:
            raise InputError(f"`reduction` of squeeze-and-excitation must be at least 1. Received: {self.reduction}.")

    def hidden(self, channels: int) -> int:
        """Width of the squeezed vector."""
        return max(1, channels // self.reduction)


@dataclass(frozen=True)
class BlockShape:
    """The one convolution that a block is in the end, and how many copies of its main branch lead to it."""

    in_channels: int
    filters: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: int = 1
    groups: int = 1
    dilation_rate: int = 1
    copies: int = 1
    takes_input: bool = True

    @property
    def keeps_shape(self) -> bool:
        """Whether the input itself can be a branch: the output is as large, and `takes_input` does not forbid it."""
        return self.takes_input and self.strides == 1 and self.in_channels == self.filters


@dataclass(frozen=True)
class Adaptation:
    """What a network may do otherwise with the same weights: no tensor, and so no state dict, tells.

    Args:
        stem_strides: 2, or 1 for small images.
        output_stride: 8, 16 or 32: how many times smaller than the image the features become at most. A stage that
            would go beyond keeps its size: its first block has stride 1, and its 3x3 kernels are dilated, each such
            stage twice as much as the one before. 1x1 and identity branches need no dilation, and no branch is added.
        dilate_first: whether the first block of such a stage is dilated as the rest of it is, as in the official
            repository's PSPNet (3x3 kernels with dilation 2 in all of stage 3, 4 in all of stage 4 at an output stride
            of 8). False leaves it with the dilation of the stage before, as torchvision and timm have it.
        epsilon: of every batch normalization.

    Raises:
        InputError: for values that make no network.
    """

    stem_strides: int = 2
    output_stride: int = 32
    dilate_first: bool = True
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if self.stem_strides not in (1, 2):
            raise InputError(f"`stem_strides` is 1 or 2. Received: {self.stem_strides!r}.")
        if self.output_stride not in OUTPUT_STRIDES:
            known = ", ".join(map(str, OUTPUT_STRIDES))
            raise InputError(f"`output_stride` is one of {known}. Received: {self.output_stride!r}.")
        if not 0 < self.epsilon < 1:
            raise InputError(f"`epsilon` is above 0 and below 1, such as {EPSILON}. Received: {self.epsilon!r}.")

    def changed(
        self,
        stem_strides: int | None = None,
        output_stride: int | None = None,
        dilate_first: bool | None = None,
        epsilon: float | None = None,
    ) -> "Adaptation":
        """The same but for what is not None."""
        given: dict[str, Any] = {
            "stem_strides": stem_strides,
            "output_stride": output_stride,
            "dilate_first": dilate_first,
            "epsilon": epsilon,
        }
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def unsaid(self) -> str:
        """Strides and dilation that are not the published ones, in words; nothing if they are."""
        words = [
            f"{name}={getattr(self, name)}"
            for name in ("stem_strides", "output_stride")
            if getattr(self, name) != getattr(PUBLISHED, name)
        ]
        return ", ".join([*words, *([] if self.dilate_first or not words else ["dilate_first=False"])])


PUBLISHED = Adaptation()
"""The published networks: the stem and all four stages halve the image."""


@dataclass(frozen=True)
class BlockSpec:
    """One block in its place: the stem (stage 0) or the `index`-th block of a stage.

    Attributes:
        dilation: spacing of the kernel.
        keeps_size: its stride was taken away, which adds no identity branch: the weights are those of the strided one.
    """

    name: str
    stage: int
    index: int
    in_channels: int
    filters: int
    strides: int
    groups: int
    squeeze_excite: SqueezeExcite | None
    kernel_size: int = 3
    copies: int = 1
    dilation: int = 1
    keeps_size: bool = False

    @property
    def shape(self) -> BlockShape:
        """What its branches follow from."""
        sides = (self.kernel_size, self.kernel_size)
        return BlockShape(
            self.in_channels,
            self.filters,
            sides,
            self.strides,
            self.groups,
            self.dilation,
            self.copies,
            takes_input=not self.keeps_size,
        )


@dataclass(frozen=True)
class Architecture:
    """A RepVGG network of any depth and width.

    Args:
        num_blocks: blocks in stages 1 to 4; the stem comes before them.
        width_multiplier: factor on 64, 128, 256 and 512 channels.
        groups: groups of single blocks by their place, counted from 0 at the stem; 1 where not named.
        squeeze_excite: channel attention of every block, or none.
        auxiliary_heads: RepVGGplus's three extra classifiers, present while training only.
        block: the kind of block, a key of `repvgg.blocks.KINDS`.
        adaptation: strides, dilation and epsilon, where they are not the published ones.
        separable: each block but the stem is two: a depthwise one, which takes the stride, and a pointwise one (1x1).
        kernel_size: side of all kernels but the pointwise ones.
        copies: of the main branch of each block but the stem, for kinds that have copies.
        squeeze_excite_blocks: how many of the last blocks of stages 1 to 4 have channel attention; all of them, and the
            stem, if None.

    Raises:
        InputError: if a length, count or factor makes no network.
    """

    num_blocks: tuple[int, ...]
    width_multiplier: tuple[float, ...]
    groups: Mapping[int, int] = field(default_factory=dict, hash=False)
    squeeze_excite: SqueezeExcite | None = None
    auxiliary_heads: bool = False
    block: str = PAPERS_BLOCK
    adaptation: Adaptation = PUBLISHED
    separable: bool = False
    kernel_size: int = 3
    copies: int = 1
    squeeze_excite_blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, values in (("num_blocks", self.num_blocks), ("width_multiplier", self.width_multiplier)):
            if len(values) != STAGES:
                raise InputError(
                    f"`{name}` needs one value for each of the {STAGES} stages, and has {len(values)}: {values}."
                )
            if any(value <= 0 for value in values):
                raise InputError(f"`{name}` needs values above 0. Received: {values}.")
        if min(self.stem_width, *self.stage_widths) < 1:
            raise InputError(
                f"`width_multiplier` leaves a stage without channels: {self.width_multiplier} gives the widths "
                f"{self.stem_width} (stem) and {self.stage_widths}."
            )
        places = 1 + sum(self.num_blocks)
        for place, groups in self.groups.items():
            if not 0 <= place < places:
                raise InputError(
                    f"`override_groups_map` names block {place}, and this network has blocks 0 (the stem) to "
                    f"{places - 1}."
                )
            if groups < 1:
                raise InputError(f"`override_groups_map` gives block {place} {groups} groups; at least 1 is needed.")
        if self.separable and self.groups:
            raise InputError("`override_groups_map` has no place in a separable network, whose groups follow from it.")
        for name, value in (("kernel_size", self.kernel_size), ("copies", self.copies)):
            if value < 1 or (name == "kernel_size" and value % 2 == 0):
                raise InputError(f"`{name}` of an architecture is at least 1, and kernels are odd. Received: {value}.")
        counts = self.squeeze_excite_blocks
        if counts is not None and (
            self.squeeze_excite is None
            or len(counts) != STAGES
            or any(not 0 <= count <= depth for count, depth in zip(counts, self.num_blocks, strict=False))
        ):
            raise InputError(
                "`squeeze_excite_blocks` says for each of the 4 stages how many of its last blocks have the attention "
                f"`squeeze_excite`. Received: {counts} for {self.num_blocks} blocks and {self.squeeze_excite}."
            )
        object.__setattr__(self, "groups", MappingProxyType(dict(self.groups)))

    @property
    def stem_width(self) -> int:
        """Channels of the stem, never more than 64."""
        return min(64, int(64 * self.width_multiplier[0]))

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of stages 1 to 4."""
        return tuple(int(base * factor) for base, factor in zip(BASE_WIDTHS, self.width_multiplier, strict=True))

    def blocks(self, in_channels: int = 3) -> tuple[BlockSpec, ...]:
        """All blocks from the stem on, in order."""
        changes = self.adaptation
        everywhere = self.squeeze_excite if self.squeeze_excite_blocks is None else None
        stem_strides, stem_groups = changes.stem_strides, self.groups.get(0, 1)
        stem = BlockSpec("stage0", 0, 0, in_channels, self.stem_width, stem_strides, stem_groups, everywhere)
        specs = [replace(stem, kernel_size=self.kernel_size)]
        stride, dilation = stem_strides, 1
        for stage, (depth, width) in enumerate(zip(self.num_blocks, self.stage_widths, strict=True), start=1):
            keeps_size = 2 * stride > changes.output_stride
            before = dilation
            stride, dilation = (stride, 2 * dilation) if keeps_size else (2 * stride, dilation)
            for index in range(depth):
                first = index == 0
                spec = BlockSpec(
                    name=f"stage{stage}_block{index}",
                    stage=stage,
                    index=index,
                    in_channels=specs[-1].filters,
                    filters=width,
                    strides=2 if first and not keeps_size else 1,
                    groups=self.groups.get(len(specs), 1),
                    squeeze_excite=self.squeeze_excite if self._is_attentive(stage, index) else None,
                    kernel_size=self.kernel_size,
                    copies=self.copies,
                    dilation=before if first and not changes.dilate_first else dilation,
                    keeps_size=first and keeps_size,
                )
                specs += _separated(spec) if self.separable else (spec,)
        for place, spec in enumerate(specs):
            _check_groups(place, spec)
        return tuple(specs)

    def _is_attentive(self, stage: int, index: int) -> bool:
        counts = self.squeeze_excite_blocks
        return counts is None or index >= self.num_blocks[stage - 1] - counts[stage - 1]

    @classmethod
    def of_blocks(
        cls,
        specs: Sequence[BlockSpec],
        *,
        block: str = PAPERS_BLOCK,
        auxiliary_heads: bool = False,
        adaptation: Adaptation = PUBLISHED,
    ) -> Self:
        """The architecture that has these blocks, as far as there is one; its `blocks` tell whether they are the same.

        Args:
            specs: all blocks from the stem on; of the attention of all that have it, the widest one's counts.
        """
        stages = [[spec for spec in specs if spec.stage == stage] for stage in range(1, STAGES + 1)]
        separable = all(
            len(stage) % 2 == 0
            and all(spec.groups == spec.in_channels == spec.filters and spec.groups > 1 for spec in stage[::2])
            and all(spec.kernel_size == 1 for spec in stage[1::2])
            for stage in stages
        )
        attentive = [[spec for spec in stage if spec.squeeze_excite] for stage in stages]
        widest = max((spec for spec in specs if spec.squeeze_excite), key=lambda spec: spec.filters, default=None)
        each = 2 if separable else 1
        everywhere = widest is None or all(spec.squeeze_excite for spec in specs)
        return cls(
            num_blocks=tuple(len(stage) // each for stage in stages),
            # Exact: a base is a power of two, so the product with it gives the width again.
            width_multiplier=tuple(stage[-1].filters / base for stage, base in zip(stages, BASE_WIDTHS, strict=True)),
            groups={} if separable else {place: spec.groups for place, spec in enumerate(specs) if spec.groups > 1},
            squeeze_excite=widest.squeeze_excite if widest else None,
            auxiliary_heads=auxiliary_heads,
            block=block,
            adaptation=adaptation,
            separable=separable,
            kernel_size=specs[0].kernel_size,
            copies=specs[1].copies,
            squeeze_excite_blocks=None if everywhere else tuple(len(stage) // each for stage in attentive),
        )

    def auxiliary_taps(self) -> dict[str, str]:
        """RepVGGplus: the name of each auxiliary output, with the block it listens to.

        The third one sits after the first half of stage 3, as in the official `stage3_first`.
        """
        if not self.auxiliary_heads:
            return {}
        first_half = self.num_blocks[2] // 2
        if first_half == 0:
            raise InputError(
                "Auxiliary heads cut stage 3 in two halves, so it needs at least 2 blocks. "
                f"Received num_blocks={self.num_blocks}."
            )
        return {
            "stage1_aux": f"stage1_block{self.num_blocks[0] - 1}",
            "stage2_aux": f"stage2_block{self.num_blocks[1] - 1}",
            "stage3_first_aux": f"stage3_block{first_half - 1}",
        }


def _separated(spec: BlockSpec) -> tuple[BlockSpec, BlockSpec]:
    """The depthwise block and the pointwise one that a block of a separable network is."""
    first, second = 2 * spec.index, 2 * spec.index + 1
    name, channels = f"stage{spec.stage}_block", spec.in_channels
    depthwise = replace(spec, name=f"{name}{first}", index=first, filters=channels, groups=channels)
    pointwise = replace(
        spec, name=f"{name}{second}", index=second, strides=1, kernel_size=1, dilation=1, keeps_size=False
    )
    return depthwise, pointwise


def _check_groups(place: int, spec: BlockSpec) -> None:
    for what, channels in (("input", spec.in_channels), ("output", spec.filters)):
        if channels % spec.groups:
            raise InputError(
                f"Block {place} ({spec.name}) has {channels} {what} channels, which {spec.groups} groups do not "
                "divide. Change `override_groups_map` or `width_multiplier`."
            )


def alternate_groups(groups: int, num_blocks: Sequence[int]) -> dict[int, int]:
    """The paper's g2 and g4: every second block from place 2 to 26 is grouped (section 4.2).

    Places past 26 stay dense, as in the reference implementation; none of the paper's grouped networks has any.
    """
    return dict.fromkeys(range(2, min(26, sum(num_blocks)) + 1, 2), groups)
