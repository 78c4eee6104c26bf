"""Where results between layers are kept."""

from collections import defaultdict
from dataclasses import replace

from repvgg.engine import sync
from repvgg.engine.emit import winograd
from repvgg.engine.layout import Images, Place, aligned
from repvgg.engine.plan import INPUT, Convolution, Dense, Plan
from repvgg.engine.schedule import Schedule, Step, Winograd

MEAN, HIDDEN, FACTORS = "mean", "hidden", "factors"
"""Vectors of channel attention, as 'LAYER/mean' and so on."""

PAGE = 4096
"""Bytes: threads' own memory begins on pages of its own."""


class Memory:
    """Places of everything in the workspace.

    Results of the same geometry share memory once they are not needed any more; those of another never do, because
    nobody but the caller writes the zeros of a border.

    Attributes:
        images: what each layer gives, by its name, the input as `INPUT`; vectors are images of one pixel.
        scratch: of each thread's own, within a layer.
        shared: of all threads, within a layer.
        handed: bytes from there to what is shared within a layer that one thread does alone.
        bytes: of the workspace.
    """

    def __init__(self, plan: Plan, schedule: Schedule) -> None:
        self.plan, self.schedule = plan, schedule
        lanes, threads = schedule.isa.lanes, schedule.threads
        own = shared = handed = 0
        for step in schedule.steps:
            if isinstance(step.choice, Winograd):
                count = 1 if step.alone else schedule.batch
                needed = winograd.scratch_bytes(step, step.choice, lanes, count, step.read_channels)
                own = max(own, needed[0])
                shared = max(shared, 0 if step.alone else needed[1])
                handed = max(handed, needed[1] if step.alone else 0)
        self.handed = aligned(own)
        self._own = aligned(self.handed + handed, PAGE)
        self._common = aligned(sync.sync_bytes(threads))
        self.shared = Place("%workspace", self._common)
        self._common = aligned(self._common + shared, PAGE)
        self.images: dict[str, Images] = {}
        self._place_all()
        self._own = aligned(self._own, PAGE)
        self._common = aligned(self._common, PAGE)
        # Threads' memory comes last; until here its places counted from the first thread's.
        self.images = {name: replace(images, place=self._settled(images.place)) for name, images in self.images.items()}
        self.scratch = Place("%workspace", self._common, of_thread=self._own)
        self.bytes = self._common + threads * self._own

    def _settled(self, place: Place) -> Place:
        return replace(place, offset=place.offset + self._common, of_thread=self._own) if place.of_thread else place

    def _place_all(self) -> None:
        free: dict[tuple[object, ...], list[Place]] = defaultdict(list)
        last_use = {step.layer.source: index for index, step in enumerate(self.schedule.steps)}
        live: list[tuple[str, tuple[object, ...]]] = []

        def take(name: str, images: Images, alone: bool) -> None:
            key = (alone, *(getattr(images, field) for field in _GEOMETRY))
            place = free[key].pop() if free[key] else self._new(images.bytes, alone)
            self.images[name] = replace(images, place=place)
            live.append((name, key))

        for index, step in enumerate((None, *self.schedule.steps)):
            name = INPUT if step is None else step.layer.name
            take(name, self._geometry(name, step), self._is_alone(name))
            attention = step.layer.attention if step is not None and isinstance(step.layer, Convolution) else None
            if step is not None and attention is not None:
                hidden = aligned(attention.down.shape[1], self.schedule.isa.lanes)
                channels = self.images[name].channels
                for part, count in ((MEAN, channels), (HIDDEN, hidden), (FACTORS, channels)):
                    take(f"{name}/{part}", self._vectors(count, step.alone), step.alone)
            done = [entry for entry in live if last_use.get(entry[0], -1) <= index - 1 and entry[0] != name]
            for entry in done:
                live.remove(entry)
                free[entry[1]].append(self.images[entry[0]].place)

    def _new(self, size: int, alone: bool) -> Place:
        # Half a kilobyte apart: vectors of the last pixel may be read a little beyond it.
        if alone:
            place = Place("%workspace", self._own, of_thread=1)
            self._own += aligned(size + 512)
        else:
            place = Place("%workspace", self._common)
            self._common += aligned(size + 512)
        return place

    def _is_alone(self, name: str) -> bool:
        """Whether a result is made and used up by one thread; the last of such steps gives it to all."""
        users = [step for step in self.schedule.steps if step.layer.source == name]
        return bool(users) and all(step.alone for step in users)

    def _count(self, alone: bool) -> int:
        return 1 if alone else self.schedule.batch

    def _vectors(self, channels: int, alone: bool) -> Images:
        return Images(Place("%workspace"), self._count(alone), 1, 1, channels, rows=1, columns=1)

    def _geometry(self, name: str, step: Step | None) -> Images:
        """The images a layer gives, with the border that their readers need."""
        alone = self._is_alone(name)
        readers = [reader for reader in self.schedule.steps if reader.layer.source == name]
        if step is None:
            channels = next((reader.read_channels for reader in readers), self.plan.channels)
            height, width = self.schedule.image_size
        else:
            if isinstance(step.layer, Convolution | Dense):
                channels = aligned(step.layer.channels, self.schedule.isa.lanes)
            else:
                channels = step.read_channels
            height, width = step.result
        top = left = 0
        bottom, right = height, width
        for reader in readers:
            if not isinstance(reader.layer, Convolution):
                continue
            pads = reader.layer.pads
            top, left = max(top, pads[0]), max(left, pads[1])
            bottom, right = max(bottom, height + pads[2]), max(right, width + pads[3])
            if isinstance(reader.choice, Winograd):
                down, across = reader.choice.tiling(reader.result)
                matrices = reader.choice.transform(reader.layer)
                reach = reader.choice.m * matrices.stride
                bottom = max(bottom, (down - 1) * reach + matrices.n - pads[0])
                right = max(right, (across - 1) * reach + matrices.n - pads[1])
        return Images(
            Place("%workspace"), self._count(alone), height, width, channels, top, left, top + bottom, left + right
        )


_GEOMETRY = ("count", "height", "width", "channels", "top", "left", "rows", "columns")
