"""A network as data: what the engine compiles.

A plan is a sequence of layers that name what they read, with their weights as NumPy arrays. It knows neither image size
nor batch, processor nor framework; whatever reads a model (Keras, a file) writes one of these.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from repvgg.base.errors import InputError

INPUT = "images"
"""The name by which layers read the network's input."""

Activation = Literal["linear", "relu", "sigmoid", "softmax"]
"""How a layer ends; softmax is for dense layers alone."""

Position = Literal["before_activation", "after_activation"]
Pads = tuple[int, int, int, int]
"""Zeros (top, left, bottom, right)."""

LARGEST = 1 << 20
"""No side, channel count, stride or padding may be larger: sizes are multiplied before memory is asked for."""


MOST_LAYERS = 2000
"""Each layer is code of its own."""


@dataclass(frozen=True, eq=False)
class SqueezeExcite:
    """Channel attention: x * sigmoid(relu(mean(x) @ down + down_bias) @ up + up_bias).

    Attributes:
        down: (channels, hidden).
        down_bias: (hidden,).
        up: (hidden, channels).
        up_bias: (channels,).
        position: whether x is what the convolution gives, or what its activation gives.
    """

    down: np.ndarray
    down_bias: np.ndarray
    up: np.ndarray
    up_bias: np.ndarray
    position: Position = "before_activation"


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with all that follows it: bias, attention, activation.

    Attributes:
        name: unique in the plan.
        source: the layer it reads, or `INPUT`.
        kernel: (height, width, channels in / groups, channels out).
        bias: (channels out,).
        strides: vertical and horizontal.
        dilations: vertical and horizontal.
        groups: 1, or channels for a depthwise one, or anything between that divides both.
        pads: zeros around its input.
        activation: what it ends with.
        attention: channel attention before or after the activation, if any.
    """

    name: str
    source: str
    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    pads: Pads = (1, 1, 1, 1)
    activation: Activation = "relu"
    attention: SqueezeExcite | None = None

    @property
    def channels_in(self) -> int:
        """Channels of the image it reads."""
        return int(self.kernel.shape[2]) * self.groups

    @property
    def channels(self) -> int:
        """Channels of what it gives."""
        return int(self.kernel.shape[3])

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved alone."""
        return self.groups > 1 and self.kernel.shape[2] == 1 and self.groups == self.channels

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what it gives for an image of this size; not positive where the image is too small."""
        top, left, bottom, right = self.pads
        spans = [rate * (side - 1) + 1 for rate, side in zip(self.dilations, self.kernel.shape[:2], strict=True)]
        padded = (height + top + bottom, width + left + right)
        down, across = (
            (side - span) // stride + 1 for side, span, stride in zip(padded, spans, self.strides, strict=True)
        )
        return down, across


@dataclass(frozen=True, eq=False)
class GlobalAverage:
    """Each channel's mean over the image: (N, H, W, C) -> (N, C)."""

    name: str
    source: str


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix product of vectors, (N, C) -> (N, out): kernel (C, out), bias (out,)."""

    name: str
    source: str
    kernel: np.ndarray
    bias: np.ndarray
    activation: Activation = "linear"

    @property
    def channels(self) -> int:
        """Values it gives for an image."""
        return int(self.kernel.shape[1])


Layer = Convolution | GlobalAverage | Dense

Shape = tuple[int, int, int] | tuple[int]
"""(height, width, channels) of an image, or (channels,) of a vector."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A network.

    Attributes:
        name: what to call it in messages.
        channels: channels of the images it reads.
        layers: in an order in which they can be computed.
        outputs: names of what comes out, each with the layer that gives it, in order.

    Raises:
        InputError: if layers do not fit together; the message names the layer.
    """

    name: str
    channels: int
    layers: tuple[Layer, ...]
    outputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_count("channels", self.channels, f"The plan '{self.name}'")
        if not self.layers or not self.outputs:
            raise InputError(f"The plan '{self.name}' has no layers or no outputs; there is nothing to compile.")
        if len(self.layers) > MOST_LAYERS:
            raise InputError(
                f"The plan '{self.name}' has {len(self.layers)} layers; at most {MOST_LAYERS} are compiled."
            )
        channels: dict[str, int] = {INPUT: self.channels}
        vectors: set[str] = set()
        for layer in self.layers:
            _check_layer(layer, channels, vectors)
            if isinstance(layer, GlobalAverage | Dense):
                vectors.add(layer.name)
            channels[layer.name] = channels[layer.source] if isinstance(layer, GlobalAverage) else layer.channels
        for output, name in self.outputs.items():
            if name not in channels or name == INPUT:
                raise InputError(f"The output '{output}' of '{self.name}' is '{name}', which is not one of its layers.")

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """What every layer gives for one image of (height, width), by name; the input as `INPUT`.

        Raises:
            InputError: if the image is too small for a layer.
        """
        for side, value in (("height", height), ("width", width)):
            _check_count(side, value, "The images")
        shapes: dict[str, Shape] = {INPUT: (height, width, self.channels)}
        for layer in self.layers:
            source = shapes[layer.source]
            if isinstance(layer, Convolution):
                down, across = layer.size(source[0], source[1])  # type: ignore[misc]
                if down < 1 or across < 1:
                    raise InputError(
                        f"Images of {height} x {width} px are too small for '{self.name}': nothing is left for layer "
                        f"'{layer.name}'."
                    )
                shapes[layer.name] = (down, across, layer.channels)
            elif isinstance(layer, Dense):
                shapes[layer.name] = (layer.channels,)
            else:
                shapes[layer.name] = (source[-1],)
        return shapes

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """All weights by name: 'LAYER/kernel', 'LAYER/bias', 'LAYER/attention/down' and so on."""
        for layer in self.layers:
            if isinstance(layer, GlobalAverage):
                continue
            yield f"{layer.name}/kernel", layer.kernel
            yield f"{layer.name}/bias", layer.bias
            if isinstance(layer, Convolution) and layer.attention is not None:
                for part in ("down", "down_bias", "up", "up_bias"):
                    yield f"{layer.name}/attention/{part}", getattr(layer.attention, part)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(array.nbytes for _, array in self.arrays())

    def __str__(self) -> str:
        rows = [f"plan '{self.name}', {self.channels} channels"]
        for layer in self.layers:
            row = f"  {layer.name} <- {layer.source}: {type(layer).__name__}"
            if isinstance(layer, Convolution):
                row += f" {'x'.join(map(str, layer.kernel.shape))} stride {layer.strides} pads {layer.pads}"
                row += f" groups {layer.groups}" if layer.groups > 1 else ""
                row += f" dilation {layer.dilations}" if layer.dilations != (1, 1) else ""
                row += f" attention {layer.attention.position}" if layer.attention else ""
                row += f" {layer.activation}"
            elif isinstance(layer, Dense):
                row += f" {'x'.join(map(str, layer.kernel.shape))} {layer.activation}"
            rows.append(row)
        return "\n".join([*rows, *(f"  {output} = {name}" for output, name in self.outputs.items())])


def _check_count(what: str, value: object, where: str, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise InputError(f"{where}: '{what}' must be a whole number from {least} to {LARGEST}. Received: {value!r}.")


def _check_array(where: str, array: object, shape: tuple[int | None, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{where} must be an array of float32. Received: {got}.")
    fits = array.ndim == len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape, strict=True) if got
    )
    if not fits or 0 in array.shape or max(array.shape) > LARGEST:
        expected = ", ".join("any" if side is None else str(side) for side in shape)
        raise InputError(f"{where} has shape {array.shape}; expected ({expected}), each side from 1 to {LARGEST}.")


def _check_layer(layer: Layer, channels: Mapping[str, int], vectors: set[str]) -> None:
    where = f"Layer '{layer.name}'"
    if not layer.name or layer.name in channels:
        raise InputError(f"{where}: names are not empty, unique, and not '{INPUT}'.")
    if layer.source not in channels:
        raise InputError(f"{where} reads '{layer.source}', which no earlier layer gives.")
    if isinstance(layer, Dense):
        wanted = "vectors (N, C)"
        fits = layer.source in vectors
    else:
        wanted = "images (N, H, W, C)"
        fits = layer.source not in vectors
    if not fits:
        raise InputError(f"{where} ({type(layer).__name__}) reads {wanted}, and '{layer.source}' gives none.")
    if isinstance(layer, GlobalAverage):
        return
    known = ("linear", "relu", "sigmoid", *(("softmax",) if isinstance(layer, Dense) else ()))
    if layer.activation not in known:
        raise InputError(f"{where} has the activation {layer.activation!r}; known are {', '.join(known)}.")
    read = channels[layer.source]
    if isinstance(layer, Dense):
        _check_array(f"{where}: the kernel", layer.kernel, (read, None))
    else:
        _check_convolution(layer, read, where)
    _check_array(f"{where}: the bias", layer.bias, (layer.channels,))


def _check_convolution(layer: Convolution, read: int, where: str) -> None:
    for what, pair, least in (
        ("strides", layer.strides, 1),
        ("dilations", layer.dilations, 1),
        ("pads", layer.pads, 0),
    ):
        if len(pair) != (4 if what == "pads" else 2):
            raise InputError(f"{where}: '{what}' has {len(pair)} numbers: {pair}.")
        for value in pair:
            _check_count(what, value, where, least)
    _check_count("groups", layer.groups, where)
    if read % layer.groups:
        raise InputError(f"{where}: {read} channels cannot be divided into {layer.groups} groups.")
    _check_array(f"{where}: the kernel", layer.kernel, (None, None, read // layer.groups, None))
    if layer.channels % layer.groups:
        raise InputError(f"{where}: {layer.channels} channels cannot be divided into {layer.groups} groups.")
    attention = layer.attention
    if attention is None:
        return
    if attention.position not in ("before_activation", "after_activation"):
        raise InputError(f"{where}: attention is before_activation or after_activation, not {attention.position!r}.")
    _check_array(f"{where}: the attention's down", attention.down, (layer.channels, None))
    hidden = int(attention.down.shape[1])
    _check_array(f"{where}: the attention's down_bias", attention.down_bias, (hidden,))
    _check_array(f"{where}: the attention's up", attention.up, (hidden, layer.channels))
    _check_array(f"{where}: the attention's up_bias", attention.up_bias, (layer.channels,))
