"""What the commands share in talking to a terminal."""

import os
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

FORCE_HELP = "Replace an output that exists."


def console() -> "Console":
    """For results."""
    from rich.console import Console

    return Console(highlight=False)


def error_console() -> "Console":
    """For messages, on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def start_keras() -> None:
    """Imports Keras without the start-up log of its backend, which is no news to somebody who runs a command.

    TensorFlow's libraries write to standard error before any setting of theirs is read, so the file descriptor itself
    is turned away meanwhile; what was written comes back if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            import keras

            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                tf.get_logger().setLevel("ERROR")
                tf.config.list_physical_devices()
        except BaseException:
            log.seek(0)
            os.write(terminal, log.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def human_size(size: int) -> str:
    """Bytes for people: 33.4 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
