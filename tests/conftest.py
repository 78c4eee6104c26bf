"""What every test module relies on: the backend is chosen before anything imports Keras."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Test files may have the same names in several folders; what they share is imported by its name alone.
HERE = Path(__file__).parent
sys.path[:0] = sorted({str(file.parent) for file in HERE.rglob("*.py") if not file.name.startswith("test_")})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    backend = os.environ["KERAS_BACKEND"]
    if backend == "tensorflow":
        return
    skip = pytest.mark.skip(reason=f"is about TensorFlow or about no backend, and KERAS_BACKEND is {backend}")
    for item in items:
        if item.get_closest_marker("backends") is None:
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def forget_models() -> Iterator[None]:
    """Frees what a module's models hold. Once a module, because it runs a full garbage collection."""
    yield
    import keras

    keras.backend.clear_session()


@pytest.fixture(autouse=True)
def same_initial_weights() -> None:
    """Each test begins with the same random state, alone or among others."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`artifact(network, target, precision)` is one of `exported.NETWORKS`, written once. Its folder stays as it is."""
    from exported import deployed, write

    @cache
    def written(network: str, target: str, precision: str = "float32") -> Any:
        return write(deployed(network), tmp_path_factory.mktemp("artifact"), target, precision)

    return written


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in double precision, on JAX as well: layers, losses and learning rates."""
    import keras

    def set_all(precision: str) -> None:
        keras.config.set_floatx(precision)
        keras.config.set_dtype_policy(precision)
        if keras.backend.backend() == "jax":
            import jax

            jax.config.update("jax_enable_x64", precision == "float64")

    set_all("float64")
    yield
    set_all("float32")
