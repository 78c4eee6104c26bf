"""`repvgg fetch`."""

from typing import Annotated

import typer


def command(
    variant: Annotated[str, typer.Argument(help="A variant such as RepVGG-A0.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of its repository on the hub.")] = "main",
    offline: Annotated[bool, typer.Option("--offline", help="Take it from the cache or fail.")] = False,
) -> None:
    """Downloads the ImageNet weights of a variant, unless the cache has them, checks them, and prints where they are.

    The file lies in huggingface_hub's cache; HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE mean what they always mean.

    Example: repvgg fetch RepVGG-A0
    """
    from repvgg.checkpoints.hub import PRETRAINED, fetch
    from repvgg.cli.terminal import console, error_console, human_size

    path = fetch(variant, revision=revision, local_files_only=offline)
    error_console().print(
        f"{PRETRAINED[variant]}, {human_size(path.stat().st_size)}, checked. In Python: "
        f'repvgg.create_model("{variant}", weights="imagenet")',
        soft_wrap=True,
        markup=False,
    )
    # Alone on standard output, so that a script can take it from there.
    console().print(str(path), soft_wrap=True, markup=False)
