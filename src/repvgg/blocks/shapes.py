"""Shape arithmetic and its checks, shared by blocks and branches."""

from collections.abc import Sequence

from repvgg.base.errors import InputError

Shape = tuple[int | None, ...]
KernelSize = int | Sequence[int]
"""A number for both sides, or height and width."""


def sides_of(kernel_size: KernelSize) -> tuple[int, int]:
    """Height and width of a kernel.

    Raises:
        InputError: unless both are odd: a kernel with an even side has no centre that other branches could share.
    """
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 and side % 2 for side in sides):
        raise InputError(f"`kernel_size` is an odd number, or two of them. Received: {kernel_size!r}.")
    return sides


def channels_of(shape: Shape, data_format: str, layer: str) -> int:
    """Channels of an image-like shape.

    Raises:
        InputError: if the shape has not four axes, or its channels are unknown.
    """
    if len(shape) != 4:
        raise InputError(
            f"'{layer}' needs a batch of images with 4 axes (N, H, W, C). Received a shape with {len(shape)}: {shape}."
        )
    channels = shape[-1 if data_format == "channels_last" else 1]
    if channels is None:
        raise InputError(f"'{layer}' needs a known number of channels ({data_format}). Received the shape {shape}.")
    return channels


def check_groups(channels: int, filters: int, groups: int, layer: str) -> None:
    """Raises `InputError` unless `groups` divides both channel counts."""
    for what, count in (("input channels", channels), ("filters", filters)):
        if groups < 1 or count % groups:
            raise InputError(f"'{layer}': {what} (={count}) must be divisible by groups (={groups}).")


def strided_shape(shape: Shape, filters: int, strides: int, data_format: str) -> Shape:
    """Shape after a convolution with PyTorch's padding: ceil(size / strides) pixels a side."""

    def side(size: int | None) -> int | None:
        return None if size is None else -(-size // strides)

    if data_format == "channels_last":
        batch, height, width, _ = shape
        return (batch, side(height), side(width), filters)
    batch, _, height, width = shape
    return (batch, filters, side(height), side(width))
