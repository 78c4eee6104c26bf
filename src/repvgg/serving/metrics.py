"""What a server counts, in the words of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from repvgg.serving.batches import Row

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one server; a registry of its own, so that several fit into one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "repvgg_requests",
            "Requests to /predict by the status of their answers.",
            ["status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "repvgg_request_seconds",
            "From a request's first byte to its answer.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._running = Gauge("repvgg_requests_in_work", "Requests without an answer so far.", registry=self._registry)
        self._waiting = Gauge(
            "repvgg_waiting_pictures", "Pictures that wait for a network.", ["model"], registry=self._registry
        )
        self._pictures = Histogram(
            "repvgg_batch_pictures",
            "Pictures that went through a network together.",
            ["model"],
            buckets=PICTURES,
            registry=self._registry,
        )
        self._networks = Histogram(
            "repvgg_batch_seconds",
            "Time that a network took for a batch.",
            ["model"],
            buckets=SECONDS,
            registry=self._registry,
        )

    def requests_in_work(self, count: Callable[[], int]) -> None:
        """Where the number of requests in work comes from."""
        self._running.set_function(count)

    def waiting(self, model: str, count: Callable[[], int]) -> None:
        """Where the number of pictures that wait for a network comes from."""
        self._waiting.labels(model).set_function(count)

    def batch(self, model: str, row: Row) -> None:
        """A batch was run."""
        self._pictures.labels(model).observe(row.batch)
        self._networks.labels(model).observe(row.seconds)

    def request(self, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        text: bytes = generate_latest(self._registry)
        return text
