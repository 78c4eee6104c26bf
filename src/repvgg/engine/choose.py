"""Which way each layer is computed."""

from repvgg.engine.isa import Isa
from repvgg.engine.layout import aligned
from repvgg.engine.plan import INPUT, Convolution, Dense, GlobalAverage, Plan
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


def choose(plan: Plan, isa: Isa, batch: int, image_size: tuple[int, int], threads: int, **over) -> Schedule:
    shapes = plan.shapes(*image_size)
    steps = []
    for layer in plan.layers:
        source = shapes[layer.source]
        size = source[:2] if len(source) == 3 else (1, 1)
        result = shapes[layer.name]
        out = result[:2] if len(result) == 3 else (1, 1)
        if isinstance(layer, Dense):
            choice: Choice = product_choice(isa, aligned(layer.channels, isa.lanes) // isa.lanes)
        elif isinstance(layer, GlobalAverage):
            choice = Mean()
        else:
            choice = _convolution(layer, isa, batch, out, threads, over.get(layer.name) or over)
        raw = layer.source == INPUT and isinstance(choice, Direct) and sum(l.source == INPUT for l in plan.layers) == 1
        channels = source[-1] if raw else aligned(source[-1], isa.lanes)
        steps.append(Step(layer, size, out, choice, channels, alone=len(steps) < over.get("front", 0)))
    return Schedule(isa, batch, image_size, threads, tuple(steps))


def _convolution(layer, isa, batch, out, threads, over):
    groups = grouping(layer, isa.lanes)
    vectors = groups.filters // isa.lanes
    if layer.is_depthwise:
        return Depthwise(min(4 if isa.registers == 16 else 8, out[1]))
    nv = next(count for count in ((2, 3, 4, 1)) if vectors % count == 0)
    winograd = layer.kernel.shape[:2] == (3, 3) and layer.dilations == (1, 1) and layer.strides in ((1, 1), (2, 2)) and layer.channels_in >= 8
    m = min(over.get("m", 4), over.get("largest_tile", 6)) % 100
    m = 0 if m == 1 else m
    if winograd and m and not (layer.strides == (2, 2) and over.get("direct2")):
        down, across = -(-out[0] // m), -(-out[1] // m)
        tiles = batch * down * across
        split = over.get("split") or ("kernels" if tiles <= 32 else "tiles")
        together = min(over.get("tiles", 28), tiles)
        return Winograd(m, split, over.get("stored", True), nv, most_rows(isa, nv), together, min(over.get("chunk", 96), groups.depth))
    blocks = groups.groups * vectors // nv
    bands = max(1, min(out[0], -(-4 * threads // batch)))
    return Direct(nv, most_rows(isa, nv), bands, 1)
