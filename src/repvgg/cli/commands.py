"""All commands as one program, and how their errors are told."""

import sys
import warnings
from typing import Annotated, NoReturn, TextIO

import typer

import repvgg
from repvgg.base.errors import InputError, InterruptedTrainingError, ProcessorWarning, TrainingError, VerificationError
from repvgg.cli import (
    benchmark,
    convert,
    demo,
    evaluate,
    export,
    fetch,
    inspect,
    list_variants,
    predict,
    push,
    report,
    serve,
    shard,
    train,
    tune,
    verify,
)
from repvgg.cli.config import configurable
from repvgg.cli.recipes import tell_defaults
from repvgg.cli.terminal import check_backend_name, error_console
from repvgg.cli.wording import name_types, paragraphs, spoken

app = typer.Typer(
    name="repvgg",
    help="Train a multi-branch RepVGG, turn it into a plain stack of 3x3 convolutions, prove it, ship it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_WITHOUT_FILE = (list_variants, fetch)
"""Commands of a word or two, for which nobody writes a file of options."""

tell_defaults(train.command)
for _name, _module in {
    "list": list_variants,
    "inspect": inspect,
    "demo": demo,
    "shard": shard,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "serve": serve,
    "benchmark": benchmark,
    "fetch": fetch,
    "convert": convert,
    "verify": verify,
    "export": export,
    "tune": tune,
    "report": report,
    "push": push,
}.items():
    name_types(_module.command)
    _command = spoken(_module.command)
    app.command(_name, help=paragraphs(_module.command))(
        configurable(_command) if _module not in _WITHOUT_FILE else _command
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"repvgg {repvgg.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001 - its callback does everything
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    check_backend_name()


def run() -> None:
    """Runs the command that was typed, and ends with its exit status."""
    with warnings.catch_warnings():
        _show_as_sentences(ProcessorWarning)
        _run()


def _run() -> None:
    try:
        app()
    except InputError as error:
        _fail(error, 2)
    except InterruptedTrainingError as error:
        error_console().print(str(error), soft_wrap=True)
        _exit(error.exit_status)
    except (VerificationError, TrainingError) as error:
        _fail(error, 1)
    except OSError as error:
        _fail(error, 2)


def _show_as_sentences(own: type[Warning]) -> None:
    """Shows warnings of this package's own as they are, without the line of code that gave them."""
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, own):
            error_console().print(f"[bold yellow]Warning:[/] {_escaped(str(message))}", soft_wrap=True, highlight=False)
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def _fail(error: Exception, status: int) -> None:
    error_console().print(f"[bold red]Error:[/] {_escaped(str(error))}", soft_wrap=True, highlight=False)
    _exit(status)


def _exit(status: int) -> NoReturn:
    if "jax" in sys.modules:
        from repvgg.training.processes import connected, end

        if connected():
            end(status)
    sys.exit(status)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
