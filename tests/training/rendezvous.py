"""Processes that rendezvous and do not train: python rendezvous.py differ|wait --cluster=COORDINATOR,PROCESSES,ID."""

import sys
import time

from repvgg.base.errors import InputError
from repvgg.training.cluster import Cluster
from repvgg.training.processes import joined, require_agreement


def main() -> None:
    what, cluster = sys.argv[1:]
    address, count, number = cluster.removeprefix("--cluster=").split(",")
    with joined(Cluster(address, int(count), int(number)), seconds=3 if what == "wait" else 300):
        require_agreement({"the letter": "a"})
        print("agreed", flush=True)
        try:
            require_agreement({"the letter": "a", "the number": number})
        except InputError as error:
            print(str(error).replace(" Here", "\nHere"), flush=True)
        if number == "0":
            raise OSError("no images here")
        time.sleep(600)


if __name__ == "__main__":
    main()
