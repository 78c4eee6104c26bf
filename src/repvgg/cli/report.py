"""`repvgg report`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.cli.networks import NETWORK_HELP, load_network, network_named, require_network
from repvgg.cli.terminal import FORCE_HELP


def command(
    network: Annotated[Path, typer.Argument(help=f"A run's folder, or a network. {NETWORK_HELP}")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; report.html in the run's folder if not given.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled images to measure with, one sub-folder a class; the run's own if not given."),
    ] = None,
    artifacts: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A further file of the same network, such as an exported one. May be repeated."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Write a model card too, such as README.md, with the hub's header.")
    ] = None,
    speed: Annotated[bool, typer.Option(help="Measure how fast every file runs, some seconds for each.")] = True,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """One page about a network: curves, mistakes, structure, proof, files and speed, in an HTML file of its own.

    Files that were exported into a run's folder are compared with what was trained. Of a run that was interrupted the
    page shows what there is. `repvgg train` writes it at its end.

    Example: repvgg report runs/RepVGG-A0-flowers --with flowers.onnx --force
    """
    from repvgg.base.files import refuse_existing
    from repvgg.cli.terminal import console, error_console, start_keras
    from repvgg.reporting.subject import Subject, find_subject, is_network, output_for

    others = artifacts or []
    subject = Subject(network.name, None, tuple(others)) if network_named(network) else find_subject(network, others)
    place = output_for(network, output, in_run=subject.folder is not None)
    for path in (place, *([card] if card is not None else [])):
        refuse_existing(path, force=force)
    for path in (*others, *([network] if subject.folder is None else [])):
        require_network(path)
    start_keras()
    from repvgg.reporting.run import report

    facts = report(
        network if subject.folder is not None or is_network(network) else load_network(network),
        place,
        data=data,
        artifacts=others,
        model_card=card,
        speed=speed,
        force=force,
        out=error_console(),
    )
    for gap in facts.gaps:
        error_console().print(f"Missing on the page: {gap}", soft_wrap=True, markup=False)
    console().print(f"Written: {place}", soft_wrap=True, markup=False)
