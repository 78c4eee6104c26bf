"""The application in uvicorn: one address, and an end in order."""

import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from repvgg.base.errors import InputError
from repvgg.base.stopping import left_to_others

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket with an address of its own, at which nobody is answered yet.

    Raises:
        InputError: if the address is taken, or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(
            f"'{host}' is not an address of this machine ({error.strerror or error}). Choose another --host."
        ) from error
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
        except OSError as error:
            raise InputError(
                f"Nobody can be served at {host}, port {port}: {error.strerror}. Choose another --port (0 takes a free "
                "one) or --host."
            ) from error
        yield opened


def address_of(opened: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = opened.getsockname()[:2]
    named = "localhost" if ipaddress.ip_address(host).is_unspecified else host
    return f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"


def run(app: Any, opened: socket.socket, seconds: float, announce: Callable[[str], None]) -> None:
    """Serves until the process is asked to end by Ctrl-C or SIGTERM; what has begun is finished first.

    Args:
        seconds: after which what has begun is given up.
        announce: is told the address, as soon as whoever goes there is answered.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", timeout_graceful_shutdown=int(seconds) + 1
    )
    server = uvicorn.Server(config)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises a signal again when it has ended in order. That is this command's usual end, and no failure.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        opened.listen()
        with left_to_others():
            announce(address_of(opened))
            server.run(sockets=[opened])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
