"""The block of the paper."""

from collections.abc import Iterator
from typing import Any

from repvgg.blocks.kind import BlockKind, Branch, Norm, Weights, conv_norm, read_norm
from repvgg.core.architecture import BlockShape


class RepVGG(BlockKind):
    """ReLU(BN(conv 3x3) + BN(conv 1x1) + BN(x)); the last branch only where stride is 1 and channels match.

    Source: Ding et al., arXiv 2101.03697, figure 2 and section 3.2. See `ReparameterizableBlock` for the arguments.

    Example:
        >>> block = RepVGGBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    name = "RepVGGBlock"
    has_custom_l2 = True

    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        yield conv_norm("conv3x3", "rbr_dense", shape.kernel_size)
        yield conv_norm("conv1x1", "rbr_1x1", (1, 1))
        if shape.keeps_shape:
            yield Branch("identity", (Norm("rbr_identity"),))

    def custom_l2(self, weights: Weights, ops: Any) -> Any:
        """The paper's custom L2: decay of the folded kernel instead of the branches'.

        With t = gamma / sqrt(variance + epsilon), held constant: the squared kernel outside its centre, plus
        (K3[centre] t3 + K1 t1)^2 / (t3^2 + t1^2). Add `weight_decay * 0.5` times this to the loss and switch ordinary
        decay of both kernels off.

        Source: the official repository's `repvgg.py`, `get_custom_L2`.
        """
        dense, point = weights("conv3x3.kernel"), weights("conv1x1.kernel")[0, 0]
        dense_scale, point_scale = (
            ops.stop_gradient(read_norm(weights, f"{branch}.norm.").scale) for branch in ("conv3x3", "conv1x1")
        )
        centre = dense[dense.shape[0] // 2, dense.shape[1] // 2]
        outside = ops.sum(dense**2) - ops.sum(centre**2)
        folded = centre * dense_scale + point * point_scale
        return outside + ops.sum(folded**2 / (dense_scale**2 + point_scale**2))
