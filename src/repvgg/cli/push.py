"""`repvgg push`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    network: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, a .keras file, or a checkpoint such as .safetensors.")
    ],
    repository: Annotated[str, typer.Argument(help="Where to: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Only the owner of the repository may see it.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write and check all files, list them, and upload nothing.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the files in this new or empty folder.")
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="Of the weights, in the hub's words, such as apache-2.0.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Publishes a network on the Hugging Face hub: weights for timm, Keras files, ONNX, and a model card.

    Every file is read back and compared with the network before anything is uploaded, all in one commit. Then repvgg
    predict hf-hub:user/name photo.jpg works anywhere, and so does timm.create_model("hf-hub:user/name") if timm has the
    network. The token is that of `hf auth login` or of the environment variable HF_TOKEN.

    Example: repvgg push runs/RepVGG-A0-flowers user/flowers --dry-run
    """
    from rich.table import Table

    from repvgg.base.dependencies import require
    from repvgg.cli.terminal import console, error_console, human_size, start_keras
    from repvgg.publishing.request import check_request

    check_request(network, repository, output)
    if not dry_run:
        require("huggingface_hub", extra="hub", purpose="Publishing on the hub")
    start_keras()
    from repvgg.publishing.run import push
    from repvgg.reporting.card import UNKNOWN_LICENSE

    done = push(
        network,
        repository,
        private=private,
        dry_run=dry_run,
        output=output,
        license=license_name or UNKNOWN_LICENSE,
        message=message,
        out=error_console(),
    )
    table = Table("file", "what it is", title=f"{done.repository}, {human_size(sum(done.files.values()))}")
    table.add_column("size", justify="right")
    for name, size in done.files.items():
        table.add_row(name, done.what[name], human_size(size))
    console().print(table)
    for sentence in done.left_out:
        error_console().print(f"Left out: {sentence}", soft_wrap=True, markup=False)
    if done.url is None:
        kept = f" They are in '{output}'." if output is not None else ""
        console().print(f"A dry run: nothing was uploaded.{kept}", soft_wrap=True, markup=False)
        return
    console().print(f"Published: {done.url} (commit {done.commit})", soft_wrap=True, markup=False)
    console().print(f"To use it: repvgg predict hf-hub:{done.repository} photo.jpg", soft_wrap=True, markup=False)
