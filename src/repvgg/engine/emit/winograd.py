"""A 3x3 convolution by minimal filtering: transform tiles, multiply matrices, transform back.

With n x n products a tile, V holds n x n matrices (tiles, channels), U as many (channels, filters), and the products M
as many (tiles, filters). By tiles, a task transforms some tiles into its thread's own V, and goes through all kernels.
By kernels, V of all tiles is made first and shared; then a task goes through all tiles with some kernels. By kernels
alone, every thread makes V of all tiles for itself, before its first task.
"""

from dataclasses import dataclass

from repvgg.engine import sync
from repvgg.engine.emit.matrix import LINE, UNROLL, block_product
from repvgg.engine.emit.module import Module, activate
from repvgg.engine.emit.transform import apply, apply_columns
from repvgg.engine.ir import Function, Index, Value
from repvgg.engine.layout import Images
from repvgg.engine.plan import Convolution
from repvgg.engine.schedule import SKEW, Step, Winograd, grouping


@dataclass(frozen=True)
class Sizes:
    """What follows from a choice: sizes of matrices and memory, in numbers of float32.

    Attributes:
        products: n x n.
        tiles: of all images.
        together: tiles in V and M.
        width: filters of a block of kernels.
        blocks: of kernels.
        v_matrix: one of V's matrices.
        m_matrix: one of M's matrices.
    """

    products: int
    tiles: int
    together: int
    width: int
    blocks: int
    v_matrix: int
    m_matrix: int

    @classmethod
    def of(cls, step: Step, choice: Winograd, lanes: int, images: int, channels: int) -> "Sizes":
        """For so many images of so many channels, padding included."""
        layer = step.layer
        if not isinstance(layer, Convolution):
            raise TypeError(f"'{layer.name}' is not a convolution.")
        groups = grouping(layer, lanes)
        down, across = choice.tiling(step.result)
        tiles = images * down * across
        together = tiles if choice.split == "kernels" else min(choice.tiles, tiles)
        width = choice.vectors * lanes
        return cls(
            products=choice.transform(layer).n ** 2,
            tiles=tiles,
            together=together,
            width=width,
            blocks=groups.groups * groups.filters // width,
            v_matrix=together * channels + SKEW,
            m_matrix=together * width + SKEW,
        )

    @property
    def v(self) -> int:
        """All matrices of V."""
        return self.products * self.v_matrix

    @property
    def m(self) -> int:
        """All matrices of M."""
        return self.products * self.m_matrix

    def u(self, choice: Winograd) -> int:
        """Kernels that are transformed on the way."""
        return 0 if choice.stored else self.products * self.u_matrix(choice, choice.chunk)

    def u_matrix(self, choice: Winograd, depth: int) -> int:
        """One of U's matrices."""
        return depth * self.width + (0 if choice.stored else SKEW)


def emit(module: Module, step: Step, choice: Winograd, source: Images, target: Images) -> None:
    """Adds the phases of a step."""
    _Writer(module, step, choice, source, target).write()


