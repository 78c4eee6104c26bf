"""Layers of the tutorial "RepVGG in TensorFlow 2", with its names and arguments; `repvgg.compat` hands them on."""

from typing import Any

import keras

from repvgg import blocks
from repvgg.base.errors import InputError
from repvgg.blocks.layers import ConvBatchNorm
from repvgg.blocks.shapes import KernelSize, sides_of


@keras.saving.register_keras_serializable(package="repvgg.compat")
class ConvBn(ConvBatchNorm):
    """A convolution without bias and its batch normalization: the tutorial's building brick.

    (N, H, W, C) -> (N, ceil(H / strides), ceil(W / strides), filters). "same" padding means PyTorch's, symmetric one.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: KernelSize,
        strides: int = 1,
        padding: str = "same",
        groups: int = 1,
        **kwargs: Any,
    ) -> None:
        _require_same(padding, kernel_size)
        super().__init__(filters, kernel_size, strides=strides, groups=groups, **kwargs)


@keras.saving.register_keras_serializable(package="repvgg.compat")
class RepVGGBlock(blocks.RepVGGBlock):
    """The block with the tutorial's arguments; `repvgg.RepVGGBlock` is the real one."""

    def __init__(
        self,
        filters: int,
        kernel_size: KernelSize = 3,
        strides: int = 1,
        padding: str = "same",
        groups: int = 1,
        deploy: bool = False,
        **kwargs: Any,
    ) -> None:
        _require_same(padding, kernel_size)
        if sides_of(kernel_size) != (3, 3):
            raise InputError(f"A RepVGG block has a 3x3 kernel. Received kernel_size={kernel_size}.")
        super().__init__(filters, strides, groups, deploy=deploy, **kwargs)

    def repvgg_convert(self) -> tuple[Any, Any]:
        """Kernel (3, 3, C / groups, filters) and bias (filters,) of the one convolution, as NumPy arrays."""
        kernel, bias = self.get_equivalent_kernel_bias()
        return keras.ops.convert_to_numpy(kernel), keras.ops.convert_to_numpy(bias)


def _require_same(padding: str, kernel_size: KernelSize) -> None:
    sides = (kernel_size,) if isinstance(kernel_size, int) else kernel_size
    if padding != "same" or any(side % 2 == 0 for side in sides):
        raise InputError(
            f"Only padding='same' and odd kernels can be re-parameterized. Received padding={padding!r}, "
            f"kernel_size={kernel_size}."
        )
