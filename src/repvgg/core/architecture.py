"""What a RepVGG network is made of, as plain data: no Keras here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from repvgg.base.errors import InputError

STAGES = 4
BASE_WIDTHS = (64, 128, 256, 512)
"""Channels of stages 1 to 4 at width multiplier 1 (paper, table 2)."""

PAPERS_BLOCK = "RepVGGBlock"
"""The kind of block where none is named, and the one that stands for all of them once they are converted."""

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

    @property
    def keeps_shape(self) -> bool:
        """Whether the output is as large as the input, so that the input itself can be a branch."""
        return self.strides == 1 and self.in_channels == self.filters


@dataclass(frozen=True)
class BlockSpec:
    """One 3x3 block in its place: the stem (stage 0) or the `index`-th block of a stage."""

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

    @property
    def shape(self) -> BlockShape:
        """What its branches follow from."""
        sides = (self.kernel_size, self.kernel_size)
        return BlockShape(self.in_channels, self.filters, sides, self.strides, self.groups, copies=self.copies)


@dataclass(frozen=True)
class Architecture:
    """A RepVGG network of any depth and width.

    Args:
        num_blocks: blocks in stages 1 to 4; the stem comes before them.
        width_multiplier: factor on 64, 128, 256 and 512 channels.
        groups: groups of single blocks by their place, counted from 0 at the stem; 1 where not named.
        squeeze_excite: channel attention of every block, or none.
        auxiliary_heads: RepVGGplus's three extra classifiers, present while training only.
        block: the kind of block, a key of `repvgg.blocks.BLOCKS`.

    Raises:
        InputError: if a length, count or factor makes no network.
    """

    num_blocks: tuple[int, ...]
    width_multiplier: tuple[float, ...]
    groups: Mapping[int, int] = field(default_factory=dict, hash=False)
    squeeze_excite: SqueezeExcite | None = None
    auxiliary_heads: bool = False
    block: str = PAPERS_BLOCK

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
        specs = [self._block("stage0", 0, 0, in_channels, self.stem_width, 2, 0)]
        for stage, (count, width) in enumerate(zip(self.num_blocks, self.stage_widths, strict=True), start=1):
            for index in range(count):
                specs.append(
                    self._block(
                        f"stage{stage}_block{index}",
                        stage,
                        index,
                        specs[-1].filters,
                        width,
                        2 if index == 0 else 1,
                        len(specs),
                    )
                )
        return tuple(specs)

    def _block(
        self, name: str, stage: int, index: int, in_channels: int, filters: int, strides: int, place: int
    ) -> BlockSpec:
        groups = self.groups.get(place, 1)
        for what, channels in (("input", in_channels), ("output", filters)):
            if channels % groups:
                raise InputError(
                    f"Block {place} ({name}) has {channels} {what} channels, which {groups} groups do not divide. "
                    "Change `override_groups_map` or `width_multiplier`."
                )
        return BlockSpec(name, stage, index, in_channels, filters, strides, groups, self.squeeze_excite)

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


def alternate_groups(groups: int, num_blocks: Sequence[int]) -> dict[int, int]:
    """The paper's g2 and g4: every second block from place 2 to 26 is grouped (section 4.2).

    Places past 26 stay dense, as in the reference implementation; none of the paper's grouped networks has any.
    """
    return dict.fromkeys(range(2, min(26, sum(num_blocks)) + 1, 2), groups)
