"""What stands around convolutions: images in and out, means, attention, dense layers."""

from repvgg.engine.emit.matrix import multiply
from repvgg.engine.emit.module import Module, activate, exponential
from repvgg.engine.ir import Function, Index, Value, number
from repvgg.engine.layout import Images, Place
from repvgg.engine.schedule import Product


def copy_in(module: Module, images: Place, target: Images) -> None:
    """Images, dense, into the middle of their borders; a task is a row."""

    def task(f: Function) -> None:
        image, y = f.divide("%task", target.height)
        row = target.width * target.channels
        source = f.at(images.pointer(f), f.multiply("%task", row))
        _copy(f, source, f.at(target.place.pointer(f), target.offset(f, image, y, 0)), row)

    module.phase("images", target.count * target.height, task)


def copy_in_padded(module: Module, images: Place, channels: int, target: Images) -> None:
    """Images of fewer channels than the target has: pixel by pixel; a task is a row."""

    def task(f: Function) -> None:
        image, y = f.divide("%task", target.height)
        source = f.at(images.pointer(f), f.multiply("%task", target.width * channels))
        into = f.at(target.place.pointer(f), target.offset(f, image, y, 0))

        def pixel(x: Index, _: list[Value]) -> None:
            _copy(f, f.at(source, f.multiply(x, channels)), f.at(into, f.multiply(x, target.channels)), channels)

        f.loop(0, target.width, 1, pixel)

    module.phase("images", target.count * target.height, task)


def copy_out(module: Module, name: str, source: Images, channels: int, target: Place) -> None:
    """Feature maps or vectors, dense, to where outputs go; a task is a row."""

    def task(f: Function) -> None:
        image, y = f.divide("%task", source.height)
        into = f.at(target.pointer(f), f.multiply("%task", source.width * channels))
        read = f.at(source.place.pointer(f), source.offset(f, image, y, 0))

        def pixel(x: Index, _: list[Value]) -> None:
            _copy(f, f.at(read, f.multiply(x, source.channels)), f.at(into, f.multiply(x, channels)), channels)

        f.loop(0, source.width, 1, pixel)

    module.phase(name, source.count * source.height, task)


def _copy(f: Function, source: Value, target: Value, count: int) -> None:
    """Copies numbers that are aligned to no vector."""
    whole = count - count % f.lanes
    if whole:
        f.loop(0, whole, f.lanes, lambda i, _: f.store(f.load(f.at(source, i)), f.at(target, i)))

    def single(i: Index, _: list[Value]) -> None:
        f.do(f"store float {f.op(f'load float, ptr {f.at(source, i)}, align 4')}, ptr {f.at(target, i)}, align 4")

    if count > whole:
        f.loop(whole, count, 1, single)


