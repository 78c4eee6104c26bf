"""`--device`: what Keras runs on, said to its backend before that starts."""

import os
import re
from typing import Any

from repvgg.base.errors import InputError

DEVICE_HELP = "What Keras runs on: cpu, gpu, or gpu:1 for the second one; the backend's own choice if not given."

WORKERS_HELP = "Threads that read images; one a core, and 16 at most, if not given."

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""NVIDIA's and AMD's variables, which all three backends obey."""


def check_device(device: str | None) -> None:
    """Raises `InputError` unless it is cpu, gpu or gpu and a number, or None."""
    if device is not None and not re.fullmatch(r"cpu|gpu(:\d+)?", device):
        raise InputError(f"--device is cpu, gpu, or gpu:1 for the second GPU. Received: '{device}'.")


def choose_device(device: str) -> None:
    """Sets what the backends read when they start: of several GPUs they see the chosen one alone."""
    if device == "cpu":
        os.environ.update(dict.fromkeys(VISIBLE, "-1"))
        os.environ.update({"JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"})
        return
    number = int(device.partition(":")[2] or 0)
    for variable in VISIBLE:
        # Of those that somebody has narrowed it down to already.
        seen = [one for one in os.environ.get(variable, "").split(",") if one]
        if seen and number >= len(seen):
            raise InputError(
                f"--device is {device}, and {variable} shows {len(seen)} ({', '.join(seen)}). They count from gpu:0."
            )
        os.environ[variable] = seen[number] if seen else str(number)


def require_gpu(device: str, keras: Any) -> None:
    """Raises `InputError` if a GPU was asked for and the backend, which has started, has none."""
    backend = keras.backend.backend()
    if device != "cpu" and not _has_gpu(backend):
        raise InputError(
            f"--device is {device}, and {backend} sees no such GPU. Check the driver and that {backend} is installed "
            "with support for GPUs, or choose cpu."
        )


def _has_gpu(backend: str) -> bool:
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "torch":
        import torch

        return bool(torch.cuda.is_available())
    import jax

    return bool(jax.default_backend() != "cpu")
