"""What the commands share in talking to a terminal."""

import io
import os
from typing import TYPE_CHECKING, Any

from repvgg.base.errors import InputError, MissingDependencyError
from repvgg.base.quiet import quiet_libraries
from repvgg.cli.device import choose_device, require_gpu

if TYPE_CHECKING:
    from rich.console import Console

BACKENDS = ("tensorflow", "jax", "torch")
"""What Keras may run on here, in the words of KERAS_BACKEND."""

_SETTINGS = (
    f"Set the environment variable KERAS_BACKEND to one of {', '.join(BACKENDS)}, or 'backend' in Keras's file of "
    "settings, ~/.keras/keras.json."
)

UNBOUNDED = 10_000
"""Columns where there is no terminal."""

FORCE_HELP = "Replace an output that exists."


def console(*, quiet: bool = False) -> "Console":
    """For results. In a file or a pipe there is no edge to cut a table at, unless COLUMNS says so; on a narrow terminal
    texts in tables are folded, and never end in an ellipsis.
    """
    from rich.console import Console
    from rich.table import Table

    class WholeTables(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            for table in objects:
                for column in table.columns if isinstance(table, Table) else ():
                    # Numbers, on the right, keep their line as long as there is room.
                    column.no_wrap = column.no_wrap and column.justify == "right"
                    column.overflow = "fold"
            super().print(*objects, **options)

    out = WholeTables(highlight=False, quiet=quiet)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = UNBOUNDED
    return out


def error_console() -> "Console":
    """For messages, on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def check_backend_name() -> None:
    """Looks at KERAS_BACKEND before seconds of imports do.

    Raises:
        InputError: if it names no backend of ours.
    """
    name = os.environ.get("KERAS_BACKEND")
    if name and name not in BACKENDS:
        raise InputError(
            f"The environment variable KERAS_BACKEND is '{name}', and repvgg runs on {', '.join(BACKENDS)}. Set it to "
            "one of them, or unset it."
        )


def start_keras(device: str | None = None) -> None:
    """Imports Keras without the start-up log of its backend, which does not concern somebody who runs a command.

    TensorFlow's libraries write to standard error before any setting of theirs is read, so the file descriptor itself
    is turned away meanwhile; what was written comes back if the import fails.

    Args:
        device: what it runs on, as `--device` says; its own choice if None.

    Raises:
        InputError: if Keras's own settings choose a backend that is none of ours, or there is no such device.
        MissingDependencyError: if the backend is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if device is not None:
        choose_device(device)
    written = io.BytesIO()
    try:
        with quiet_libraries(written):
            keras = _import_keras()
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                tf.get_logger().setLevel("ERROR")
                tf.config.list_physical_devices()
            if device is not None:
                require_gpu(device, keras)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if error.name not in BACKENDS:
            raise
        raise MissingDependencyError(
            f"Keras is set to run on '{error.name}', which is not installed: pip install {error.name}. Or choose "
            f"another: KERAS_BACKEND is one of {', '.join(BACKENDS)}."
        ) from error
    except Exception:
        os.write(2, written.getvalue())
        raise


def _import_keras() -> Any:
    try:
        import keras
    except ValueError as error:
        # Keras's own words for a name in its file of settings that it does not know.
        if "backend" not in str(error):
            raise
        raise InputError(f"Keras does not start: {error}. {_SETTINGS}") from error
    if keras.backend.backend() not in BACKENDS:
        raise InputError(f"Keras is set to run on '{keras.backend.backend()}', which repvgg cannot use. {_SETTINGS}")
    return keras


def human_size(size: int) -> str:
    """Bytes for people: 33.4 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
