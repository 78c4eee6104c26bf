"""The block of RepOpt-VGG, plain from the beginning, and the one that its optimizer's factors are found with."""

from collections.abc import Iterator

from repvgg.blocks.kind import BlockKind, Branch, Conv, Norm, Scale
from repvgg.core.architecture import BlockShape


class LinearAddition(BlockKind):
    """ReLU(BN(s conv k x k + t conv 1x1 + u x)) with a factor for each channel; u only where the shape stays the same.

    With constant s and t, this is what the paper calls constant-scale linear addition (CSLA): training its kernels is
    training a single one whose gradients are multiplied. With trainable ones it is the network of the hyper-search,
    whose factors are those constants afterwards.

    Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023, arXiv 2205.15242,
    section 3 and figure 2. See `ReparameterizableBlock` for the arguments.

    Example:
        >>> block = LinearAdditionBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    name = "LinearAdditionBlock"
    sum_norm = "bn"

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        yield Branch("conv3x3", (Conv("conv", shape.kernel_size), Scale("scale_conv")))
        yield Branch("conv1x1", (Conv("conv_1x1", (1, 1)), Scale("scale_1x1")))
        if shape.keeps_shape:
            yield Branch("identity", (Scale("scale_identity"),))


class RepOptVGG(BlockKind):
    """ReLU(BN(conv k x k)): nothing but the convolution, trained by an optimizer that multiplies its gradients.

    Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023, arXiv 2205.15242. See
    `ReparameterizableBlock` for the arguments, and `repvgg.RepOptimizer` for training it.

    Example:
        >>> block = RepOptVGGBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    name = "RepOptVGGBlock"
    trained_as = LinearAddition()

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        yield Branch("conv3x3", (Conv("conv", shape.kernel_size), Norm("bn")))
