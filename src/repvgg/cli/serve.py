"""`repvgg serve`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.cli.networks import NETWORK_HELP, load_network, require_network


def command(
    models: Annotated[list[Path], typer.Argument(help=f"{NETWORK_HELP} Several answer side by side.")],
    host: Annotated[
        str, typer.Option(help="Address to serve at. The default is for this machine only; 0.0.0.0 is for everybody.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Pictures run together, at most.")] = 8,
    window: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a picture waits for others to be run with it.")
    ] = 3,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Of a request.")] = 20,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Of a picture.")] = 60,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="For a request, from its first byte to its answer.")] = 30,
    max_requests: Annotated[int, typer.Option(min=1, help="In work at the same time.")] = 256,
) -> None:
    """A page that says what is in a picture, and the same for programs: POST /predict.

    /docs describes requests and answers, /metrics has figures for Prometheus, /health says that all is well. Ctrl-C or
    SIGTERM ends it, after what has begun is answered.

    Example: repvgg serve flowers.onnx flowers-int8.onnx
    """
    from repvgg.serving import Limits, require_packages

    require_packages()
    from repvgg.cli.terminal import console, error_console
    from repvgg.serving.app import application
    from repvgg.serving.served import Served, names_of
    from repvgg.serving.server import LOOPBACK, bound, is_loopback, run

    limits = Limits(
        batch=batch,
        window=window / 1e3,
        megabytes=max_megabytes,
        megapixels=max_megapixels,
        seconds=max_seconds,
        requests=max_requests,
        hosts=LOOPBACK | {host} if is_loopback(host) else None,
    )
    names = names_of(models)
    for path in models:
        require_network(path)
    # The address comes first: loading may take a minute.
    with bound(host, port) as opened:
        networks = [Served(name, load_network(path), batch) for name, path in zip(names, models, strict=True)]
        if not is_loopback(host):
            error_console().print(
                "[bold yellow]Warning:[/] everybody who reaches this machine is answered; there is no password and no "
                "encryption.",
                soft_wrap=True,
            )

        def announce(address: str) -> None:
            console().print(f"Serving {', '.join(names)} at {address} (Ctrl-C ends it)", soft_wrap=True, markup=False)

        run(application(networks, limits), opened, max_seconds, announce)
