"""A re-parameterizable block as a Keras layer: both forms of any kind.

A block is a sum of linear branches, perhaps normalized, then an activation, with channel attention on either side of
it. What the branches are, its kind says (`kind.py`); both forms, conversion in place and saving are here, the
replacement by stock layers in `single_path.py`, and neither knows any kind.
"""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from repvgg.base.errors import ConversionError, InputError
from repvgg.blocks.branches import MOMENTUM, BatchNorm, ConvBias, Read, float64_of, tensor_of
from repvgg.blocks.chain import branch_layer
from repvgg.blocks.kind import BlockKind, Weights
from repvgg.blocks.merging import sum_of_branches
from repvgg.blocks.recording import record_input
from repvgg.blocks.shapes import KernelSize, Shape, channels_of, check_groups, sides_of, strided_shape
from repvgg.blocks.squeeze_excite import SqueezeExcitation
from repvgg.core import fold
from repvgg.core.architecture import EPSILON, BlockShape, SqueezeExcite

Tensor = Any


class ReparameterizableBlock(keras.layers.Layer):
    """A block with a multi-branch training form and a single-convolution deploy form; subclasses name their `kind`.

    (N, H, W, C) -> (N, ceil(H / strides), ceil(W / strides), filters), or with channels first.

    Args:
        filters: output channels.
        strides: 1 or more, the same in both directions.
        groups: divides input channels and filters.
        kernel_size: of the one convolution in the end: an odd number, or two for height and width.
        copies: how often the kind's main branch is there, for kinds that have copies.
        dilation_rate: spacing of the kernel; above 1 only where `strides` is 1.
        squeeze_excite: channel attention, as `SqueezeExcite` or a mapping with its two fields; None for none.
        activation: a Keras activation; None for a linear block.
        deploy: build the single-convolution form at once.
        data_format: "channels_last" or "channels_first"; Keras's setting if None.
        momentum, epsilon: of every batch normalization; PyTorch's constants unless said otherwise.
        identity_branch: False leaves out the branch that is the input itself where strides and channels allow it.
        kernel_initializer, kernel_regularizer: of every branch's kernel.

    Raises:
        InputError: for values that make no block, when it is made or first called.
    """

    kind: BlockKind

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        groups: int = 1,
        *,
        kernel_size: KernelSize = 3,
        copies: int = 1,
        dilation_rate: int = 1,
        squeeze_excite: SqueezeExcite | Mapping[str, Any] | None = None,
        activation: Any = "relu",
        deploy: bool = False,
        data_format: str | None = None,
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        identity_branch: bool = True,
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
            ("copies", copies),
        ):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"`{name}` must be a whole number of at least 1. Received: {value!r}.")
        if copies > 1 and not self.kind.has_copies:
            raise InputError(f"A {self.kind.name} has no copies of a branch. Received: copies={copies}.")
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
        self.kernel_size = sides_of(kernel_size)
        self.copies = copies
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
        self.identity_branch = identity_branch
        # The layer of the branch that is the input itself, where a kind has such a layer and the shape allows it. No
        # attribute of the class: PyTorch's modules look there before they look among their children.
        self.identity: Any = None
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

    def build(self, input_shape: Shape) -> None:
        self.in_channels = channels_of(input_shape, self.data_format, self.name)
        check_groups(self.in_channels, self.filters, self.groups, self.name)
        # A convolution tells groups from the kernel's shape, and would take some wrong channel counts for others.
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.InputSpec(ndim=4, axes={axis: self.in_channels})
        if self.deploy:
            self.reparam.build(input_shape)
        else:
            self.kind.check_branches(self.shape)
            self._build_branches(input_shape)
        if self.attention is not None:
            self.attention.build(self.compute_output_shape(input_shape))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        record_input(self, inputs)
        return self.activate(self.reparam(inputs) if self.deploy else self.call_branches(inputs, training))

    @property
    def shape(self) -> BlockShape:
        """What the block is in the end, as plain data; it is known once the block is built."""
        return BlockShape(
            self.in_channels,
            self.filters,
            self.kernel_size,
            self.strides,
            self.groups,
            self.dilation_rate,
            self.copies,
            takes_input=self.identity_branch,
        )

    def branch_layers(self) -> dict[str, Any]:
        """The layer of each branch by name, in training form; None for the input itself."""
        names = [branch.name for branch in self.kind.branches(self.shape)]
        return {name: getattr(self, name, None) for name in names}

    def variable(self, path: str) -> Any:
        """What is at a path of the kind's: a variable, 'conv3x3.norm.gamma', or the number 'conv3x3.norm.epsilon'."""
        found: Any = self
        for part in path.split("."):
            found = getattr(found, part)
        return found

    def _build_branches(self, input_shape: Shape) -> None:
        norm: dict[str, Any] = {"momentum": self.momentum, "epsilon": self.epsilon}
        layout: dict[str, Any] = {"data_format": self.data_format, "dtype": self.dtype_policy}
        convolution = {
            "strides": self.strides,
            "groups": self.groups,
            "dilation_rate": self.dilation_rate,
            "kernel_initializer": self.kernel_initializer,
            "kernel_regularizer": self.kernel_regularizer,
        }
        for branch in self.kind.branches(self.shape):
            layer = branch_layer(branch, self.filters, convolution=convolution, norm=norm, layout=layout)
            if layer is not None:
                setattr(self, branch.name, layer)
        self.norm = BatchNorm(name="norm", **norm, **layout) if self.kind.sum_norm else None
        for layer in self.branch_layers().values():
            if layer is not None:
                layer.build(input_shape)
        if self.norm is not None:
            self.norm.build(self.compute_output_shape(input_shape))

    def call_branches(self, inputs: Tensor, training: bool) -> Tensor:
        """The sum of the branches, before activation and attention."""
        total = sum_of_branches(list(self.branch_layers().values()), inputs, training=training)
        return total if self.norm is None else self.norm(total, training=training)

    def activate(self, outputs: Tensor) -> Tensor:
        """What follows the convolution: activation and attention."""
        if self.attention is None:
            return self.activation(outputs)
        if self.attention.settings.position == "before_activation":
            return self.activation(self.attention(outputs))
        return self.attention(self.activation(outputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return strided_shape(input_shape, self.filters, self.strides, self.data_format)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:  # noqa: ARG002
        # Keras's own tells shapes from tensors alone, and this is asked with NumPy arrays too.
        shape = self.compute_output_shape(tuple(inputs.shape))
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_equivalent_kernel_bias(self) -> tuple[Tensor, Tensor]:
        """The one convolution this block is in inference, as tensors that gradients flow through.

        Returns:
            The kernel (height, width, C / groups, filters) and the bias (filters,).

        Example:
            >>> block = RepVGGBlock(8)
            >>> block.build((None, 32, 32, 8))
            >>> kernel, bias = block.get_equivalent_kernel_bias()
        """
        self._require_built()
        if self.deploy:
            return tensor_of(self.reparam.kernel), tensor_of(self.reparam.bias)
        dtype = self.variable_dtype
        linear = self._fold(tensor_of, lambda constant: keras.ops.convert_to_tensor(constant, dtype=dtype))
        return linear.kernel, linear.bias

    def get_custom_L2(self) -> Tensor:  # noqa: N802 - the reference implementation's name
        """The kind's own weight decay, a scalar, such as the paper's for RepVGG blocks.

        Raises:
            InputError: if the kind has none.
            ConversionError: in deploy form, which has no branches left.
        """
        self._require_built()
        if not self.kind.has_custom_l2:
            raise InputError(
                f"Block '{self.name}' is a {self.kind.name}, which has no custom L2. Train it with ordinary weight "
                "decay on its kernels."
            )
        if self.deploy:
            raise ConversionError(f"Block '{self.name}' is in its deploy form, which has no custom L2.")
        return self.kind.custom_l2(self._weights(tensor_of), keras.ops)

    def folded(self) -> fold.Linear:
        """The same, calculated in NumPy float64."""
        self._require_built()
        if self.deploy:
            return fold.Linear(float64_of(self.reparam.kernel), float64_of(self.reparam.bias))
        return self._fold(float64_of, np.asarray)

    def _fold(self, read: Read, convert: fold.Convert) -> fold.Linear:
        return self.kind.fold(self._weights(read), self.shape, convert)

    def _weights(self, read: Read) -> Weights:
        def weights(path: str) -> Any:
            found = self.variable(path)
            return found if isinstance(found, int | float) else read(found)

        return weights

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
            for layer in (*self.branch_layers().values(), self.norm):
                if layer is not None:
                    layer.release()
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
            raise InputError(f"The file contains no weights for block '{self.name}'. It was written by another model.")
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
            "kernel_size": list(self.kernel_size),
            "copies": self.copies,
            "dilation_rate": self.dilation_rate,
            "squeeze_excite": asdict(attention) if attention else None,
            "activation": keras.activations.serialize(self.activation),
            "deploy": self.deploy,
            "data_format": self.data_format,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "identity_branch": self.identity_branch,
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
