"""The block made for integers."""

from collections.abc import Iterator

from repvgg.blocks.kind import BlockKind, Branch, Conv, conv_norm
from repvgg.core.architecture import BlockShape


class QARepVGG(BlockKind):
    """ReLU(BN(BN(conv 3x3) + conv 1x1 + x)); the last branch only where stride is 1 and channels match.

    The batch normalization of RepVGG's identity branch divides by the spread of activations, which is next to nothing
    for a channel that is mostly 0 after the ReLU: the folded kernel then has a few huge values, and INT8 has no digits
    left for the rest. Here neither that branch nor the 1x1 convolution is normalized, and their sum with the 3x3 branch
    is instead. There is no custom L2: it too widens the activations, and ordinary weight decay is part of the design.

    Source: Chu et al., Make RepVGG Greater Again: A Quantization-Aware Approach, AAAI 2024, arXiv 2212.01593 (setting
    S4). See `ReparameterizableBlock` for the arguments.

    Example:
        >>> block = QARepVGGBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    name = "QARepVGGBlock"
    sum_norm = "bn"

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        yield conv_norm("conv3x3", "rbr_dense", shape.kernel_size)
        yield Branch("conv1x1", (Conv("rbr_1x1", (1, 1)),))
        if shape.keeps_shape:
            yield Branch("identity")
