"""The block made for integers."""

from typing import Any

import keras

from repvgg.blocks.base import ReparameterizableBlock
from repvgg.blocks.branches import BatchNorm, Conv, ConvBatchNorm, Read
from repvgg.blocks.shapes import Shape
from repvgg.core import fold

Tensor = Any


@keras.saving.register_keras_serializable(package="repvgg")
class QARepVGGBlock(ReparameterizableBlock):
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

    def make_branches(self, in_channels: int) -> None:
        norm: dict[str, Any] = {"momentum": self.momentum, "epsilon": self.epsilon}
        layout: dict[str, Any] = {"data_format": self.data_format, "dtype": self.dtype_policy}
        convolution: dict[str, Any] = {
            "strides": self.strides,
            "groups": self.groups,
            "kernel_initializer": self.kernel_initializer,
            "kernel_regularizer": self.kernel_regularizer,
        }
        self.conv3x3 = ConvBatchNorm(
            self.filters, 3, dilation_rate=self.dilation_rate, name="conv3x3", **convolution, **norm, **layout
        )
        self.conv1x1 = Conv(self.filters, 1, name="conv1x1", **convolution, **layout)
        self.has_identity = self.strides == 1 and in_channels == self.filters
        self.norm = BatchNorm(name="norm", **norm, **layout)

    def build_branches(self, input_shape: Shape) -> None:
        self.conv3x3.build(input_shape)
        self.conv1x1.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call_branches(self, inputs: Tensor, training: bool) -> Tensor:
        outputs = self.conv3x3(inputs, training=training) + self.conv1x1(inputs)
        if self.has_identity:
            outputs = outputs + inputs
        return self.norm(outputs, training=training)

    def fold_branches(self, read: Read, convert: fold.Convert) -> fold.Linear:
        point = fold.expand_kernel(read(self.conv1x1.kernel), self.kernel_size, convert)
        branches = [self.conv3x3.fold(read), fold.Linear(point, 0)]
        if self.has_identity:
            same = fold.identity_kernel(self.in_channels, self.groups, self.kernel_size)
            branches.append(fold.Linear(convert(same), 0))
        return fold.fold_outer_batch_norm(fold.add_branches(branches), self.norm.read(read))

    def release_branches(self) -> None:
        self.conv3x3.release()
        self.conv1x1.release()
        self.norm.release()
