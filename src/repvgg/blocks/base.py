"""The contract of a re-parameterizable block.

A block is a sum of linear branches, then an activation, with channel attention on either side of it. A new kind of
block says how its branches are made, called, folded and released; everything else (both forms, conversion in place,
saving, verification, stock-layer replacement) is here and in `single_path.py`, and knows no kind.
"""

import gc
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from repvgg.base.errors import ConversionError, InputError
from repvgg.blocks.branches import EPSILON, MOMENTUM, ConvBias, Read, float64_of, tensor_of
from repvgg.blocks.recording import record_input
from repvgg.blocks.shapes import Shape, channels_of, check_groups, strided_shape
from repvgg.blocks.squeeze_excite import SqueezeExcitation
from repvgg.core import fold
from repvgg.core.architecture import SqueezeExcite

Tensor = Any


class ReparameterizableBlock(keras.layers.Layer):
    """A block with a multi-branch training form and a single-convolution deploy form.

    (N, H, W, C) -> (N, ceil(H / strides), ceil(W / strides), filters), or with channels first.

    Args:
        filters: output channels.
        strides: 1 or more, the same in both directions.
        groups: divides input channels and filters.
        dilation_rate: spacing of the 3x3 kernel; above 1 only where `strides` is 1.
        squeeze_excite: channel attention, as `SqueezeExcite` or a mapping with its two fields; None for none.
        activation: a Keras activation; None for a linear block.
        deploy: build the single-convolution form at once.
        data_format: "channels_last" or "channels_first"; Keras's setting if None.
        momentum, epsilon: of every batch normalization; PyTorch's constants unless said otherwise.
        kernel_initializer, kernel_regularizer: of every branch's kernel.

    Raises:
        InputError: for values that make no block, when it is made or first called.
    """

    kernel_size = 3
    has_custom_L2 = False  # noqa: N815 - named as the method
    """Whether `get_custom_L2` has an answer for this kind of block; a recipe that wants it asks before it trains."""

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        groups: int = 1,
        *,
        dilation_rate: int = 1,
        squeeze_excite: SqueezeExcite | Mapping[str, Any] | None = None,
        activation: Any = "relu",
        deploy: bool = False,
        data_format: str | None = None,
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (
            ("filters", filters),
            ("strides", strides),
            ("groups", groups),
            ("dilation_rate", dilation_rate),
        ):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"`{name}` must be a whole number of at least 1. Received: {value!r}.")
        if filters % groups:
            raise InputError(f"`filters` (={filters}) must be divisible by `groups` (={groups}).")
        if strides > 1 and dilation_rate > 1:
            raise InputError(
                f"`strides` (={strides}) and `dilation_rate` (={dilation_rate}) cannot both be above 1: "
                "Keras's Conv2D, which the deploy form is made of, does not compute it."
            )
        self.filters = filters
        self.strides = strides
        self.groups = groups
        self.dilation_rate = dilation_rate
        if isinstance(squeeze_excite, Mapping):
            squeeze_excite = SqueezeExcite(**squeeze_excite)
        self.squeeze_excite = squeeze_excite
        self.activation = keras.activations.get(activation)
        self.deploy = deploy
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise InputError(f"`data_format` is 'channels_last' or 'channels_first'. Received: {data_format!r}.")
        self.momentum = momentum
        self.epsilon = epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        # Keras lets a built layer take no new sub-layer, so the deploy form's convolution is there from the beginning;
        # it has no weights until it is built.
        self.reparam = ConvBias(
            filters,
            self.kernel_size,
            strides=strides,
            groups=groups,
            dilation_rate=dilation_rate,
            data_format=self.data_format,
            dtype=self.dtype_policy,
            name="reparam",
        )
        self.attention = (
            SqueezeExcitation(squeeze_excite, data_format=self.data_format, dtype=self.dtype_policy, name="attention")
            if squeeze_excite
            else None
        )

    @abstractmethod
    def make_branches(self, in_channels: int) -> None:
        """Creates the branch layers as attributes; called once, while the block is built in training form."""

    @abstractmethod
    def build_branches(self, input_shape: Shape) -> None:
        """Builds them."""

    @abstractmethod
    def call_branches(self, inputs: Tensor, training: bool) -> Tensor:
        """Their sum, before activation and attention."""

    @abstractmethod
    def fold_branches(self, read: Read, convert: fold.Convert) -> fold.Linear:
        """That sum as one convolution, in whatever arithmetic `read` and `convert` lead to."""

    @abstractmethod
    def release_branches(self) -> None:
        """Gives up the weights of all branches."""

    def build(self, input_shape: Shape) -> None:
        self.in_channels = channels_of(input_shape, self.data_format, self.name)
        check_groups(self.in_channels, self.filters, self.groups, self.name)
        # A convolution tells groups from the kernel's shape, and would take some wrong channel counts for others.
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.InputSpec(ndim=4, axes={axis: self.in_channels})
        if self.deploy:
            self.reparam.build(input_shape)
        else:
            self.make_branches(self.in_channels)
            self.build_branches(input_shape)
        if self.attention is not None:
            self.attention.build(self.compute_output_shape(input_shape))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        record_input(self, inputs)
        return self.activate(self.reparam(inputs) if self.deploy else self.call_branches(inputs, training))

    def activate(self, outputs: Tensor) -> Tensor:
        """What follows the convolution: activation and attention."""
        if self.attention is None:
            return self.activation(outputs)
        if self.attention.settings.position == "before_activation":
            return self.activation(self.attention(outputs))
        return self.attention(self.activation(outputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return strided_shape(input_shape, self.filters, self.strides, self.data_format)

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """The one convolution this block is in inference, as tensors that gradients flow through.

        Returns:
            The kernel (3, 3, C / groups, filters) and the bias (filters,).

        Example:
            >>> block = RepVGGBlock(8)
            >>> block.build((None, 32, 32, 8))
            >>> kernel, bias = block.get_equivalent_kernel_bias()
        """
        self._require_built()
        if self.deploy:
            return tensor_of(self.reparam.kernel), tensor_of(self.reparam.bias)
        dtype = self.variable_dtype
        linear = self.fold_branches(tensor_of, lambda constant: keras.ops.convert_to_tensor(constant, dtype=dtype))
        return linear.kernel, linear.bias

    def get_custom_L2(self) -> Tensor:  # noqa: N802 - the reference implementation's name
        """The kind's own weight decay, a scalar; only where `has_custom_L2`.

        Raises:
            InputError: if the kind has none.
        """
        raise InputError(
            f"Block '{self.name}' is a {type(self).__name__}, which has no custom L2 (has_custom_L2 is False). "
            "Train it with ordinary weight decay on its kernels."
        )

    def folded(self) -> fold.Linear:
        """The same, calculated in NumPy float64."""
        self._require_built()
        if self.deploy:
            return fold.Linear(float64_of(self.reparam.kernel), float64_of(self.reparam.bias))
        return self.fold_branches(float64_of, np.asarray)

    def switch_to_deploy(self) -> None:
        """Turns this block, in place, into its single-convolution form; for blocks inside subclassed models.

        Saving and loading keep the form: a file written after the switch loads into a model that is built in training
        form, and switches it. An optimizer that was made before the switch holds weights that are gone; compile again.
        """
        self._require_built()
        if self.deploy:
            return
        linear = self.folded()
        self._shed_branches()
        self.reparam.kernel.assign(linear.kernel.astype(self.variable_dtype))
        self.reparam.bias.assign(linear.bias.astype(self.variable_dtype))

    def _shed_branches(self) -> None:
        last = self.data_format == "channels_last"
        self.reparam.build((None, None, None, self.in_channels) if last else (None, self.in_channels, None, None))
        with _cheap_deletion():
            self.release_branches()
        self.deploy = True

    def _require_built(self) -> None:
        if not self.built:
            raise ConversionError(
                f"Block '{self.name}' has no weights yet. Call the model on a batch, or build it with an input shape."
            )

    def save_own_variables(self, store: Any) -> None:
        # Children are saved by Keras; the flag tells a reader, whose block may be in the other form, what they are.
        store["deploy"] = np.asarray(int(self.deploy))

    def load_own_variables(self, store: Any) -> None:
        # Keras looks in more than one place of a file and reports the last failure, so a missing flag must not say less
        # than a wrong one.
        found = bool(np.asarray(store["deploy"])) if "deploy" in set(store.keys()) else None
        if self.deploy and not found:
            raise InputError(
                f"Block '{self.name}' is in its deploy form, and the file holds the training form or another model. "
                "Load a training form into a model built with deploy=False, then convert that."
            )
        if found is None:
            raise InputError(f"The file holds no weights for block '{self.name}'. It was written by another model.")
        if found and not self.deploy:
            self._require_built()
            self._shed_branches()

    def get_config(self) -> dict[str, Any]:
        attention = self.squeeze_excite
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "groups": self.groups,
            "dilation_rate": self.dilation_rate,
            "squeeze_excite": asdict(attention) if attention else None,
            "activation": keras.activations.serialize(self.activation),
            "deploy": self.deploy,
            "data_format": self.data_format,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@contextmanager
def _cheap_deletion() -> Iterator[None]:
    """Keras runs a full garbage collection for each weight that is deleted, some 0.2 s; frozen objects are not visited.

    Nothing is left uncollected: the next collection after the block sees all of them again.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
