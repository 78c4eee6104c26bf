"""The block of the paper."""

from typing import Any

import keras

from repvgg.base.errors import ConversionError
from repvgg.blocks.base import ReparameterizableBlock
from repvgg.blocks.branches import BatchNorm, ConvBatchNorm, Read, tensor_of
from repvgg.blocks.shapes import Shape
from repvgg.core import fold

Tensor = Any


@keras.saving.register_keras_serializable(package="repvgg")
class RepVGGBlock(ReparameterizableBlock):
    """ReLU(BN(conv 3x3) + BN(conv 1x1) + BN(x)); the last branch only where stride is 1 and channels match.

    Source: Ding et al., arXiv 2101.03697, figure 2 and section 3.2. See `ReparameterizableBlock` for the arguments.

    Example:
        >>> block = RepVGGBlock(64, strides=2)
        >>> block(images).shape                       # images: (8, 33, 33, 3)
        (8, 17, 17, 64)
    """

    has_custom_L2 = True  # noqa: N815 - as in the base class

    def make_branches(self, in_channels: int) -> None:
        shared: dict[str, Any] = {
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "data_format": self.data_format,
            "dtype": self.dtype_policy,
        }

        def convolution(name: str, kernel_size: int, dilation_rate: int) -> ConvBatchNorm:
            return ConvBatchNorm(
                self.filters,
                kernel_size,
                strides=self.strides,
                groups=self.groups,
                dilation_rate=dilation_rate,
                kernel_initializer=self.kernel_initializer,
                kernel_regularizer=self.kernel_regularizer,
                name=name,
                **shared,
            )

        self.conv3x3 = convolution("conv3x3", 3, self.dilation_rate)
        self.conv1x1 = convolution("conv1x1", 1, 1)
        has_identity = self.strides == 1 and in_channels == self.filters
        self.identity = BatchNorm(name="identity", **shared) if has_identity else None

    def build_branches(self, input_shape: Shape) -> None:
        self.conv3x3.build(input_shape)
        self.conv1x1.build(input_shape)
        if self.identity is not None:
            self.identity.build(input_shape)

    def call_branches(self, inputs: Tensor, training: bool) -> Tensor:
        outputs = self.conv3x3(inputs, training=training) + self.conv1x1(inputs, training=training)
        if self.identity is not None:
            outputs = outputs + self.identity(inputs, training=training)
        return outputs

    def fold_branches(self, read: Read, convert: fold.Convert) -> fold.Linear:
        dense = self.conv3x3.fold(read)
        point = self.conv1x1.fold(read)
        branches = [dense, fold.Linear(fold.expand_kernel(point.kernel, self.kernel_size, convert), point.bias)]
        if self.identity is not None:
            norm = self.identity.read(read)
            branches.append(fold.fold_identity(norm, self.in_channels, self.groups, self.kernel_size, convert))
        return fold.add_branches(branches)

    def release_branches(self) -> None:
        self.conv3x3.release()
        self.conv1x1.release()
        if self.identity is not None:
            self.identity.release()

    def get_custom_L2(self) -> Tensor:  # noqa: N802 - the reference implementation's name
        """The paper's custom L2 of this block, a scalar: decay of the folded kernel instead of the branches'.

        With t = gamma / sqrt(variance + epsilon), held constant: the squared 3x3 kernel outside its centre, plus
        (K3[centre] t3 + K1 t1)^2 / (t3^2 + t1^2). Add `weight_decay * 0.5` times this to the loss and switch ordinary
        decay of both kernels off.

        Source: the official repository's `repvgg.py`, `get_custom_L2`.

        Raises:
            ConversionError: in deploy form, which has no branches left.
        """
        self._require_built()
        if self.deploy:
            raise ConversionError(f"Block '{self.name}' is in its deploy form, which has no custom L2.")
        ops = keras.ops
        dense = tensor_of(self.conv3x3.kernel)
        point = tensor_of(self.conv1x1.kernel)[0, 0]
        dense_scale = ops.stop_gradient(self.conv3x3.norm.read(tensor_of).scale)
        point_scale = ops.stop_gradient(self.conv1x1.norm.read(tensor_of).scale)
        centre = dense[1, 1]
        outside = ops.sum(dense**2) - ops.sum(centre**2)
        folded = centre * dense_scale + point * point_scale
        return outside + ops.sum(folded**2 / (dense_scale**2 + point_scale**2))
