"""Networks behind HTTP: a page for people, `/predict` for programs.

    gate -> app -> picture -> batches -> Runner

The gate lets a request in, or refuses it; the app reads its picture; pictures of several requests that wait for a
network go through it together.
"""

from collections.abc import Mapping
from typing import Any

from repvgg.base.dependencies import require
from repvgg.runners.runner import Runner
from repvgg.serving.limits import Limits

__all__ = ["Limits", "create_app", "require_packages"]

PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "fastapi_offline")


def require_packages() -> None:
    """Imports what serving needs.

    Raises:
        MissingDependencyError: if some of it is not installed.
    """
    for package in PACKAGES:
        require(package, extra="serve", purpose="Serving")


def create_app(runners: Mapping[str, Runner], limits: Limits | None = None) -> Any:
    """The server as an ASGI application, for a server program of one's own; `repvgg serve` runs it in uvicorn.

    Each network is run once for each size of batch, so that no request waits for a compiler.

    Args:
        runners: networks by the names that answers call them by.
        limits: what it takes at most, and when it gives up; `Limits()` if None.

    Raises:
        InputError: if one of them is not a classifier, or carries names or preprocessing that do not fit it.
        MissingDependencyError: if the extra `serve` is not installed.

    Example:
        >>> app = create_app({"digits": repvgg.load_runner("digits.onnx")})   # uvicorn module:app
    """
    require_packages()
    from repvgg.serving.app import application
    from repvgg.serving.served import Served

    limits = limits or Limits()
    return application([Served(name, runner, limits.batch) for name, runner in runners.items()], limits)
