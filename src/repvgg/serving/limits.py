"""What a server takes at most, and when it gives up."""

from dataclasses import dataclass

from repvgg.base.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        batch: pictures that go through a network together, at most; an artifact of fixed batches has its own number.
        window: seconds that a picture waits for others to come.
        megabytes: of a request.
        megapixels: of a picture, whatever its file's size.
        seconds: for a request, from its first byte to its answer.
        requests: in work at the same time.
        hosts: names by which it is addressed; any if None. A server for its own machine has that machine's
            names only, so that no web page reaches it by a name that its owner made point here.

    Raises:
        InputError: if one of them is too small to let anything through.
    """

    batch: int = 8
    window: float = 0.003
    megabytes: float = 20
    megapixels: float = 60
    seconds: float = 30
    requests: int = 256
    hosts: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "megabytes", "megapixels", "seconds", "requests"):
            if not getattr(self, name) > 0:
                raise InputError(f"`{name}` must be above 0. Received: {getattr(self, name)}.")
        if self.window < 0:
            raise InputError(f"`window` must be at least 0. Received: {self.window}.")

    @property
    def bytes(self) -> int:
        """Of a request's body."""
        return int(self.megabytes * 1e6)

    @property
    def pixels(self) -> int:
        """Of a picture."""
        return int(self.megapixels * 1e6)
