"""Weights in the order in which code reads them: blocks of as many filters as a micro-kernel has columns."""

import contextlib
import math
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from repvgg.engine.isa import Isa
from repvgg.engine.layout import Place, aligned
from repvgg.engine.plan import Convolution, Dense
from repvgg.engine.schedule import (
    Choice,
    Depthwise,
    Direct,
    Grouping,
    Product,
    Schedule,
    Step,
    Winograd,
    grouping,
    product_choice,
)

LARGE_PAGE = 1 << 21
"""Bytes of a large page of x86-64; others have larger ones, which are multiples."""

Fill = Callable[[np.ndarray], None]


@dataclass(frozen=True)
class Packed:
    """One array that is to be packed.

    Attributes:
        shape: of the packed array, in float32.
        fill: writes it.
    """

    shape: tuple[int, ...]
    fill: Fill


def packed(schedule: Schedule) -> dict[str, Packed]:
    """All arrays that the code of a schedule reads, by their keys 'LAYER/what'."""
    arrays: dict[str, Packed] = {}
    for step in schedule.steps:
        arrays |= _of_step(step, schedule.isa)
    return arrays


def places(arrays: dict[str, Packed]) -> tuple[dict[str, Place], int]:
    """Where each array is, and bytes of all."""
    found: dict[str, Place] = {}
    total = 0
    for key, array in arrays.items():
        found[key] = Place("%constants", total)
        total += aligned(4 * math.prod(array.shape))
    # Code asks for some lines beyond what it reads.
    return found, total + 4096


def pack(arrays: dict[str, Packed]) -> np.ndarray:
    """All arrays in one, aligned to cache lines, as float32; several at a time, which NumPy does beside one another."""
    found, total = places(arrays)
    constants = zeros(total)

    def fill(key: str) -> None:
        start, shape = found[key].offset // 4, arrays[key].shape
        arrays[key].fill(constants[start : start + math.prod(shape)].reshape(shape))

    with ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="repvgg-pack") as pool:
        for _ in pool.map(fill, arrays):
            pass
    return constants


def packed_bytes(layer: Convolution, choice: Choice, isa: Isa) -> int:
    """Memory of a convolution's packed weights, attention apart."""
    step = Step(replace(layer, attention=None), (1, 1), (1, 1), choice, aligned(layer.channels_in, isa.lanes))
    return sum(4 * math.prod(array.shape) for array in _of_step(step, isa).values())


def zeros(size: int) -> np.ndarray:
    """So many bytes of zeros as float32, on large pages where the system has them.

    Weights are read once a call, each page once: with small pages, looking addresses up takes longer than reading.
    """
    # Private: a forked child must not write into its parent's memory. Windows knows neither flags nor forks.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, aligned(size, LARGE_PAGE) if size >= LARGE_PAGE else aligned(size), **private)
    if size >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel without large pages says no; small ones do as well.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.float32, size // 4)


