"""What a benchmark found out, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from repvgg.benchmarking.figures import Figures, Spread
from repvgg.benchmarking.machine import ForeignLoad, Machine


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network without timing it; None for what a file does not tell.

    Attributes:
        family: networks of one family are one curve in the picture.
        top1: published ImageNet accuracy in percent; `source` says where.
        size: pixels a side of the images it got.
    """

    name: str
    family: str | None
    size: tuple[int, int]
    parameters: int | None = None
    macs: int | None = None
    winograd: float | None = None
    top1: float | None = None
    source: str | None = None


@dataclass(frozen=True)
class Row:
    """One network in one runtime: its figures, or why there are none."""

    network: NetworkFacts
    runtime: str
    figures: Figures | None = None
    missing: str | None = None


@dataclass(frozen=True)
class BenchmarkReport:
    """All rows, and what they belong to.

    Attributes:
        batch: images in a call.
        threads: each runtime calculated with.
        rounds: in each of which everybody had a turn.
        backend: Keras's; None where only files of other runtimes competed.
        load: what others did on the machine meanwhile.
    """

    machine: Machine
    batch: int
    threads: int
    rounds: int
    backend: str | None
    load: ForeignLoad
    rows: tuple[Row, ...]

    def networks(self) -> list[NetworkFacts]:
        """Each once, in order."""
        return list({row.network.name: row.network for row in self.rows}.values())

    def runtimes(self) -> list[str]:
        """Each once, in order."""
        return list(dict.fromkeys(row.runtime for row in self.rows))

    def measured(self) -> list[tuple[Row, Figures]]:
        """Rows with figures."""
        return [(row, row.figures) for row in self.rows if row.figures is not None]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "machine": asdict(self.machine),
            "batch": self.batch,
            "threads": self.threads,
            "rounds": self.rounds,
            "backend": self.backend,
            "foreign_load": {"cores": asdict(self.load.cores), "rounds": [round(one, 3) for one in self.load.rounds]},
            "rows": [{**_flat(row), **_found(row)} for row in self.rows],
        }

    def flat_rows(self) -> list[dict[str, Any]]:
        """A row a network and runtime with plain values, for CSV."""
        return [
            {
                **_flat(row),
                **_plain(row.figures),
                "missing": row.missing,
                "batch": self.batch,
                "threads": self.threads,
                "processor": self.machine.processor,
            }
            for row in self.rows
        ]


def _flat(row: Row) -> dict[str, Any]:
    network = row.network
    return {
        "network": network.name,
        "runtime": row.runtime,
        "parameters": network.parameters,
        "macs": network.macs,
        "winograd_multiplications": None if network.winograd is None else round(network.winograd),
        "published_top1": network.top1,
        "source": network.source,
        "height": network.size[0],
        "width": network.size[1],
    }


def _found(row: Row) -> Mapping[str, Any]:
    if row.figures is None:
        return {"missing": row.missing}
    return {
        "images_per_second": row.figures.images_per_second,
        "milliseconds_per_image": asdict(row.figures.milliseconds_per_image),
        "times_first": asdict(row.figures.times_first),
        "calls": row.figures.calls,
    }


def _plain(figures: Figures | None) -> dict[str, Any]:
    if figures is None:
        return {}
    per_image: Spread = figures.milliseconds_per_image
    return {
        "images_per_second": f"{figures.images_per_second:.3f}",
        "milliseconds_per_image": f"{per_image.median:.4f}",
        "lower_quartile_ms": f"{per_image.low:.4f}",
        "upper_quartile_ms": f"{per_image.high:.4f}",
        "times_first": f"{figures.times_first.median:.4f}",
        "calls": figures.calls,
    }
