"""The primitive operations that a network is written in, and what a writer of a format has to know.

`stock_layers.py` says which of them a Keras layer is; a format's `write.py` says what each is in its format. Tensors of
four axes are images; a format may keep their axes in an order of its own. All others are as Keras has them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import keras
import numpy as np

from repvgg.base.errors import InputError
from repvgg.targets import Settings

INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"

Tensor = TypeVar("Tensor")
Activation = Literal["relu", "relu6", "sigmoid", "tanh", "softmax", "silu", "gelu", "hard_sigmoid", "hard_silu"]
Combination = Literal["add", "multiply", "concatenate"]
Pool = Literal["max", "average"]
Interpolation = Literal["nearest", "bilinear"]
Pads = tuple[int, int, int, int]
"""Zeros (top, left, bottom, right)."""

ACTIVATIONS: tuple[Activation, ...] = (
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "softmax",
    "silu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
)
NO_PADS: Pads = (0, 0, 0, 0)
FLOAT16 = "float16"
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Convolution:
    """What a convolution is, in every format: kernel (height, width, in / groups, out), bias (out,).

    Attributes:
        same: whether the padding is what Keras calls "same": as much as gives ceil(size / stride), the odd one behind.
        pads: the padding; None where it is "same" and depends on sizes that are open.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int]
    dilations: tuple[int, int]
    groups: int
    pads: Pads | None
    same: bool = False


@dataclass(frozen=True)
class TransposedConvolution:
    """The gradient of a convolution: kernel (height, width, out, in), bias (out,).

    Attributes:
        same: whether Keras calls the padding of that convolution "same"; "valid" if not.
        crops: what is cut off the whole result, which is stride * (size - 1) + kernel large.
        more: rows and columns that only the bias reaches, at the bottom and on the right.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int]
    same: bool
    crops: Pads
    more: tuple[int, int]

    @property
    def growth(self) -> tuple[int, int]:
        """The size of the result is stride * size + this."""
        top, left, bottom, right = self.crops
        height, width = (size - stride for size, stride in zip(self.kernel.shape[:2], self.strides, strict=True))
        return height - top - bottom + self.more[0], width - left - right + self.more[1]


@dataclass(frozen=True)
class Pooling:
    """The maximum or mean of each window; padding is not part of either.

    `same` and `pads` are as in `Convolution`.
    """

    kind: Pool
    size: tuple[int, int]
    strides: tuple[int, int]
    pads: Pads | None
    same: bool


@dataclass(frozen=True)
class Resize:
    """Images of another size: `size`, or `factors` times as large.

    Pixels are squares and their values are at the centres (half-pixel centres); nothing is averaged when it shrinks.
    """

    interpolation: Interpolation
    size: tuple[int, int] | None = None
    factors: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Dense:
    """A matrix product: kernel (in, out), bias (out,)."""

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True)
class Normalization:
    """Batch normalization with fixed statistics, each (channels,)."""

    name: str
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


class GraphWriter(ABC, Generic[Tensor]):
    """Writes operations; subclasses know how each is written.

    `Tensor` is whatever stands for a tensor in the format. Labels are unique in a model and derived from the layers'
    names. `rank` is a tensor's number of axes, the batch's included.
    """

    what: ClassVar[str]
    """The format's name, for messages."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def convolve(self, tensor: Tensor, convolution: Convolution, label: str) -> Tensor:
        """Convolution and bias."""

    @abstractmethod
    def convolve_transposed(self, tensor: Tensor, convolution: TransposedConvolution, label: str) -> Tensor:
        """Transposed convolution and bias."""

    @abstractmethod
    def pad(self, tensor: Tensor, pads: Pads, label: str) -> Tensor:
        """Zeros around images."""

    @abstractmethod
    def pool(self, tensor: Tensor, pooling: Pooling, label: str) -> Tensor:
        """Maxima or means of windows."""

    @abstractmethod
    def pool_globally(self, tensor: Tensor, kind: Pool, label: str, *, keepdims: bool) -> Tensor:
        """Each channel's maximum or mean over the image: (N, C), or images of one pixel with `keepdims`."""

    @abstractmethod
    def resize(self, tensor: Tensor, resize: Resize, label: str) -> Tensor:
        """Images of another size."""

    @abstractmethod
    def reshape(self, tensor: Tensor, rank: int, shape: Sequence[int], label: str) -> Tensor:
        """Each example in another shape, in Keras's order of axes; -1 for at most one axis that follows from others."""

    @abstractmethod
    def dense(self, tensor: Tensor, dense: Dense, label: str) -> Tensor:
        """Matrix product and bias of vectors (N, C)."""

    @abstractmethod
    def normalize(self, tensor: Tensor, normalization: Normalization, label: str) -> Tensor:
        """Batch normalization of images."""

    @abstractmethod
    def scale(self, tensor: Tensor, rank: int, factor: np.ndarray, addend: np.ndarray, label: str) -> Tensor:
        """The tensor times `factor`, plus `addend`; each (channels,), or () for all alike."""

    @abstractmethod
    def activate(self, tensor: Tensor, rank: int, activation: Activation, label: str) -> Tensor:
        """An activation; softmax is over the channels, the last axis in Keras."""

    @abstractmethod
    def combine(self, tensors: Sequence[Tensor], rank: int, how: Combination, label: str) -> Tensor:
        """Sum or product with broadcasting, or channels one after the other."""

    def array(self, variable: Any) -> np.ndarray:
        """A weight of the model as an array of float32; for float16 it is rounded here, the same for every format."""
        values = np.asarray(keras.ops.convert_to_numpy(variable.value), dtype=np.float32)
        if self.settings.precision != FLOAT16:
            return values
        if not np.abs(values).max(initial=0) <= FLOAT16_MAX:
            raise InputError(
                f"The weight '{variable.path}' has values above {FLOAT16_MAX:.0f}, which float16 cannot hold. "
                "Export in float32."
            )
        return in_float16(values)


def in_float16(values: np.ndarray) -> np.ndarray:
    """The values that float16 can hold next to these, in their own type."""
    return values.astype(np.float16).astype(values.dtype)