class _Writer:
    def __init__(self, module: Module, step: Step, choice: Winograd, source: Images, target: Images) -> None:
        if not isinstance(step.layer, Convolution):
            raise TypeError(f"'{step.layer.name}' is not a convolution.")
        self.module, self.step, self.choice, self.layer = module, step, choice, step.layer
        self.source, self.target = source, target
        self.lanes = module.isa.lanes
        self.groups = grouping(step.layer, self.lanes)
        self.matrices = choice.transform(step.layer)
        self.sizes = Sizes.of(step, choice, self.lanes, source.count, source.channels)
        self.m_place = module.scratch
        self.u_place = self.m_place + 4 * self.sizes.m
        is_shared = choice.split == "kernels" and not choice.private
        self.v_place = module.shared if is_shared else self.u_place + 4 * self.sizes.u(choice)

    def write(self) -> None:
        name, sizes = self.layer.name, self.sizes
        if self.choice.private:
            self.module.phase(name, sizes.blocks, self._private_task)
        elif self.choice.split == "kernels":
            self.module.phase(name, sizes.tiles, self._transform_task)
            self.module.phase(name, sizes.blocks, self._kernels_task)
        else:
            self.module.phase(name, -(-sizes.tiles // sizes.together), self._tiles_task)

    def _tile(self, f: Function, tile: Index) -> tuple[Index, Index, Index]:
        """Image, row and column of a tile."""
        down, across = self.choice.tiling(self.step.result)
        image, rest = f.divide(tile, down * across) if self.source.count > 1 else (0, tile)
        row, column = f.divide(rest, across)
        return image, row, column

    def _transform_task(self, f: Function) -> None:
        self._transform_tile(f, "%task", f.at(self.v_place.pointer(f), f.multiply("%task", self.source.channels)))

    def _kernels_task(self, f: Function) -> None:
        self._products(f, "%task", 0, self.v_place.pointer(f))

    def _private_task(self, f: Function) -> None:
        v = self.v_place.pointer(f)
        # What is made anew in every call and layer is known by the number of the call and of the phase.
        job = f.op(f"load i32, ptr {f.at('%workspace', sync.LINE * sync.JOB, 'i8')}, align 4")
        number = f.op(f"shl i64 {f.op(f'zext i32 {job} to i64')}, 32")
        mine = f.op(f"or i64 {number}, {self.module.number}")
        note = f.at("%workspace", f.add(sync.LINE * sync.END, f.multiply("%thread", sync.LINE)), "i8")
        before = f.op(f"load i64, ptr {note}, align 8")

        def tile(index: Index, _: list[Value]) -> None:
            self._transform_tile(f, index, f.at(v, f.multiply(index, self.source.channels)))

        read = self.source.place.pointer(f)
        with f.when(f.op(f"icmp ne i64 {before}, {mine}")):
            # Half of it lies in the caches of other cores; tiles would ask for a few lines of it at a time.
            f.loop(0, self.source.bytes // 4, LINE, lambda line, _: f.prefetch(f.at(read, line)))
            f.loop(0, self.sizes.tiles, 1, tile)
            f.do(f"store i64 {mine}, ptr {note}, align 8")
        self._products(f, "%task", 0, v)

    def _tiles_task(self, f: Function) -> None:
        sizes = self.sizes
        # The last task begins earlier than its turn would be, so that all are alike; it does some tiles once more.
        first = f.least(f.multiply("%task", sizes.together), sizes.tiles - sizes.together)
        v = self.v_place.pointer(f)

        def tile(index: Index, _: list[Value]) -> None:
            self._transform_tile(f, f.add(first, index), f.at(v, f.multiply(index, self.source.channels)))

        f.loop(0, sizes.together, 1, tile)
        f.loop(0, sizes.blocks, 1, lambda block, _: self._products(f, block, first, v))

    def _transform_tile(self, f: Function, tile: Index, v: Value) -> None:
        image, row, column = self._tile(f, tile)
        top, left = self.layer.pads[:2]
        reach = self.choice.m * self.layer.strides[0]
        y, x = f.add(f.multiply(row, reach), -top), f.add(f.multiply(column, reach), -left)
        pixels = f.at(self.source.place.pointer(f), self.source.offset(f, image, y, x))
        f.call(self._input_transform(), f"ptr {pixels}", f"ptr {v}")

    def _input_transform(self) -> str:
        matrices, source, lanes = self.matrices, self.source, self.lanes
        symbol = f"input_{matrices.m}_{matrices.stride}_{source.channels}_{source.row}_{self.sizes.v_matrix}"

        def write(symbol: str) -> str:
            f = Function(symbol, [("ptr", "%pixels"), ("ptr", "%v")], self.module.isa)
            n = matrices.n

            def channels(c: Index, _: list[Value]) -> None:
                pixels, v = f.at("%pixels", c), f.at("%v", c)
                columns = []
                for x in range(n):
                    values = [f.load(f.at(pixels, y * source.row + x * source.channels), 4 * lanes) for y in range(n)]
                    columns.append(apply(f, matrices.bt, matrices.pairs, values))
                for y in range(n):
                    row = apply(f, matrices.bt, matrices.pairs, [columns[x][y] for x in range(n)])
                    for x in range(n):
                        f.store(row[x], f.at(v, (y * n + x) * self.sizes.v_matrix), 4 * lanes)

            f.loop(0, source.channels, lanes, channels)
            return f.text()

        return self.module.share(symbol, write)

    def _products(self, f: Function, block: Index, first: Index, v: Value) -> None:
        """M of one block of kernels, and back to pixels."""
        sizes, groups = self.sizes, self.groups
        group, _ = f.divide(block, sizes.blocks // groups.groups)
        filters = f.multiply(block, sizes.width)
        m = self.m_place.pointer(f)
        rows = f.at(v, f.multiply(group, groups.depth))
        name = self.layer.name
        if self.choice.stored:
            kernels = self.module.constants[f"{name}/winograd"].pointer(f)
            all_products = sizes.products * groups.depth * sizes.width
            f.call(
                self._matrices(groups.depth, add=False),
                *_pointers(rows, f.at(kernels, f.multiply(block, all_products)), m, m),
            )
        else:
            self._chunks(f, block, rows, m)
        bias = f.at(self.module.constants[f"{name}/bias"].pointer(f), filters)
        pixels = f.at(self.target.place.pointer(f), filters)

        def tile(index: Index, _: list[Value]) -> None:
            image, row, column = self._tile(f, f.add(first, index))
            y, x = f.multiply(row, self.choice.m), f.multiply(column, self.choice.m)
            out = f.at(pixels, self.target.offset(f, image, y, x))
            down, across = self.choice.tiling(self.step.result)
            full = [f.op(f"icmp ult i64 {place}, {count - 1}") for place, count in ((row, down), (column, across))]
            products = f.at(m, f.multiply(index, sizes.width))
            f.call(self._output_transform(), *_pointers(products, bias, out), f"i1 {full[0]}", f"i1 {full[1]}")

        f.loop(0, sizes.together, 1, tile)

    def _chunks(self, f: Function, block: Index, rows: Value, m: Value) -> None:
        """M from kernels that are transformed chunk by chunk."""
        groups, sizes, chunk = self.groups, self.sizes, self.choice.chunk
        kernels = self.module.constants[f"{self.layer.name}/kernel"].pointer(f)
        of_block = f.at(kernels, f.multiply(block, groups.depth * 9 * sizes.width))
        u = self.u_place.pointer(f)
        for start in range(0, groups.depth, chunk):
            depth = min(chunk, groups.depth - start)
            here = f.at(of_block, start * 9 * sizes.width)
            following = f.at(here, depth * 9 * sizes.width)
            f.call(self._kernel_transform(depth), *_pointers(here, u))
            f.call(self._matrices(depth, add=start > 0), *_pointers(f.at(rows, start), u, m, following))

    def _kernel_transform(self, depth: int) -> str:
        matrices, sizes, lanes = self.matrices, self.sizes, self.lanes
        symbol = f"kernels_{matrices.m}_{matrices.stride}_{depth}_{sizes.width}"

        def write(symbol: str) -> str:
            f = Function(symbol, [("ptr", "%kernels"), ("ptr", "%u")], self.module.isa)

            def channel(c: Index, _: list[Value]) -> None:
                taps = f.at("%kernels", f.multiply(c, 9 * sizes.width))
                u = f.at("%u", f.multiply(c, sizes.width))

                def part(v: Index, _: list[Value]) -> None:
                    mine, out = f.at(taps, v), f.at(u, v)
                    columns = []
                    for x in range(3):
                        values = [f.load(f.at(mine, (3 * y + x) * sizes.width), 4 * lanes) for y in range(3)]
                        columns.append(apply(f, matrices.g, matrices.pairs, values))
                    for y in range(matrices.n):
                        row = apply(f, matrices.g, matrices.pairs, [column[y] for column in columns])
                        for x, value in enumerate(row):
                            f.store(
                                value, f.at(out, (y * matrices.n + x) * sizes.u_matrix(self.choice, depth)), 4 * lanes
                            )

                f.loop(0, sizes.width, lanes, part)

            f.loop(0, depth, 1, channel)
            return f.text()

        return self.module.share(symbol, write)

    def _matrices(self, depth: int, *, add: bool) -> str:
        """All n x n products of V's tiles with one block of kernels, of which each is (depth, width)."""
        sizes, choice, stride = self.sizes, self.choice, self.source.channels
        parts = -(-sizes.together // choice.rows)
        # Products that are added to must not be done twice, so these parts never overlap.
        starts = [sizes.together * part // parts for part in range(parts + 1)]
        asking = min(parts, 4)
        asking = 2 if asking == 3 else asking
        turns = max(1, depth // UNROLL)
        per_product = depth * sizes.width if choice.stored else -(-self.sizes.width * depth * 9 // sizes.products)
        lines = -(-per_product // (LINE * asking * turns))
        symbol = f"matrices_{sizes.products}_{sizes.together}_{sizes.width}_{depth}_{stride}_{add:d}_{choice.stored:d}"

        def product(rows: int, lines: int) -> str:
            return self.module.share(
                f"product_{rows}_{choice.vectors}_{depth}_{stride}_{add:d}_{lines}",
                lambda name: block_product(
                    name, self.module.isa, rows, choice.vectors, depth, stride, add=add, lines=lines
                ),
            )

        def write(symbol: str) -> str:
            f = Function(symbol, [("ptr", "%v"), ("ptr", "%u"), ("ptr", "%m"), ("ptr", "%next")], self.module.isa)

            def one(q: Index, _: list[Value]) -> None:
                v, m = f.at("%v", f.multiply(q, sizes.v_matrix)), f.at("%m", f.multiply(q, sizes.m_matrix))
                u = f.at("%u", f.multiply(q, sizes.u_matrix(choice, depth)))
                step = lines * LINE * turns
                following = (
                    f.at(u, depth * sizes.width) if choice.stored else f.at("%next", f.multiply(q, asking * step))
                )
                for part in range(parts):
                    start, rows = starts[part], starts[part + 1] - starts[part]
                    places = (f.at(v, start * stride), u, f.at(m, start * sizes.width), f.at(following, part * step))
                    f.call(product(rows, lines if part < asking else 0), *_pointers(*places))

            f.loop(0, sizes.products, 1, one)
            return f.text()

        return self.module.share(symbol, write)

    def _output_transform(self) -> str:
        matrices, sizes, target, lanes = self.matrices, self.sizes, self.target, self.lanes
        down, across = self.step.result
        attention = self.layer.attention
        early = attention is not None and attention.position == "before_activation"
        activation = "linear" if early else self.layer.activation
        # How many rows and columns of the last tile lie in the image.
        last = (down - 1) % matrices.m + 1, (across - 1) % matrices.m + 1
        symbol = (
            f"output_{matrices.m}_{matrices.stride}_{last[0]}_{last[1]}_{sizes.width}_{sizes.m_matrix}_{target.row}_"
            f"{target.channels}_{activation}"
        )

        def write(symbol: str) -> str:
            arguments = [
                ("ptr", "%m"),
                ("ptr", "%bias"),
                ("ptr", "%out"),
                ("i1", "%full_rows"),
                ("i1", "%full_columns"),
            ]
            f = Function(symbol, arguments, self.module.isa)
            n = matrices.n

            def part(v: Index, _: list[Value]) -> None:
                products, out, bias = f.at("%m", v), f.at("%out", v), f.load(f.at("%bias", v), 4 * lanes)
                # Of the next tile in the row; this one's lines would come too late.
                for y in range(matrices.m):
                    for x in range(matrices.m):
                        f.prefetch_to_write(f.at(out, y * target.row + (x + matrices.m) * target.channels))
                columns = []
                for x in range(n):
                    values = [f.load(f.at(products, (y * n + x) * sizes.m_matrix), 4 * lanes) for y in range(n)]
                    columns.append(apply_columns(f, matrices.at, matrices.pairs, values))

                def row(y: int) -> None:
                    values = apply_columns(f, matrices.at, matrices.pairs, [column[y] for column in columns])
                    pixels = [activate(f, activation, f.fadd(value, bias)) for value in values]

                    def put(x: int) -> None:
                        f.store(pixels[x], f.at(out, y * target.row + x * target.channels), 4 * lanes)

                    for x in range(last[1]):
                        put(x)
                    if last[1] < matrices.m:
                        with f.when("%full_columns"):
                            for x in range(last[1], matrices.m):
                                put(x)

                for y in range(last[0]):
                    row(y)
                if last[0] < matrices.m:
                    with f.when("%full_rows"):
                        for y in range(last[0], matrices.m):
                            row(y)

            f.loop(0, sizes.width, lanes, part)
            return f.text()

        return self.module.share(symbol, write)


def _pointers(*values: Value) -> list[str]:
    return [f"ptr {value}" for value in values]


def scratch_bytes(step: Step, choice: Winograd, lanes: int, images: int, channels: int) -> tuple[int, int]:
    """(each thread's own, shared) memory of a step."""
    sizes = Sizes.of(step, choice, lanes, images, channels)
    own = 4 * (sizes.m + sizes.u(choice))
    return (own, 4 * sizes.v) if choice.split == "kernels" and not choice.private else (own + 4 * sizes.v, 0)