def mean(module: Module, name: str, source: Images, target: Images) -> None:
    """Each channel's mean, (N, H, W, C) -> (N, 1, 1, C); a task is a few channels of an image."""
    lanes = module.isa.lanes
    vectors = source.channels // lanes
    together = next(count for count in (4, 2, 1) if vectors % count == 0 and (count == 1 or vectors >= 4 * count))

    def task(f: Function) -> None:
        image, part = f.divide("%task", vectors // together)
        first = f.multiply(part, together * lanes)
        read = f.at(f.at(source.place.pointer(f), source.offset(f, image, 0, 0)), first)

        def row(y: Index, totals: list[Value]) -> list[Value]:
            line = f.at(read, f.multiply(y, source.row))

            def pixel(x: Index, sums: list[Value]) -> list[Value]:
                here = f.at(line, f.multiply(x, source.channels))
                return [f.fadd(value, f.load(f.at(here, v * lanes), 4 * lanes)) for v, value in enumerate(sums)]

            # Rows are summed by themselves, so that rounding errors grow with the sides, not with the area.
            sums = f.loop(0, source.width, 1, pixel, [(f.vector, "zeroinitializer")] * together)
            return [f.fadd(a, b) for a, b in zip(totals, sums, strict=True)]

        totals = f.loop(0, source.height, 1, row, [(f.vector, "zeroinitializer")] * together)
        out = f.at(f.at(target.place.pointer(f), target.offset(f, image, 0, 0)), first)
        scale = f.splat(1 / (source.height * source.width))
        for v, total in enumerate(totals):
            f.store(f.fmul(total, scale), f.at(out, v * lanes), 4 * lanes)

    module.phase(name, source.count * (vectors // together), task)


def dense(
    module: Module, name: str, key: str, choice: Product, source: Images, target: Images, activation: str
) -> None:
    """Vectors times a matrix, (N, 1, 1, C) -> (N, 1, 1, out); a task is a block of columns."""
    lanes, vectors, depth = module.isa.lanes, choice.vectors, source.channels
    width = vectors * lanes
    parts = -(-source.count // choice.rows)
    rows = -(-source.count // parts)

    def task(f: Function) -> None:
        weights = f.at(module.constants[f"{key}/kernel"].pointer(f), f.multiply("%task", depth * width))
        columns = f.multiply("%task", width)
        bias = f.at(module.constants[f"{key}/bias"].pointer(f), columns)
        read = f.at(source.place.pointer(f), source.offset(f, 0, 0, 0))
        write = f.at(f.at(target.place.pointer(f), target.offset(f, 0, 0, 0)), columns)

        def part(index: Index, _: list[Value]) -> None:
            first = f.least(f.multiply(index, rows), source.count - rows)
            a, out = f.at(read, f.multiply(first, source.image)), f.at(write, f.multiply(first, target.image))
            loaded = [f.load(f.at(bias, v * lanes), 4 * lanes) for v in range(vectors)]
            sums = [list(loaded) for _ in range(rows)]
            sums = multiply(f, a, [row * source.image for row in range(rows)], weights, depth, sums)
            for row, values in enumerate(sums):
                for v, value in enumerate(values):
                    place = f.at(out, row * target.image + v * lanes)
                    f.store(activate(f, activation, value), place, 4 * lanes)

        f.loop(0, parts, 1, part)

    module.phase(name, target.channels // width, task)


def softmax(module: Module, name: str, target: Images, classes: int) -> None:
    """Vectors to probabilities, in place; a task is an image."""
    lanes = module.isa.lanes
    last = target.channels - lanes
    inside = classes - last
    bits = ", ".join(f"i1 {int(lane < inside)}" for lane in range(lanes))

    def task(f: Function) -> None:
        row = f.at(target.place.pointer(f), target.offset(f, "%task", 0, 0))

        def values(i: Index) -> Value:
            return f.load(f.at(row, i), 4 * lanes)

        # Padding behind the last class must be neither the largest nor a part of the sum.
        rest = f.op(
            f"select <{lanes} x i1> <{bits}>, {f.vector} {values(last)}, {f.vector} splat (float {number(-3e38)})"
        )
        f.store(rest, f.at(row, last), 4 * lanes)
        most = [f.splat(-3e38)]
        most = f.loop(0, target.channels, lanes, lambda i, m: [f.choose("ogt", m[0], values(i))], [(f.vector, most[0])])
        peak = f.splat_of(f.op(f"call float @llvm.vector.reduce.fmax.v{lanes}f32({f.vector} {most[0]})"))

        def power(i: Index, total: list[Value]) -> list[Value]:
            value = exponential(f, f.fsub(values(i), peak))
            f.store(value, f.at(row, i), 4 * lanes)
            return [f.fadd(total[0], value)]

        totals = f.loop(0, target.channels, lanes, power, [(f.vector, "zeroinitializer")])
        total = f.op(f"call float @llvm.vector.reduce.fadd.v{lanes}f32(float 0.0, {f.vector} {totals[0]})")
        divisor = f.splat_of(total)

        def divide(i: Index, _: list[Value]) -> None:
            f.store(f.op(f"fdiv {f.vector} {values(i)}, {divisor}"), f.at(row, i), 4 * lanes)

        f.loop(0, target.channels, lanes, divide)

    module.phase(name, target.count, task)


def scale(module: Module, name: str, factors: Images, target: Images, activation: str) -> None:
    """Every channel times its factor, in place, and an activation; a task is a row of an image."""
    lanes = module.isa.lanes

    def task(f: Function) -> None:
        image, y = f.divide("%task", target.height)
        by = f.at(factors.place.pointer(f), factors.offset(f, image, 0, 0))
        row = f.at(target.place.pointer(f), target.offset(f, image, y, 0))

        def channels(c: Index, _: list[Value]) -> None:
            factor = f.load(f.at(by, c), 4 * lanes)
            here = f.at(row, c)

            def pixel(x: Index, _: list[Value]) -> None:
                place = f.at(here, f.multiply(x, target.channels))
                f.store(activate(f, activation, f.fmul(f.load(place, 4 * lanes), factor)), place, 4 * lanes)

            f.loop(0, target.width, 1, pixel)

        f.loop(0, target.channels, lanes, channels)

    module.phase(name, target.count * target.height, task)
