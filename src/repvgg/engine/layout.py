"""Where things are in memory, and the phases a program consists of."""

from dataclasses import dataclass, replace

from repvgg.engine.ir import Function, Index, Value

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""

ARGUMENTS = (
    ("ptr", "%constants"),
    ("ptr", "%workspace"),
    ("ptr", "%images"),
    ("ptr", "%outputs"),
    ("i64", "%thread"),
    ("i64", "%image"),
    ("i64", "%task"),
)
"""What every phase is called with."""


def aligned(count: int, to: int = ALIGNMENT) -> int:
    """The smallest multiple of `to` that is not smaller."""
    return -(-count // to) * to


@dataclass(frozen=True)
class Place:
    """An address, in bytes from one of the pointers a phase gets.

    Attributes:
        root: '%constants', '%workspace', '%images' or '%outputs'.
        offset: from there.
        of_thread: further bytes for each thread.
        of_image: further bytes for each image, where images are done one by one.
    """

    root: str
    offset: int = 0
    of_thread: int = 0
    of_image: int = 0

    def pointer(self, f: Function) -> Value:
        """The address, in a phase that is being written."""
        offset = f.add(self.offset, f.multiply("%thread", self.of_thread))
        return f.at(self.root, f.add(offset, f.multiply("%image", self.of_image)), "i8")

    def __add__(self, offset: int) -> "Place":
        return replace(self, offset=self.offset + offset)


@dataclass(frozen=True)
class Images:
    """Images in memory: channels last, each with a border of zeros that nobody writes to.

    Attributes:
        place: of the first number of the first border.
        count: images.
        height: of an image, without border.
        width: of an image, without border.
        channels: numbers from pixel to pixel; some at the end may be padding.
        top: rows of border above.
        left: columns of border on the left.
        rows: of an image, with border.
        columns: of an image, with border.
    """

    place: Place
    count: int
    height: int
    width: int
    channels: int
    top: int = 0
    left: int = 0
    rows: int = 0
    columns: int = 0

    @property
    def row(self) -> int:
        """Numbers from one row to the next."""
        return self.columns * self.channels

    @property
    def image(self) -> int:
        """Numbers from one image to the next."""
        return self.rows * self.row

    @property
    def bytes(self) -> int:
        """Memory of all images."""
        return 4 * self.count * self.image

    def offset(self, f: Function, image: Index, y: Index, x: Index) -> Index:
        """Numbers from the place to a pixel; y and x may lie in the border."""
        row = f.add(f.multiply(image, self.image), f.multiply(f.add(y, self.top), self.row))
        return f.add(row, f.multiply(f.add(x, self.left), self.channels))


@dataclass(frozen=True)
class Phase:
    """Work of which all threads take tasks; when the last is done, the next phase begins.

    Attributes:
        function: its symbol; takes `ARGUMENTS`.
        tasks: how many times it is called, with tasks from 0 on.
        layer: for whom it works, for reports.
    """

    function: str
    tasks: int
    layer: str
