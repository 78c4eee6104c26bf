"""The layer of any branch, from what its kind says of it: chains of several steps among them."""

from collections.abc import Mapping
from typing import Any

import keras

from repvgg.blocks import kind, ops
from repvgg.blocks.branches import BatchNorm, ChannelScale, Conv, ConvBatchNorm, IdentityBasedConv
from repvgg.blocks.shapes import Shape, channels_of
from repvgg.core import fold

Tensor = Any


class Chain(keras.layers.Layer):
    """A branch of several steps; each has a layer of its own, but averages, which have no weights.

    Zeros are put around the input, in effect: what the steps before the first larger window make of a zero pixel in
    inference is put around their output, wide enough for that window and all behind it. So the whole is one convolution
    in inference, at the borders too; in training the statistics before that window are those of the image alone.

    Source: for a 1x1 convolution and its normalization before a larger window, Ding et al., Diverse Branch Block, CVPR
    2021, arXiv 2103.13425, section 3.2 and the authors' `BNAndPadLayer`.
    """

    def __init__(
        self,
        branch: kind.Branch,
        filters: int,
        *,
        convolution: Mapping[str, Any],
        norm: Mapping[str, Any],
        layout: Mapping[str, Any],
    ) -> None:
        super().__init__(name=branch.name, dtype=layout["dtype"])
        self.branch = branch
        self.strides = convolution["strides"]
        self.dilation_rate = convolution["dilation_rate"]
        self.data_format = layout["data_format"]
        self._windows = [place for place, step in enumerate(branch.steps) if isinstance(step, kind.Window)]
        # The first larger window, if there is one.
        self._padded_at = next(
            (
                place
                for place, step in enumerate(branch.steps)
                if isinstance(step, kind.Window) and step.kernel_size != (1, 1)
            ),
            None,
        )
        # A convolution that reads the input itself pads with zeros as it goes.
        first_pads = self._padded_at == 0 and isinstance(branch.steps[0], kind.Conv)
        if first_pads:
            self._padded_at = None
        for place, (path, step) in enumerate(branch.step_paths()):
            name = path.removesuffix(".")
            if isinstance(step, kind.Norm):
                setattr(self, name, BatchNorm(name=name, **norm, **layout))
            elif isinstance(step, kind.Scale):
                setattr(self, name, ChannelScale(name=name, **layout))
            elif isinstance(step, kind.Conv):
                own = {**convolution, "strides": self._strides_at(place)}
                make = Conv
                if step.identity_based:
                    make, own["kernel_initializer"] = IdentityBasedConv, "zeros"
                padded = first_pads and place == 0
                setattr(
                    self,
                    name,
                    make(step.filters or filters, step.kernel_size, padded=padded, name=name, **own, **layout),
                )

    def _strides_at(self, place: int) -> int:
        return self.strides if place == self._windows[-1] else 1

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(input_shape, self.data_format, self.name)
        for path, step in self.branch.step_paths():
            if not isinstance(step, kind.AveragePool):
                layer = getattr(self, path.removesuffix("."))
                layer.build(self._pixels(channels))
                channels = layer.filters if isinstance(step, kind.Conv) else channels

    def _pixels(self, channels: int, side: int | None = None) -> Shape:
        last = self.data_format == "channels_last"
        return (side, side, side, channels) if last else (side, channels, side, side)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        outputs = inputs
        channels = int(inputs.shape[-1 if self.data_format == "channels_last" else 1])
        for place, _ in enumerate(self.branch.steps):
            if place == self._padded_at:
                zero = keras.ops.zeros(self._pixels(channels, 1), dtype=inputs.dtype)
                for before in range(place):
                    zero = self._step(before, zero, training=False)
                outputs = self._surrounded(outputs, keras.ops.stop_gradient(zero))
            outputs = self._step(place, outputs, training=training)
        return outputs

    def _step(self, place: int, inputs: Tensor, *, training: bool) -> Tensor:
        path, step = list(self.branch.step_paths())[place]
        if isinstance(step, kind.AveragePool):
            return self._average(inputs, step.kernel_size, self._strides_at(place))
        return getattr(self, path.removesuffix("."))(inputs, training=training)

    def _average(self, images: Tensor, size: tuple[int, int], strides: int) -> Tensor:
        if self.dilation_rate == 1:
            return keras.ops.average_pool(images, size, strides, padding="valid", data_format=self.data_format)
        channels = int(images.shape[-1 if self.data_format == "channels_last" else 1])
        return ops.conv2d(
            images,
            keras.ops.convert_to_tensor(fold.average_kernel(channels, channels, size), images.dtype),
            dilation_rate=self.dilation_rate,
            groups=channels,
            data_format=self.data_format,
            padded=False,
        )

    def _surrounded(self, images: Tensor, pixel: Tensor) -> Tensor:
        """`images` in a frame of `pixel`."""
        height, width = (self.dilation_rate * (side // 2) for side in self.branch.kernel_size)
        frame = [(0, 0), (height, height), (width, width), (0, 0)]
        if self.data_format == "channels_first":
            frame = [frame[0], frame[3], frame[1], frame[2]]
        axis = -1 if self.data_format == "channels_last" else 1
        inside = keras.ops.pad(keras.ops.ones_like(keras.ops.take(images[:1], [0], axis=axis)), frame)
        return keras.ops.pad(images, frame) + pixel * (1 - inside)

    def release(self) -> None:
        """Gives up all weights; the layer cannot be called any more."""
        for path, step in self.branch.step_paths():
            if not isinstance(step, kind.AveragePool):
                getattr(self, path.removesuffix(".")).release()


def branch_layer(
    branch: kind.Branch,
    filters: int,
    *,
    convolution: Mapping[str, Any],
    norm: Mapping[str, Any],
    layout: Mapping[str, Any],
) -> Any:
    """The layer of a branch; None for the input itself."""
    if not branch.steps:
        return None
    shared: dict[str, Any] = {"name": branch.name, **layout}
    match branch.steps:
        case [kind.Norm()]:
            return BatchNorm(**shared, **norm)
        case [kind.Scale()]:
            return ChannelScale(**shared)
        case [kind.Conv(kernel_size=size, filters=None, identity_based=False), *others]:
            own = {**shared, **convolution}
            if size == (1, 1):
                own["dilation_rate"] = 1
            if not others:
                return Conv(filters, size, **own)
            if [type(step) for step in others] == [kind.Norm]:
                return ConvBatchNorm(filters, size, **own, **norm)
    return Chain(branch, filters, convolution=convolution, norm=norm, layout=layout)
