"""Names of the tutorial "RepVGG in TensorFlow 2" and of the official repository, as thin shims over this package.

Code written for either runs by changing its import:

    from repvgg.compat import get_RepVGG_func_by_name, repvgg_model_convert

    model = get_RepVGG_func_by_name("RepVGG-A0")(num_classes=1000)
    model.build((None, 160, 160, 3))
    deployed = repvgg_model_convert(model, "RepVGG-A0")

The difference is in the answers: the tutorial's converted network is off by a tenth of its largest logit, because its
padding is lopsided; this one's agrees.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

from repvgg import blocks, conversion
from repvgg.architecture import alternate_groups
from repvgg.errors import ConversionError, InputError, UnknownNameError
from repvgg.model import RepVGG as make_model
from repvgg.saving import save_model
from repvgg.variants import VARIANTS, get_variant

optional_groupwise_layers = list(range(2, 27, 2))
g2_map = {layer: 2 for layer in optional_groupwise_layers}
g4_map = {layer: 4 for layer in optional_groupwise_layers}


@keras.saving.register_keras_serializable(package="repvgg.compat")
class ConvBn(blocks.ConvBatchNorm):
    """A convolution without bias and its batch normalization: the tutorial's building brick.

    (N, H, W, C) -> (N, ceil(H / strides), ceil(W / strides), filters). "same" padding means PyTorch's, symmetric one.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
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
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
        groups: int = 1,
        deploy: bool = False,
        **kwargs: Any,
    ) -> None:
        _require_same(padding, kernel_size)
        if kernel_size != 3:
            raise InputError(f"A RepVGG block has a 3x3 kernel. Received kernel_size={kernel_size}.")
        super().__init__(filters, strides, groups, deploy=deploy, **kwargs)

    def repvgg_convert(self) -> tuple[Any, Any]:
        """Kernel (3, 3, C / groups, filters) and bias (filters,) of the one convolution, as NumPy arrays."""
        kernel, bias = self.get_equivalent_kernel_bias()
        return keras.ops.convert_to_numpy(kernel), keras.ops.convert_to_numpy(bias)


def _require_same(padding: str, kernel_size: int) -> None:
    if padding != "same" or kernel_size % 2 == 0:
        raise InputError(
            f"Only padding='same' and odd kernels can be re-parameterized. Received padding={padding!r}, "
            f"kernel_size={kernel_size}."
        )


class _Buildable(keras.Model):
    """A functional model that also accepts `model.build((None, 160, 160, 3))`, which it has no need of."""

    def build(self, input_shape: Any = None) -> None:
        if input_shape is not None:
            expected = self.inputs[0].shape
            fits = len(input_shape) == len(expected) and all(
                got is None or wanted is None or got == wanted for got, wanted in zip(input_shape, expected, strict=True)
            )
            if not fits:
                raise InputError(f"This model takes images of shape {expected}. Received: {tuple(input_shape)}.")


def RepVGG(  # noqa: N802 - the tutorial's name
    num_blocks: Sequence[int],
    num_classes: int = 1000,
    width_multiplier: Sequence[float] | None = None,
    override_groups_map: Mapping[int, int] | None = None,
    deploy: bool = False,
) -> Any:
    """A classifier with the tutorial's order of arguments; `repvgg.RepVGG` is the real one.

    Groups may name blocks that the network does not have, as `g2_map` does for short ones.
    """
    places = sum(num_blocks)
    groups = {place: count for place, count in (override_groups_map or {}).items() if place <= places}
    return make_model(num_blocks, width_multiplier or (1, 1, 1, 1), groups, num_classes, deploy)


def _create(name: str, num_classes: int = 1000, deploy: bool = False) -> Any:
    architecture = get_variant(name).architecture
    return make_model(
        architecture.num_blocks, architecture.width_multiplier, architecture.groups, num_classes, deploy
    )