def _of_step(step: Step, isa: Isa) -> dict[str, Packed]:
    layer, choice = step.layer, step.choice
    if isinstance(layer, Dense) and isinstance(choice, Product):
        read = aligned(layer.kernel.shape[0], isa.lanes)
        return _matrix(layer.name, layer.kernel, layer.bias, choice.vectors * isa.lanes, read, isa.lanes)
    if not isinstance(layer, Convolution):
        return {}
    arrays: dict[str, Packed] = {}
    groups = grouping(layer, isa.lanes)
    filters = groups.groups * groups.filters
    arrays[f"{layer.name}/bias"] = Packed((filters,), _fill_start(layer.bias))
    name = layer.name
    if isinstance(choice, Depthwise):
        taps = int(np.prod(layer.kernel.shape[:2]))
        arrays[f"{name}/depthwise"] = Packed((filters // isa.lanes, taps, isa.lanes), _depthwise(layer, isa.lanes))
    elif isinstance(choice, Winograd):
        width = choice.vectors * isa.lanes
        if choice.stored:
            products = choice.transform(layer).n ** 2
            shape = (filters // width, products, groups.depth, width)
            arrays[f"{name}/winograd"] = Packed(shape, _transformed(layer, groups, choice))
        else:
            shape = (filters // width, groups.depth, 9, width)
            arrays[f"{name}/kernel"] = Packed(shape, _kernels(layer, groups))
    elif isinstance(choice, Direct):
        width = choice.vectors * isa.lanes
        high, wide = layer.kernel.shape[:2]
        depth = step.read_channels if groups.groups == 1 else groups.depth
        arrays[f"{name}/direct"] = Packed((filters // width, high, wide, depth, width), _direct(layer, groups))
    attention = layer.attention
    if attention is not None:
        hidden = aligned(attention.down.shape[1], isa.lanes)
        for part, kernel, bias, read, vectors in (
            ("down", attention.down, attention.down_bias, filters, product_choice(isa, hidden // isa.lanes).vectors),
            ("up", attention.up, attention.up_bias, hidden, product_choice(isa, filters // isa.lanes).vectors),
        ):
            arrays |= _matrix(f"{name}/{part}", kernel, bias, vectors * isa.lanes, read, isa.lanes)
    return arrays


def _matrix(key: str, kernel: np.ndarray, bias: np.ndarray, width: int, read: int, lanes: int) -> dict[str, Packed]:
    columns = aligned(aligned(kernel.shape[1], lanes), width)

    def fill(out: np.ndarray) -> None:
        whole = np.zeros((read, columns), np.float32)
        whole[: kernel.shape[0], : kernel.shape[1]] = kernel
        out[...] = whole.reshape(read, columns // width, width).transpose(1, 0, 2)

    return {
        f"{key}/kernel": Packed((columns // width, read, width), fill),
        f"{key}/bias": Packed((columns,), _fill_start(bias)),
    }


def _fill_start(values: np.ndarray) -> Fill:
    def fill(out: np.ndarray) -> None:
        out[: len(values)] = values

    return fill


def merged(layer: Convolution, groups: Grouping) -> np.ndarray:
    """The kernel with groups put together, (height, width, depth, filters), and zeros between them and at the end."""
    kernel = layer.kernel
    together = layer.groups // groups.groups
    if together > 1:
        high, wide, depth, filters = kernel.shape
        each = filters // layer.groups
        whole = np.zeros((high, wide, depth * together, filters), np.float32)
        for group in range(layer.groups):
            rows = slice(group % together * depth, (group % together + 1) * depth)
            columns = slice(group * each, (group + 1) * each)
            whole[:, :, rows, columns] = kernel[:, :, :, columns]
        kernel = whole
    missing = groups.groups * groups.filters - kernel.shape[3]
    return np.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, missing))) if missing else kernel


def _blocks(kernel: np.ndarray, width: int) -> np.ndarray:
    """(blocks, height, width, depth, filters of a block), not copied."""
    high, wide, depth, filters = kernel.shape
    return kernel.reshape(high, wide, depth, filters // width, width).transpose(3, 0, 1, 2, 4)


def _direct(layer: Convolution, groups: Grouping) -> Fill:
    def fill(out: np.ndarray) -> None:
        out[:, :, :, : groups.depth] = _blocks(merged(layer, groups), out.shape[-1])

    return fill


def _kernels(layer: Convolution, groups: Grouping) -> Fill:
    def fill(out: np.ndarray) -> None:
        blocks = _blocks(merged(layer, groups), out.shape[-1])
        out[...] = blocks.reshape(len(blocks), 9, groups.depth, -1).transpose(0, 2, 1, 3)

    return fill


def _transformed(layer: Convolution, groups: Grouping, choice: Winograd) -> Fill:
    def fill(out: np.ndarray) -> None:
        matrices = choice.transform(layer)
        for block, kernel in zip(out, _blocks(merged(layer, groups), out.shape[-1]), strict=True):
            # In float64: what is stored is rounded once.
            block[...] = matrices.kernels(kernel.astype(np.float64))

    return fill


def _depthwise(layer: Convolution, lanes: int) -> Fill:
    def fill(out: np.ndarray) -> None:
        taps = layer.kernel.reshape(-1, layer.channels).T
        whole = np.zeros((out.shape[0] * lanes, taps.shape[1]), np.float32)
        whole[: len(taps)] = taps
        out[...] = whole.reshape(-1, lanes, taps.shape[1]).transpose(0, 2, 1)

    return fill
