"""The block of ACNet."""

from collections.abc import Iterator

from repvgg.blocks.kind import BlockKind, Branch, Conv, Norm
from repvgg.core.architecture import BlockShape


class AC(BlockKind):
    """ReLU(BN(conv k x k) + BN(conv k x 1) + BN(conv 1 x k)): the middle row and column of the kernel are strengthened.

    Source: Ding et al., ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric Convolution Blocks,
    ICCV 2019, arXiv 1908.03930, figure 1. See `ReparameterizableBlock` for the arguments.

    Example:
        >>> block = ACBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    name = "ACBlock"

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        height, width = shape.kernel_size
        for name, module, kernel_size in (
            ("square", "square", (height, width)),
            ("vertical", "ver", (height, 1)),
            ("horizontal", "hor", (1, width)),
        ):
            yield Branch(name, (Conv(f"{module}_conv", kernel_size), Norm(f"{module}_bn")))
