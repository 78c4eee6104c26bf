"""What a way of computing a layer costs, without measuring it.

The unit is the time of one vector's multiply-add. Figures were fitted on a Zen 5, with AVX2 and AVX-512, to the layers
of RepVGG-A0, A2 and B1 with 1 and 8 images on 1 and 2 threads, each computed in 8 to 20 ways in the network (`tune`
measures the same): what the model picks takes 0 to 12 % longer than what measured best, 5 % in the mean. What is
compared are ways of doing the same layer, which processors with caches of the usual sizes rank alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from repvgg.engine.isa import Isa
from repvgg.engine.layout import aligned
from repvgg.engine.plan import Convolution
from repvgg.engine.schedule import Direct, Winograd, grouping
from repvgg.engine.winograd import Rows, Transform


@dataclass(frozen=True)
class Processor:
    """What instructions cost, in multiply-adds of a vector.

    Attributes:
        latency: sums that have to be under way for multiply-adds to follow one another without a pause.
        shapes: a multiply-add in micro-kernels of 1, 2, 3, 4, 5 vectors, as measured.
        load: a vector that is loaded, or a number that is loaded and broadcast.
        store: a vector that is stored.
        arithmetic: an addition or multiplication among others, in a transform.
        spill: a vector of a transform that there is no register for.
        memory: bytes of weights that come from memory in the same time.
        cache: bytes that come from the last cache.
        handed: bytes that come from another core's cache.
        exposed: the share of reading weights that computing does not hide.
        task: taking one up, and waiting for the others at the end.
    """

    latency: int
    shapes: tuple[float, ...]
    load: float
    store: float
    arithmetic: float
    spill: float
    memory: float
    cache: float
    handed: float
    exposed: float
    task: float


_OF_VECTORS_OF_8 = Processor(
    latency=8,
    shapes=(1.0, 1.0, 1.0, 1.0, 1.0),
    load=1.25,
    store=2.0,
    arithmetic=1.2,
    spill=0.3,
    memory=4.0,
    cache=14.0,
    handed=2.5,
    exposed=0.02,
    task=2000.0,
)
_OF_VECTORS_OF_16 = Processor(
    latency=4,
    shapes=(1.0, 1.1, 1.0, 1.1, 1.15),
    load=1.7,
    store=2.3,
    arithmetic=0.6,
    spill=6.0,
    memory=3.0,
    cache=16.0,
    handed=2.5,
    exposed=0.3,
    task=800.0,
)
PROCESSORS = {
    "avx512": _OF_VECTORS_OF_16,
    "avx2": _OF_VECTORS_OF_8,
    # Not measured.
    "neon": _OF_VECTORS_OF_8,
    "sse": _OF_VECTORS_OF_8,
}

NEAR = 640 * 1024
"""Bytes that stay in a core's own cache."""


