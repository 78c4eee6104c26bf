"""The Diverse Branch Block."""

from collections.abc import Iterator

from repvgg.blocks.kind import AveragePool, BlockKind, Branch, Conv, Norm, conv_norm
from repvgg.core.architecture import BlockShape


class DiverseBranch(BlockKind):
    """ReLU of the sum of four normalized branches: k x k; 1x1; 1x1 and then k x k; 1x1 and then the mean of k x k.

    The 1x1 convolution before a k x k one holds the difference from the identity, and there is a normalization in the
    middle of both chains. In a depthwise block a 1x1 convolution only scales, so the 1x1 branch and the one before the
    mean are left out, and the chain is twice as wide inside, as the authors have it.

    Source: Ding et al., Diverse Branch Block: Building a Convolution as an Inception-like Unit, CVPR 2021, arXiv
    2103.13425, figure 3, and its code, https://github.com/DingXiaoH/DiverseBranchBlock. See `ReparameterizableBlock`
    for the arguments.

    Example:
        >>> block = DiverseBranchBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    name = "DiverseBranchBlock"

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        size, one = shape.kernel_size, (1, 1)
        mixes_channels = shape.groups < shape.filters
        yield conv_norm("origin", "dbb_origin", size)
        average: tuple[AveragePool | Norm, ...] = (AveragePool(size), Norm("dbb_avg.avgbn"))
        if mixes_channels:
            before = (Conv("dbb_avg.conv", one), Norm("dbb_avg.bn.bn"))
            yield Branch("average", (*before, *average))
            yield conv_norm("point", "dbb_1x1", one)
            first = Conv("dbb_1x1_kxk.idconv1", one, filters=shape.in_channels, identity_based=True)
        else:
            yield Branch("average", average)
            first = Conv("dbb_1x1_kxk.conv1", one, filters=2 * shape.in_channels)
        after = (Conv("dbb_1x1_kxk.conv2", size), Norm("dbb_1x1_kxk.bn2"))
        yield Branch("chain", (first, Norm("dbb_1x1_kxk.bn1.bn"), *after))
