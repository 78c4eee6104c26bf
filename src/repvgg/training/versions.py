"""What the numbers of a run depend on besides its settings."""

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Of everything that takes part in the numbers."""
    import keras

    names = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
    backend = keras.backend.backend()
    return {
        "repvgg": version("repvgg"),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: version(names[backend]) if backend in names else "unknown",
        "machine": platform.machine(),
        "system": platform.system(),
    }