@dataclass(frozen=True)
class Work:
    """A convolution on images of one size, and the threads that share it.

    Attributes:
        layer: the convolution.
        isa: the instruction set.
        batch: images.
        result: (height, width) of what comes out.
        threads: that share the work.
        streams: whether weights of the network are too many to stay in caches from call to call.
    """

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
        products = rows * vectors * processor.shapes[vectors - 1]
        return max(products, processor.latency, processor.load * (rows + vectors))

    def weights(self, size: int, passes: int) -> float:
        """Reading so many bytes of weights, from memory first, then from caches."""
        first = size / (self.processor.memory if self.streams else self.processor.cache)
        return first + (passes - 1) * self.far(size)

    def beside(self, computing: float, reading: float) -> float:
        """Both at a time, as far as weights are asked for early enough."""
        return max(computing, reading) + self.processor.exposed * min(computing, reading)

    def far(self, size: float) -> float:
        """Reading or writing so many bytes, if they are too many for a core's own cache."""
        return size / self.processor.cache if size > NEAR else 0.0

    def shared(self, tasks: int) -> float:
        """Time of all threads for one unit of work each task: those that wait count, too."""
        return self.threads * -(-tasks // self.threads)


@cache
def operations(rows: Rows, pairs: Sequence[tuple[int, int]]) -> int:
    """Additions and multiplications of a one-dimensional transform; a pair shares its halves."""
    terms = [sum(x != 0 for x in row) for row in rows]
    second = {j for _, j in pairs}
    return sum(count - (1 if count else 0) for i, count in enumerate(terms) if i not in second) + 2 * len(second)


@dataclass(frozen=True)
class Transforms:
    """Times of one tile's, and one kernel's, transforms, for one vector of channels."""

    forth: float
    back: float
    kernel: float

    @classmethod
    def of(cls, matrices: Transform, processor: Processor, registers: int) -> "Transforms":
        """For a tile size on a processor with so many vector registers."""
        n, m = matrices.n, matrices.m
        a, load, store = processor.arithmetic, processor.load, processor.store
        forth = 2 * n * operations(matrices.bt, matrices.pairs)
        back = (n + m) * (m * (n - 1 - len(matrices.pairs)) + 2 * len(matrices.pairs))
        kernel = (3 + n) * operations(matrices.g, matrices.pairs)

        def kept(values: int) -> float:
            """Between the two passes of a transform; what has no register is stored and loaded again."""
            return processor.spill * max(0, values - registers)

        return cls(
            forth=a * forth + (load + store) * n * n + kept(n * n),
            back=a * back + load * n * n + store * m * m + kept(n * m),
            kernel=a * kernel + load * 9 + store * n * n + kept(3 * n),
        )


def winograd_cost(work: Work, choice: Winograd) -> float:
    """Time of all threads together, waiting included."""
    layer, isa, processor = work.layer, work.isa, work.processor
    groups = grouping(layer, isa.lanes)
    down, across = choice.tiling(work.result)
    tiles = work.batch * down * across
    matrices = choice.transform(layer)
    transforms = Transforms.of(matrices, processor, isa.registers)
    products = matrices.n**2
    width = choice.vectors * isa.lanes
    blocks = groups.groups * groups.filters // width
    channels = aligned(layer.channels_in, isa.lanes)
    together = tiles if choice.split == "kernels" else min(choice.tiles, tiles)
    turns = -(-tiles // together)
    parts = -(-together // choice.rows)
    depth = sum(work.block(b - a, choice.vectors) for a, b in pairwise(together * p // parts for p in range(parts + 1)))
    block = products * (groups.depth * depth + 12 * parts) + transforms.back * choice.vectors * together
    if not choice.stored:
        block += transforms.kernel * groups.depth * choice.vectors
        # Sums of a chunk are loaded and stored once more.
        again = -(-groups.depth // choice.chunk) - 1
        block += again * products * together * choice.vectors * (processor.load + processor.store)
    forth = transforms.forth * channels / isa.lanes
    weights = 4 * (products if choice.stored else 9) * groups.depth * width
    v = 4 * products * together * channels
    if choice.split == "kernels":
        again = 1 if choice.stored else -(-groups.depth // choice.chunk)
        block += 2 * again * work.far(4 * products * together * width)
        block = work.beside(block, work.weights(weights, 1) + work.far(v)) + processor.task
        if choice.private:
            return work.shared(blocks) * block + work.threads * (tiles * forth + work.far(v) + processor.task)
        first = forth + work.far(v) / tiles + processor.task / tiles
        handed = (work.threads - 1) * v / processor.handed
        return work.shared(blocks) * block + work.shared(tiles) * first + handed + 2 * work.threads * processor.task
    reading = work.weights(weights * blocks, turns) / turns
    reading += blocks * work.far(v)
    task = work.beside(blocks * block, reading) + together * forth + work.far(v) + processor.task
    return work.shared(turns) * task + work.threads * processor.task


def direct_cost(work: Work, choice: Direct, rectangle: tuple[int, int]) -> float:
    """Time of all threads together, waiting included."""
    layer, isa, processor = work.layer, work.isa, work.processor
    groups = grouping(layer, isa.lanes)
    width = choice.vectors * isa.lanes
    blocks = -(-groups.groups * groups.filters // width // choice.parts)
    band = -(-work.result[0] // choice.bands)
    rows, columns = rectangle
    count = -(-band // rows) * -(-work.result[1] // columns)
    reach = int(layer.kernel.shape[0] * layer.kernel.shape[1]) * groups.depth
    sums = rows * columns * choice.vectors
    pixels = count * (reach * work.block(rows * columns, choice.vectors) + (1 + processor.store) * sums + 20)
    passes = work.batch * choice.bands
    reading = work.weights(4 * reach * width * blocks, passes) / passes
    # Each block of kernels goes through all of what is written.
    written = blocks * work.far(4 * work.result[0] * work.result[1] * groups.groups * groups.filters) / choice.bands
    tasks = passes * choice.parts
    return (
        work.shared(tasks) * (work.beside(blocks * pixels, reading) + written + processor.task)
        + work.threads * processor.task
    )
