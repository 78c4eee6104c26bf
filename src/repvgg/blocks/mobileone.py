"""The block of MobileOne."""

from collections.abc import Iterator

from repvgg.blocks.kind import BlockKind, Branch, Norm, conv_norm
from repvgg.core.architecture import BlockShape


class MobileOne(BlockKind):
    """ReLU(BN(conv k x k), `copies` times, + BN(conv 1x1) + BN(x)); the 1x1 branch only beside a larger kernel.

    The last branch is there where the stride is 1 and channels match. The network alternates depthwise blocks and
    pointwise ones, of 1x1.

    Source: Vasu et al., MobileOne: An Improved One Millisecond Mobile Backbone, CVPR 2023, arXiv 2206.04040, figure 3.
    See `ReparameterizableBlock` for the arguments.

    Example:
        >>> block = MobileOneBlock(64, strides=2, groups=64, copies=4)
        >>> block(images).shape                       # images: (8, 33, 33, 64)
        (8, 17, 17, 64)
    """

    name = "MobileOneBlock"
    has_copies = True

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        for copy in range(shape.copies):
            yield conv_norm(f"conv{copy}", f"rbr_conv.{copy}", shape.kernel_size)
        if shape.kernel_size != (1, 1):
            yield conv_norm("scale", "rbr_scale", (1, 1))
        if shape.keeps_shape:
            yield Branch("identity", (Norm("rbr_skip"),))
