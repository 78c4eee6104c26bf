"""What a way of computing a layer costs, without measuring it.

The unit is the time of one vector's multiply-add. Figures were fitted to single layers on a Zen 4 with AVX2 and AVX-512
(docs/engine.md); what is compared are ways of doing the same layer, which other processors rank alike.
"""

from dataclasses import dataclass
from itertools import pairwise

from repvgg.engine.isa import Isa
from repvgg.engine.layout import aligned
from repvgg.engine.plan import Convolution
from repvgg.engine.schedule import Direct, Winograd, grouping


@dataclass(frozen=True)
class Processor:
    """What instructions cost, in multiply-adds of a vector.

    Attributes:
        latency: sums that have to be under way for multiply-adds to follow one another without a pause.
        load: a vector that is loaded, or a number that is loaded and broadcast.
        transform_in: of a tile, for each of its products.
        transform_out: back, for each product.
        transform_kernel: of a kernel, for each product.
        streamed: bytes of weights that come from memory in the same time.
        overhead: of a task.
    """

    latency: int
    load: float
    transform_in: float
    transform_out: float
    transform_kernel: float
    streamed: float
    overhead: float


PROCESSORS = {
    "avx512": Processor(4, 0.6, 3.5, 2.5, 2.5, 4.0, 300.0),
    "avx2": Processor(8, 1.0, 4.5, 3.5, 2.5, 2.0, 600.0),
    "neon": Processor(8, 0.7, 4.0, 3.0, 2.5, 2.0, 600.0),
    "sse": Processor(8, 1.0, 4.5, 3.5, 2.5, 2.0, 600.0),
}


@dataclass(frozen=True)
class Work:
    """A convolution on images of one size, and the threads that share it."""

    layer: Convolution
    isa: Isa
    batch: int
    result: tuple[int, int]
    threads: int
    streams: bool

    @property
    def processor(self) -> Processor:
        """What instructions cost here."""
        return PROCESSORS[self.isa.name]

    def block(self, rows: int, vectors: int) -> float:
        """One step of a block's depth."""
        processor = self.processor
        return max(rows * vectors, processor.latency, processor.load * (rows + vectors))


def winograd_cost(work: Work, choice: Winograd) -> float:
    """Time of all threads together, waiting included."""
    layer, isa, processor = work.layer, work.isa, work.processor
    groups = grouping(layer, isa.lanes)
    down, across = choice.tiling(work.result)
    tiles = work.batch * down * across
    products = choice.transform(layer).n ** 2
    width = choice.vectors * isa.lanes
    blocks = groups.groups * groups.filters // width
    together = tiles if choice.split == "kernels" else min(choice.tiles, tiles)
    turns = -(-tiles // together)
    parts = -(-together // choice.rows)
    starts = [together * part // parts for part in range(parts + 1)]
    depth = sum(work.block(b - a, choice.vectors) for a, b in pairwise(starts))
    matrices = products * groups.depth * depth
    back = processor.transform_out * products * choice.vectors * together
    fresh = 0.0 if choice.stored else processor.transform_kernel * products * groups.depth * choice.vectors
    if not choice.stored:
        # Sums of a chunk are loaded and stored once more.
        fresh += products * together * choice.vectors * 2 * (-(-groups.depth // choice.chunk) - 1)
    numbers = products if choice.stored else 9
    weights = 4 * numbers * groups.depth * width / processor.streamed
    one = max(matrices + back + fresh, weights if work.streams and turns <= work.threads else 0.0)
    forth = processor.transform_in * products * (aligned(layer.channels_in, isa.lanes) / isa.lanes)
    if choice.split == "kernels":
        rounds = -(-blocks // work.threads)
        each = -(-tiles // work.threads)
        return work.threads * (rounds * (one + processor.overhead) + each * forth + 2 * processor.overhead)
    rounds = -(-turns // work.threads)
    return work.threads * (rounds * (blocks * one + together * forth + processor.overhead) + processor.overhead)


def direct_cost(work: Work, choice: Direct, rectangle: tuple[int, int]) -> float:
    """Time of all threads together, waiting included."""
    layer, isa, processor = work.layer, work.isa, work.processor
    groups = grouping(layer, isa.lanes)
    width = choice.vectors * isa.lanes
    blocks = groups.groups * groups.filters // width
    band = -(-work.result[0] // choice.bands)
    rows, columns = rectangle
    count = -(-band // rows) * -(-work.result[1] // columns)
    reach = int(layer.kernel.shape[0] * layer.kernel.shape[1]) * groups.depth
    pixels = count * (reach * work.block(rows * columns, choice.vectors) + 2 * rows * columns * choice.vectors + 20)
    weights = 4 * reach * width / processor.streamed if work.streams and work.batch * choice.bands <= 4 else 0.0
    task = -(-blocks // choice.parts) * max(pixels, weights) + processor.overhead
    rounds = -(-work.batch * choice.bands * choice.parts // work.threads)
    return work.threads * (rounds * task + processor.overhead)
