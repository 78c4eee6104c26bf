"""`repvgg list`."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from repvgg.models.variants import Variant


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """All named networks with their size, cost and published accuracy.

    Example: repvgg list
    """
    from repvgg.models.variants import VARIANTS

    if as_json:
        typer.echo(json.dumps([_as_row(variant) for variant in VARIANTS.values()], indent=1))
        return

    from rich import box
    from rich.table import Table

    from repvgg.cli.terminal import console

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        caption="Counted: millions of parameters of both forms; 10^9 MACs and Winograd\n"
        "multiplications of the deploy form. Published: ImageNet top-1 in percent,\n"
        "epochs it was trained for, images/s on a GTX 1080 Ti.",
        caption_justify="left",
    )
    table.add_column("network", no_wrap=True)
    for heading in ("deploy", "train", "GMAC", "Wino", "px", "top-1", "epochs", "img/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for variant in VARIANTS.values():
        cost, published = variant.cost(), variant.published
        table.add_row(
            variant.name,
            f"{cost.deploy_parameters / 1e6:.2f}",
            f"{cost.train_parameters / 1e6:.2f}",
            f"{cost.deploy_macs / 1e9:.2f}",
            f"{cost.winograd_multiplications / 1e9:.2f}",
            str(variant.image_size),
            *(str(value or "-") for value in (published.top1, published.epochs, published.examples_per_second)),
        )
    console().print(table)


def _as_row(variant: "Variant") -> dict[str, Any]:
    cost, published = variant.cost(), variant.published
    return {
        "name": variant.name,
        "deploy_parameters": cost.deploy_parameters,
        "train_parameters": cost.train_parameters,
        "deploy_macs": cost.deploy_macs,
        "winograd_multiplications": round(cost.winograd_multiplications),
        "image_size": variant.image_size,
        "published_top1": published.top1,
        "published_epochs": published.epochs,
        "published_examples_per_second": published.examples_per_second,
        "source": published.source,
    }
