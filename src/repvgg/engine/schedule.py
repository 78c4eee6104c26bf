"""How each layer is to be computed: the decisions, as data, with the sizes that follow from them."""

from dataclasses import dataclass, field
from typing import Literal

from repvgg.engine.isa import Isa
from repvgg.engine.layout import aligned
from repvgg.engine.plan import Convolution, Dense, Layer
from repvgg.engine.winograd import Transform, transform

Split = Literal["tiles", "kernels"]

MOST_ROWS = {
    "sse": (8, 4, 3, 2, 1),
    "neon": (14, 12, 8, 6, 4),
    "avx2": (8, 6, 4, 2, 2),
    "avx512": (14, 14, 8, 6, 4),
}
"""Rows of the largest micro-kernel of 1, 2, 3, 4, 5 vectors that LLVM keeps in registers (a test holds this): sums,
columns and one broadcast row must fit, and what LLVM loads ahead. More than 14 make code longer and nothing faster."""

SKEW = 16
"""Numbers between the matrices of one tile, so that they do not fall on the same cache sets."""


@dataclass(frozen=True)
class Grouping:
    """The groups of a convolution as they are computed: so many of them together that results fill vectors.

    Attributes:
        groups: what is left of them.
        depth: channels each reads.
        filters: channels each gives, as many as vectors have room for.
    """

    groups: int
    depth: int
    filters: int


def grouping(layer: Convolution, lanes: int) -> Grouping:
    """Groups of narrow ones are merged (their kernels with zeros between) until vectors are full."""
    groups = next(
        (
            count
            for count in range(layer.groups, 1, -1)
            if layer.groups % count == 0 and (layer.channels // count) % lanes == 0
        ),
        1,
    )
    return Grouping(groups, layer.channels_in // groups, aligned(layer.channels // groups, lanes))


@dataclass(frozen=True)
class Winograd:
    """F(m x m, 3 x 3).

    Attributes:
        m: outputs of a tile along each axis.
        split: what tasks are: blocks of tiles, each with all kernels, or blocks of kernels, each with all tiles.
        stored: whether transformed kernels are kept, or made anew from the kernels each time.
        private: where tasks are blocks of kernels, whether every thread transforms all tiles for itself. That is more
            work, but nobody waits for, or reads, what another core has just written.
        vectors: columns of the micro-kernel, in vectors.
        rows: of the micro-kernel at most.
        tiles: that are done together.
        chunk: channels whose kernels are transformed together.
    """

    m: int
    split: Split
    stored: bool
    vectors: int
    rows: int
    tiles: int
    chunk: int
    private: bool = False

    def transform(self, layer: Convolution) -> Transform:
        """The matrices of this tile for a layer's stride."""
        return transform(self.m, layer.strides[0])

    def tiling(self, result: tuple[int, int]) -> tuple[int, int]:
        """Tiles in a column and in a row of an image that comes out."""
        return -(-result[0] // self.m), -(-result[1] // self.m)

    def __str__(self) -> str:
        weights = "stored" if self.stored else f"transformed by {self.chunk}"
        split = f"{self.split}{' alone' if self.private else ''}"
        return f"F{self.m} by {split}, {self.tiles} tiles, {self.rows}x{self.vectors} vectors, kernels {weights}"


@dataclass(frozen=True)
class Direct:
    """Implicit matrix product: rows are output pixels, depth is the kernel's reach.

    Attributes:
        vectors: columns of the micro-kernel, in vectors.
        rows: pixels of the micro-kernel at most.
        bands: parts of an image's rows that are tasks of their own.
        parts: parts of the kernels that are tasks of their own.
    """

    vectors: int
    rows: int
    bands: int
    parts: int

    def __str__(self) -> str:
        return f"direct, {self.rows}x{self.vectors} vectors, {self.bands} bands x {self.parts} parts"


@dataclass(frozen=True)
class Depthwise:
    """Each channel alone, `pixels` of a row at a time."""

    pixels: int

    def __str__(self) -> str:
        return f"depthwise, {self.pixels} pixels"


@dataclass(frozen=True)
class Product:
    """A dense layer: `vectors` columns of the micro-kernel, in vectors; `rows` images of it."""

    vectors: int
    rows: int

    def __str__(self) -> str:
        return f"product, {self.rows}x{self.vectors} vectors"


def most_rows(isa: Isa, vectors: int) -> int:
    """Rows of the largest micro-kernel of `vectors` vectors."""
    return MOST_ROWS[isa.name][vectors - 1]


def product_choice(isa: Isa, vectors: int) -> Product:
    """For a matrix of so many columns, in vectors."""
    together = next(count for count in (4, 3, 2, 1) if vectors % count == 0)
    return Product(together, most_rows(isa, together))


@dataclass(frozen=True)
class Mean:
    """A global average."""

    def __str__(self) -> str:
        return "mean"


Choice = Winograd | Direct | Depthwise | Product | Mean


@dataclass(frozen=True)
class Step:
    """A layer, the images it is applied to, and how.

    Attributes:
        layer: of the plan.
        size: (height, width) of what it reads; (1, 1) for vectors.
        result: (height, width) of what it gives.
        choice: how.
        read_channels: numbers from pixel to pixel in what it reads, padding included.
        alone: whether it is done image by image, each by one thread, together with its neighbours.
    """

    layer: Layer
    size: tuple[int, int]
    result: tuple[int, int]
    choice: Choice
    read_channels: int
    alone: bool = False


@dataclass(frozen=True)
class Schedule:
    """All decisions about a network.

    Attributes:
        isa: the instruction set.
        batch: images in every call.
        image_size: (height, width) of images.
        threads: at most.
        steps: in order.
    """

    isa: Isa
    batch: int
    image_size: tuple[int, int]
    threads: int
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        height, width = self.image_size
        rows = [f"{self.batch} x {height} x {width} on {self.threads} threads, {self.isa.name}"]
        for step in self.steps:
            (h, w), layer = step.result, step.layer
            size = f"{layer.channels_in}->{layer.channels} " if isinstance(layer, Convolution) else ""
            size = f"{layer.kernel.shape[0]}->{layer.channels} " if isinstance(layer, Dense) else size
            rows.append(f"  {layer.name}: {size}{h}x{w}: {step.choice}{', image by image' if step.alone else ''}")
        return "\n".join([*rows, *self.notes])
