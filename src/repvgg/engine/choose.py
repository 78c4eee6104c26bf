"""Which way each layer is computed: the one that the cost model says is fastest, within a budget of memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from repvgg.engine.cost import NEAR, Work, direct_cost, winograd_cost
from repvgg.engine.emit.direct import rectangle
from repvgg.engine.isa import Isa
from repvgg.engine.layout import aligned
from repvgg.engine.pack import packed_bytes
from repvgg.engine.plan import INPUT, Convolution, Dense, GlobalAverage, Layer, Plan
from repvgg.engine.schedule import (
    Choice,
    Depthwise,
    Direct,
    Mean,
    Schedule,
    Step,
    Winograd,
    grouping,
    most_rows,
    product_choice,
)

LARGEST_TILE = 6
"""F(6 x 6, 3 x 3): 64 products for 36 outputs. Larger ones lose too many digits."""

MEMORY_FACTOR = 2.9
"""Packed weights take at most so many times the memory of the weights."""

SMALL_CHANNELS = 8
"""Images of fewer channels are convolved directly."""

MOST_TAPS = 49
"""Taps of a depthwise kernel up to which all are written out in code; larger ones are merged groups."""

SCRATCH = 192 * 1024
"""Bytes that kernels transformed on the way may take; tiles and products share the core's own cache with them."""

TILES = 512 * 1024
"""Bytes that the transformed tiles of a task may take."""

CACHED = 8 << 20
"""Bytes of weights of a network from which on they do not stay in caches from call to call."""


TRANSFORMED = 4
"""Transformed kernels take about so many times the memory of kernels."""


@dataclass(frozen=True)
class Option:
    """A way of computing a layer.

    Attributes:
        choice: the way.
        cost: what the model says it takes.
        bytes: memory of its packed weights.
    """

    choice: Choice
    cost: float
    bytes: int


def choose(
    plan: Plan,
    isa: Isa,
    *,
    batch: int,
    image_size: tuple[int, int],
    threads: int,
    largest_tile: int = LARGEST_TILE,
) -> Schedule:
    """The schedule of a plan.

    Args:
        plan: the network.
        isa: the instruction set.
        batch: images in every call.
        image_size: (height, width) of images.
        threads: how many share the work.
        largest_tile: outputs of a Winograd tile along an axis at most; 1 for none but direct convolutions.
    """
    options = options_of(plan, isa, batch=batch, image_size=image_size, threads=threads, largest_tile=largest_tile)
    picked = within([list(some) for some in options], int(MEMORY_FACTOR * plan.weight_bytes))
    return assemble(plan, isa, [option.choice for option in picked], batch, image_size, threads)


def options_of(
    plan: Plan, isa: Isa, *, batch: int, image_size: tuple[int, int], threads: int, largest_tile: int = LARGEST_TILE
) -> list[list[Option]]:
    """All ways of computing each layer, the cheapest first; arguments are those of `choose`."""
    shapes = plan.shapes(*image_size)
    streams = plan.weight_bytes > CACHED
    options: list[list[Option]] = []
    seen: dict[tuple[object, ...], list[Option]] = {}
    front = leading(plan, batch, image_size, threads)
    for index, layer in enumerate(plan.layers):
        if not isinstance(layer, Convolution):
            options.append([Option(_other(layer, isa), 0.0, 0)])
            continue
        result = _size(shapes[layer.name])
        count, sharing = (1, 1) if index < front else (batch, threads)
        key = (layer.kernel.shape, layer.strides, layer.dilations, layer.groups, result, count)
        if key not in seen:
            work = Work(layer, isa, count, result, sharing, streams and index >= front)
            found = [replace(option, cost=option.cost * batch / count) for option in _options(work, largest_tile)]
            seen[key] = sorted(found, key=lambda option: option.cost)
        options.append(seen[key])
    return options


def assemble(
    plan: Plan,
    isa: Isa,
    choices: Sequence[Choice],
    batch: int,
    image_size: tuple[int, int],
    threads: int,
) -> Schedule:
    """The schedule in which each layer is computed as chosen."""
    shapes = plan.shapes(*image_size)
    by_name = {layer.name: choice for layer, choice in zip(plan.layers, choices, strict=True)}
    # Images are read as they come where no transform wants whole vectors of channels.
    raw = all(isinstance(by_name[layer.name], Direct) for layer in plan.layers if layer.source == INPUT)
    front = leading(plan, batch, image_size, threads)
    steps = []
    for index, layer in enumerate(plan.layers):
        source, result = shapes[layer.source], shapes[layer.name]
        channels = source[-1] if raw and layer.source == INPUT else aligned(source[-1], isa.lanes)
        steps.append(Step(layer, _size(source), _size(result), by_name[layer.name], channels, alone=index < front))
    return Schedule(isa, batch, image_size, threads, tuple(steps))


