"""A convolution as a matrix product whose rows are read where they lie: output pixels by the reach of the kernel.

Pixels are done in rectangles whose rows of the product are at fixed distances from the first one, so that their
addresses are constants in the code.
"""

from repvgg.engine.emit.matrix import LINE, UNROLL, Prefetch, multiply
from repvgg.engine.emit.module import Module, activate
from repvgg.engine.ir import Function, Index, Value
from repvgg.engine.layout import Images
from repvgg.engine.plan import Convolution
from repvgg.engine.schedule import Direct, Step, grouping, most_rows

SHORT = 12
"""A depth up to which a product is written out."""
STREAMED = 1 << 19
"""Bytes of kernels from which on they are asked for ahead."""


def rectangle(height: int, width: int, most: int) -> tuple[int, int]:
    """(rows, columns) of the rectangles of at most `most` pixels that cover an image with least work."""

    def work(shape: tuple[int, int]) -> tuple[float, int]:
        rows, columns = shape
        count = -(-height // rows) * -(-width // columns)
        # Few sums wait for one another: a block takes as long as one of four rows.
        return count * max(rows * columns, 4) + 0.25 * count, -columns

    shapes = [
        (rows, columns)
        for rows in range(1, most + 1)
        for columns in range(1, most // rows + 1)
        if rows <= height and columns <= width
    ]
    return min(shapes, key=work)


def emit(module: Module, step: Step, choice: Direct, source: Images, target: Images) -> None:
    """Adds the phase of a step."""
    _Writer(module, step, choice, source, target).write()


class _Writer:
    def __init__(self, module: Module, step: Step, choice: Direct, source: Images, target: Images) -> None:
        if not isinstance(step.layer, Convolution):
            raise TypeError(f"'{step.layer.name}' is not a convolution.")
        self.module, self.step, self.choice, self.layer = module, step, choice, step.layer
        self.source, self.target, self.lanes = source, target, module.isa.lanes
        self.groups = grouping(step.layer, self.lanes)
        self.width = choice.vectors * self.lanes
        self.blocks = self.groups.groups * self.groups.filters // self.width
        self.band = -(-step.result[0] // choice.bands)
        self.share = -(-self.blocks // choice.parts)
        self.rectangle = rectangle(self.band, step.result[1], min(choice.rows, most_rows(module.isa, choice.vectors)))
        # With one group the taps of a row follow one another, padding included.
        self.depth = source.channels if self.groups.groups == 1 else self.groups.depth
        self.joined = self.groups.groups == 1 and self.layer.dilations[1] == 1

    def write(self) -> None:
        choice = self.choice
        self.module.phase(self.layer.name, self.source.count * choice.bands * choice.parts, self._task)

    def _task(self, f: Function) -> None:
        choice, layer, (height, width) = self.choice, self.layer, self.step.result
        rest, part = f.divide("%task", choice.parts)
        image, band = f.divide(rest, choice.bands)
        # The last parts and rectangles begin earlier than their turn would be, so that all are alike.
        first_block = f.least(f.multiply(part, self.share), self.blocks - self.share)
        top = f.least(f.multiply(band, self.band), height - self.band)
        rows, columns = self.rectangle
        down, across = -(-self.band // rows), -(-width // columns)
        panel = layer.kernel.shape[0] * layer.kernel.shape[1] * self.depth * self.width
        kernels = self.module.constants[f"{layer.name}/direct"].pointer(f)
        biases = self.module.constants[f"{layer.name}/bias"].pointer(f)
        source, target = self.source.place.pointer(f), self.target.place.pointer(f)
        asking = min(down * across, 4) if 4 * panel * self.blocks >= STREAMED else 0
        turns = layer.kernel.shape[0] * (layer.kernel.shape[1] if not self.joined else 1)
        turns *= max(1, (self.depth * (layer.kernel.shape[1] if self.joined else 1)) // UNROLL)
        lines = -(-panel // (LINE * asking * turns)) if asking else 0

        def block(index: Index, _: list[Value]) -> None:
            number = f.add(first_block, index)
            group, _rest = f.divide(number, self.blocks // self.groups.groups)
            filters = f.multiply(number, self.width)
            weights, bias = f.at(kernels, f.multiply(number, panel)), f.at(biases, filters)
            read = f.at(source, f.multiply(group, self.groups.depth)) if self.groups.groups > 1 else source
            write = f.at(target, filters)
            following = f.at(weights, panel)

            def pixels(ask: bool, place: Index, _: list[Value]) -> None:
                row, column = f.divide(place, across)
                y = f.add(top, f.least(f.multiply(row, rows), self.band - rows))
                x = f.least(f.multiply(column, columns), width - columns)
                from_y = f.add(f.multiply(y, layer.strides[0]), -layer.pads[0])
                from_x = f.add(f.multiply(x, layer.strides[1]), -layer.pads[1])
                a = f.at(read, self.source.offset(f, image, from_y, from_x))
                out = f.at(write, self.target.offset(f, image, y, x))
                ahead = f.at(following, f.multiply(place, lines * LINE * turns))
                places = (a, weights, bias, out, ahead if ask else following)
                f.call(self._kernel(lines if ask else 0), *(f"ptr {value}" for value in places))

            if asking:
                f.loop(0, asking, 1, lambda place, carried: pixels(True, place, carried))
            if down * across > asking:
                f.loop(asking, down * across, 1, lambda place, carried: pixels(False, place, carried))

        f.loop(0, self.share, 1, block)

    def _kernel(self, lines: int) -> str:
        """All taps of one rectangle and one block of kernels."""
        layer, source, target, lanes = self.layer, self.source, self.target, self.lanes
        rows, columns = self.rectangle
        high, wide = layer.kernel.shape[:2]
        early = layer.attention is not None and layer.attention.position == "before_activation"
        activation = "linear" if early else layer.activation
        depth = self.depth * (wide if self.joined else 1)
        symbol = (
            f"direct_{rows}_{columns}_{self.choice.vectors}_{high}_{wide}_{self.depth}_{layer.strides[0]}_"
            f"{layer.strides[1]}_{layer.dilations[0]}_{layer.dilations[1]}_{source.row}_{source.channels}_{target.row}_"
            f"{target.channels}_{activation}_{lines}_{self.joined:d}"
        )

        def write(symbol: str) -> str:
            names = ("%a", "%weights", "%bias", "%out", "%next")
            f = Function(symbol, [("ptr", name) for name in names], self.module.isa)
            vectors = self.choice.vectors
            offsets = [
                y * layer.strides[0] * source.row + x * layer.strides[1] * source.channels
                for y in range(rows)
                for x in range(columns)
            ]
            for r in range(len(offsets)):
                # What the next rectangle of the row writes; this one's lines would come too late.
                y, x = divmod(r, columns)
                for v in range(0, vectors, max(1, LINE // lanes)):
                    following = y * target.row + (x + columns) * target.channels + v * lanes
                    f.prefetch_to_write(f.at("%out", following))
            bias = [f.load(f.at("%bias", v * lanes), 4 * lanes) for v in range(vectors)]
            flat = [bias[v] for _ in offsets for v in range(vectors)]
            taps = [1, wide][not self.joined]

            def tap_row(y: Index, values: list[Value]) -> list[Value]:
                row_of = f.multiply(y, layer.dilations[0] * source.row)

                def tap(x: Index, values: list[Value]) -> list[Value]:
                    index = f.add(f.multiply(y, taps), x)
                    a = f.at("%a", f.add(row_of, f.multiply(x, layer.dilations[1] * source.channels)))
                    weights = f.at("%weights", f.multiply(index, depth * self.width))
                    turns = max(1, depth // UNROLL)
                    ahead = Prefetch(f.at("%next", f.multiply(index, turns * lines * LINE)), lines) if lines else None
                    sums = [values[r * vectors : (r + 1) * vectors] for r in range(len(offsets))]
                    short = depth <= SHORT and not lines
                    sums = multiply(f, a, offsets, weights, depth, sums, ahead, depth if short else UNROLL)
                    return [value for row in sums for value in row]

                return f.loop(0, taps, 1, tap, [(f.vector, value) for value in values])

            if depth <= SHORT and high <= SHORT:
                for y in range(high):
                    flat = tap_row(y, flat)
            else:
                flat = f.loop(0, high, 1, tap_row, [(f.vector, value) for value in flat])
            for r in range(len(offsets)):
                y, x = divmod(r, columns)
                for v in range(vectors):
                    value = activate(f, activation, flat[r * vectors + v])
                    f.store(value, f.at("%out", y * target.row + x * target.channels + v * lanes), 4 * lanes)
            return f.text()

        return self.module.share(symbol, write)
