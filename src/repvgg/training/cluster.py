"""The rendezvous of the processes of one training, as plain data."""

from dataclasses import dataclass

from repvgg.base.errors import InputError


@dataclass(frozen=True)
class Cluster:
    """The rendezvous of the processes of one training.

    Attributes:
        coordinator: HOST:PORT of process 0, reachable from all hosts; the same text everywhere.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        InputError: for values that make no cluster.
    """

    coordinator: str
    num_processes: int
    process_id: int

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise InputError(f"--coordinator is HOST:PORT of process 0. Received: '{self.coordinator}'.")
        if not 0 <= self.process_id < self.num_processes:
            raise InputError(
                f"--process-id counts from 0 to --num-processes - 1 (={self.num_processes - 1}). Received: "
                f"{self.process_id}."
            )