def leading(plan: Plan, batch: int, image_size: tuple[int, int], threads: int) -> int:
    """How many of the first layers are done image by image, each by one thread.

    Their images are larger than their weights: one image's results stay in a core's cache from layer to layer.
    """
    if batch < 2 * threads or (batch % threads and batch < 8 * threads):
        return 0
    shapes = plan.shapes(*image_size)
    count = 0
    for layer in plan.layers:
        expected = plan.layers[count - 1].name if count else INPUT
        readers = sum(other.source == layer.source for other in plan.layers)
        if not isinstance(layer, Convolution) or layer.source != expected or readers > 1:
            break
        if layer.name in plan.outputs.values():
            break
        pixels = 4 * int(np.prod(shapes[layer.source])) + 4 * int(np.prod(shapes[layer.name]))
        if pixels < TRANSFORMED * layer.kernel.nbytes:
            break
        count += 1
    return count


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 3 else (1, 1)


def _other(layer: Layer, isa: Isa) -> Choice:
    if isinstance(layer, Dense):
        return product_choice(isa, aligned(layer.channels, isa.lanes) // isa.lanes)
    if isinstance(layer, GlobalAverage):
        return Mean()
    raise TypeError(f"'{layer.name}' is a convolution.")


def within(options: list[list[Option]], budget: int) -> list[Option]:
    """The cheapest option of each layer, then, while all take too much memory, the exchange that costs least a byte."""
    picked = [some[0] for some in options]
    while sum(option.bytes for option in picked) > budget:
        best: tuple[float, int, Option] | None = None
        for index, some in enumerate(options):
            for option in some:
                saved = picked[index].bytes - option.bytes
                if saved > 0:
                    price = (option.cost - picked[index].cost) / saved
                    if best is None or price < best[0]:
                        best = price, index, option
        if best is None:
            break
        picked[best[1]] = best[2]
    return picked


def _options(work: Work, largest_tile: int) -> Iterator[Option]:
    layer, isa, result = work.layer, work.isa, work.result
    if layer.is_depthwise and layer.kernel[:, :, 0, 0].size <= MOST_TAPS:
        yield Option(Depthwise(min(8 if isa.registers > 16 else 4, result[1])), 0.0, 0)
        return
    groups = grouping(layer, isa.lanes)
    vectors = groups.filters // isa.lanes
    for together in (1, 2, 3, 4, 5):
        if vectors % together:
            continue
        rows = most_rows(isa, together)
        for choice in _direct(work, groups.groups * vectors // together, together, rows):
            band = -(-result[0] // choice.bands)
            cost = direct_cost(work, choice, rectangle(band, result[1], rows))
            yield Option(choice, cost, packed_bytes(layer, choice, isa))
        for tile in _winograd(work, together, rows, largest_tile):
            yield Option(tile, winograd_cost(work, tile), packed_bytes(layer, tile, isa))


def _direct(work: Work, blocks: int, vectors: int, rows: int) -> Iterator[Direct]:
    # Tasks for each thread to choose from; more, smaller ones cost a little each.
    enough = 1 if work.threads == 1 else 4 * work.threads
    bands = {1, min(work.result[0], -(-enough // work.batch))}
    for count in sorted(bands):
        for parts in sorted({1, min(blocks, -(-enough // (work.batch * count)))}):
            yield Direct(vectors, rows, count, parts)


def _winograd(work: Work, vectors: int, rows: int, largest_tile: int) -> Iterator[Winograd]:
    layer, isa = work.layer, work.isa
    fits = (
        layer.kernel.shape[:2] == (3, 3)
        and layer.dilations == (1, 1)
        and layer.strides in ((1, 1), (2, 2))
        and layer.channels_in >= SMALL_CHANNELS
    )
    if not fits:
        return
    groups = grouping(layer, isa.lanes)
    channels = aligned(layer.channels_in, isa.lanes)
    for m in range(2, largest_tile + 1):
        if m > max(work.result) + 1:
            break
        empty = Winograd(m, "tiles", True, vectors, rows, 1, groups.depth)
        down, across = empty.tiling(work.result)
        tiles = work.batch * down * across
        products = empty.transform(layer).n ** 2
        chunk = min(groups.depth, max(16, SCRATCH // (4 * products * vectors * isa.lanes) // 8 * 8))
        for stored in (True, False):
            base = replace(empty, stored=stored, chunk=chunk)
            if tiles <= 400:
                yield replace(base, split="kernels", tiles=tiles)
                if work.threads > 1 and 4 * products * channels * tiles <= NEAR:
                    yield replace(base, split="kernels", tiles=tiles, private=True)
            fitting = max(4, TILES // (4 * products * channels))
            most = min(fitting, -(-tiles // work.threads))
            yield replace(base, tiles=_even(tiles, most, rows))


def _even(tiles: int, most: int, rows: int) -> int:
    """Tiles of a task, at most so many: a multiple of the micro-kernel's rows if that fits, and no small rest."""
    if most >= rows:
        most -= most % rows
    turns = -(-tiles // most)
    return -(-tiles // turns)
