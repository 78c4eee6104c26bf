"""`repvgg inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repvgg.base.errors import InputError
from repvgg.base.words import counted
from repvgg.checkpoints.repository import is_repository, parse_repository
from repvgg.cli.artifact import describe_artifact, is_artifact
from repvgg.cli.networks import CHECKPOINT_SUFFIXES

if TYPE_CHECKING:
    from rich.console import Console

    from repvgg.core.architecture import Architecture
    from repvgg.models.cost import Cost


def command(
    network: Annotated[
        str,
        typer.Argument(
            help="A variant such as RepVGG-A0, a .keras or exported file, a checkpoint, or hf-hub:user/name."
        ),
    ],
    size: Annotated[int | None, typer.Option(min=1, help="Pixels a side; the published size if not given.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Outputs of the classifier (variants only).")] = None,
    entry: Annotated[str | None, typer.Option(help="The entry of a checkpoint to look at, such as model_ema.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="The part of a checkpoint whose names begin so, such as 'backbone.'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """A network's stages and blocks, training and deploy form side by side.

    Of a PyTorch checkpoint (.pth, .pt, .bin, .safetensors) also its names, form, element types and wrappers. No model
    is built for that. Of an exported file (.onnx, .xml, .tflite, a SavedModel's folder) what it says of itself: its
    input, and in INT8 the scheme, the processors it was made for, accuracy and agreement with float32.

    Example: repvgg inspect RepVGG-A0 --size 224
    """
    from repvgg.models.cost import count_cost

    path = Path(network)
    if is_repository(network) and not path.exists():
        from repvgg.checkpoints.hub import fetch_repository

        path, _ = fetch_repository(parse_repository(network))
    if is_artifact(path):
        _show_artifact(path, as_json=as_json, refused={"--size": size, "--classes": classes, "--entry": entry})
        return
    is_checkpoint = path.suffix in CHECKPOINT_SUFFIXES or (path.is_file() and path.suffix != ".keras")
    for option, value in (("--entry", entry), ("--prefix", prefix)):
        if value is not None and not is_checkpoint:
            raise InputError(f"{option} is about PyTorch checkpoints, and '{network}' is not one.")
    if is_checkpoint:
        title, architecture, num_classes, channels, side, details = _of_checkpoint(path, entry, prefix)
    elif path.suffix == ".keras" or path.exists():
        title, architecture, num_classes, channels, side, details = _of_file(path)
    else:
        from repvgg.models.variants import get_variant

        variant = get_variant(network)
        title, architecture, num_classes, channels = variant.name, variant.architecture, classes or 1000, 3
        side = variant.image_size
        details = {"source": variant.published.source}
    side = size or side
    cost = count_cost(architecture, num_classes, (side, side), channels)
    if as_json:
        typer.echo(json.dumps(_as_json(title, cost, details), indent=1))
        return
    _print(title, architecture, cost, side, details)


def _show_artifact(path: Path, *, as_json: bool, refused: dict[str, Any]) -> None:
    for option, value in refused.items():
        if value is not None:
            raise InputError(f"{option} is not for exported files, and '{path}' is one.")
    details = describe_artifact(path)
    if as_json:
        typer.echo(json.dumps({"name": path.name, **details}, indent=1))
    else:
        _print_details(details)


def _of_file(path: Path) -> "tuple[str, Architecture, int | None, int, int, dict[str, Any]]":
    from repvgg.cli.terminal import human_size, start_keras

    start_keras()
    from repvgg.models.recover import recover
    from repvgg.models.saving import load_model

    model = load_model(path)
    recovered = recover(model)
    metadata = model.repvgg_metadata
    names = metadata.class_names
    details = {
        "file": f"{path} ({human_size(path.stat().st_size)})",
        "form": recovered.form,
        "variant": metadata.variant or "none of the named ones",
        "parameters in the file": f"{model.count_params():,}",
        "dtype": model.layers[-1].dtype_policy.name,
        "stem stride": recovered.architecture.adaptation.stem_strides,
        "output stride": recovered.architecture.adaptation.output_stride,
        "epsilon": f"{recovered.architecture.adaptation.epsilon:g}" if recovered.form == "training" else "-",
        "class names": ", ".join(names[:10]) + (f" ... {len(names)} in all" if len(names) > 10 else "")
        if names
        else "-",
        "preprocessing": str(metadata.preprocessing or "-"),
        "source": metadata.source or "-",
    }
    if metadata.optimizer is not None:
        told = metadata.optimizer
        details["optimizer"] = f"{told['name']} ({told['update_rule']}), scales: {told['scales']}"
    side = metadata.preprocessing.crop if metadata.preprocessing else (model.input_shape[1] or 224)
    return path.name, recovered.architecture, recovered.num_classes, recovered.in_channels, side, details


def _of_checkpoint(
    path: Path, entry: str | None, prefix: str | None
) -> "tuple[str, Architecture, int | None, int, int, dict[str, Any]]":
    from repvgg.checkpoints import describe_checkpoint
    from repvgg.cli.terminal import human_size
    from repvgg.models.variants import get_variant

    found = describe_checkpoint(path, entry=entry, prefix=prefix)
    details = {
        "file": f"{path} ({human_size(found.file_bytes)})",
        "container": found.container,
        "dialect": found.dialect,
        "form": found.form,
        "variant": found.variant or "none of the named ones",
        "parameters in the file": f"{found.parameters:,}",
        "classes": str(found.num_classes or "no classifier"),
        "dtype": ", ".join(found.dtypes),
        "wrapper": ".".join(found.wrapper) or "-",
        "prefix": found.prefix or "-",
        "under other names": ", ".join(f"{name} ({counted(count, 'tensor')})" for name, count in found.left.items())
        or "-",
        "other weights (--entry)": ", ".join(found.passed_over) or "-",
        "beside the weights": ", ".join(found.beside) or "-",
    }
    side = get_variant(found.variant).image_size if found.variant else 224
    return path.name, found.architecture, found.num_classes, found.in_channels, side, details


def _as_json(title: str, cost: "Cost", details: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": title,
        **details,
        "train_parameters": cost.train_parameters,
        "deploy_parameters": cost.deploy_parameters,
        "train_macs": cost.train_macs,
        "deploy_macs": cost.deploy_macs,
        "winograd_multiplications": round(cost.winograd_multiplications),
        "receptive_field": cost.receptive_field,
        "blocks": [
            {
                "name": block.spec.name,
                "in_channels": block.spec.in_channels,
                "filters": block.spec.filters,
                "strides": block.spec.strides,
                "dilation": block.spec.dilation,
                "groups": block.spec.groups,
                "kernel_size": block.spec.kernel_size,
                "output_size": block.output_size,
                "branches": block.branches,
                "train_parameters": block.train_parameters,
                "deploy_parameters": block.deploy_parameters,
                "train_macs": block.train_macs,
                "deploy_macs": block.deploy_macs,
                "winograd_multiplications": round(block.winograd_multiplications),
                "receptive_field": block.receptive_field,
            }
            for block in cost.blocks
        ],
    }


def _print(title: str, architecture: "Architecture", cost: "Cost", side: int, details: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from repvgg.models.cost import alike, label_of

    out = _print_details(details)
    table = Table(
        title=f"{title} at {side} x {side} pixels",
        caption=_caption(architecture),
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        caption_justify="left",
    )
    table.add_column("blocks", no_wrap=True)
    for heading in ("out", "channels", "s", "g", "br", "train", "deploy", "MMAC", "Wino", "field"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = 0
    for run in alike(cost.blocks):
        block, last = run[0], run[-1]
        spec = block.spec
        if spec.stage != previous:
            table.add_section()
            previous = spec.stage
        table.add_row(
            label_of(run),
            str(block.output_size[0]),
            f"{spec.in_channels}>{spec.filters}",
            str(spec.strides) if spec.dilation == 1 else f"{spec.strides} d{spec.dilation}",
            str(spec.groups),
            str(block.branches),
            _short(sum(one.train_parameters for one in run)),
            _short(sum(one.deploy_parameters for one in run)),
            f"{sum(one.deploy_macs for one in run) / 1e6:.0f}",
            f"{sum(one.winograd_multiplications for one in run) / 1e6:.0f}",
            str(last.receptive_field),
        )
    out.print(table)

    total = Table("", "training form", "deploy form", title="In all", box=box.SIMPLE_HEAD)
    for column in total.columns[1:]:
        column.justify = "right"
    total.add_row("parameters", f"{cost.train_parameters:,}", f"{cost.deploy_parameters:,}")
    total.add_row(
        "float32 weights", *(f"{4 * n / 1e6:.1f} MB" for n in (cost.train_parameters, cost.deploy_parameters))
    )
    total.add_row("GMAC", f"{cost.train_macs / 1e9:.3f}", f"{cost.deploy_macs / 1e9:.3f}")
    total.add_row("Winograd G multiplications", "-", f"{cost.winograd_multiplications / 1e9:.3f}")
    branches = sum(block.branches for block in cost.blocks)
    total.add_row("convolutions and identities", str(branches), str(len(cost.blocks)))
    total.add_row("receptive field", f"{cost.receptive_field} px", f"{cost.receptive_field} px")
    out.print(total)


def _print_details(details: dict[str, Any]) -> "Console":
    from rich.markup import escape

    from repvgg.cli.terminal import console

    out = console()
    for name, value in details.items():
        out.print(f"[bold]{name}[/]: {escape(str(value))}", soft_wrap=True)
    return out


def _caption(architecture: "Architecture") -> str:
    parts = []
    if architecture.squeeze_excite is not None:
        attention = architecture.squeeze_excite
        parts.append(f"Squeeze-and-excitation {attention.position.replace('_', ' ')}, 1/{attention.reduction} wide.")
    if architecture.auxiliary_heads:
        parts.append("Three auxiliary heads while training.")
    parts.append(
        "out: pixels a side; s: stride (d: dilation); g: groups; br: branches while training; train, deploy: "
        "parameters; MMAC, Wino: cost of the deploy form in 10^6 MACs and Winograd multiplications; field: receptive "
        "field in pixels."
    )
    return " ".join(parts)


def _short(number: int) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.1f}k"
