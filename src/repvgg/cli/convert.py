"""`repvgg convert`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.cli.terminal import FORCE_HELP


def command(
    source: Annotated[Path, typer.Argument(help="A .keras file in training form.")],
    output: Annotated[Path, typer.Argument(help="The .keras file to write.")],
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Turns a training form into the plain stack of convolutions, checks it, and saves it.

    The result loads in any Keras 3 without this package.

    Example: repvgg convert model.keras model-deploy.keras
    """
    from repvgg.cli.terminal import console, human_size, start_keras
    from repvgg.cli.verify import print_report
    from repvgg.files import refuse_existing

    refuse_existing(output, force=force)
    start_keras()
    from repvgg.conversion import reparameterize
    from repvgg.metadata import set_metadata
    from repvgg.saving import load_model, save_model
    from repvgg.verification import verify

    model = load_model(source)
    deployed = reparameterize(model)
    report = verify(model, deployed)
    set_metadata(deployed, verification=report.to_dict())
    save_model(deployed, output, force=force)
    out = console()
    print_report(out, report, rows=0)
    out.print(
        f"{source} ({model.count_params():,} parameters) -> {output} ({deployed.count_params():,} parameters, "
        f"{human_size(output.stat().st_size)})",
        soft_wrap=True,
    )
