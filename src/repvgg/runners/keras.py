"""Keras models on the current backend, in either form."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from repvgg.blocks.layers import AuxiliaryClassifier, ReparameterizableBlock, SinglePath, recorded_inputs
from repvgg.models.full_precision import in_full_precision
from repvgg.models.layers import all_layers
from repvgg.models.metadata import get_metadata
from repvgg.models.saving import load_model
from repvgg.runners.runner import Runner, refuse_threads


class KerasRunner(Runner):
    """Runs a Keras model in inference mode, whatever mode it is in.

    Outputs of auxiliary classifiers, which exist for training only, are left out.

    Args:
        compiled: run a compiled function, faster from the second batch of one shape on; False runs layer by layer.
    """

    def __init__(self, model: Any, name: str | None = None, *, compiled: bool = True) -> None:
        self.model = model
        self.metadata = get_metadata(model)
        self.name = name or f"{model.name} ({self.metadata.form} form)"
        self.batch_size, *sides = _open_shape(model)
        self.input_shape = tuple(sides)  # type: ignore[assignment]
        self._training_only = {layer.name for layer in all_layers(model) if isinstance(layer, AuxiliaryClassifier)}
        self._function = _compiled_call(model) if compiled else _eager_call(model)

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "KerasRunner":
        """Reads a `.keras` file; one of mixed precision is run in float32, as which its weights are stored.

        Raises:
            FileError: if it is damaged.
            InputError: if `threads` are asked for.
        """
        refuse_threads(path, threads)
        return cls(in_full_precision(load_model(path)), name=path.name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        outputs = self.outputs(images)
        return next(iter(outputs.values()))

    def outputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        return named_outputs(self._function(keras.ops.convert_to_tensor(images)), self._training_only)

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        tensor = keras.ops.convert_to_tensor(images)
        return lambda: named_outputs(self._function(tensor), self._training_only)

    def blocks(self) -> tuple[str, ...]:
        return tuple(self._runnable_blocks())

    def block_inputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        blocks = {name: block for name, block in self._runnable_blocks().items() if not isinstance(block, SinglePath)}
        if not blocks:
            return {}
        with recorded_inputs() as inputs:
            _eager_call(self.model)(keras.ops.convert_to_tensor(images))
        return {name: inputs[id(block)] for name, block in blocks.items() if id(block) in inputs}

    def run_block(self, name: str, inputs: np.ndarray) -> np.ndarray:
        block = self._runnable_blocks()[name]
        tensor = keras.ops.convert_to_tensor(inputs)
        outputs = block(tensor) if isinstance(block, SinglePath) else block(tensor, training=False)
        return to_numpy(outputs)

    def _runnable_blocks(self) -> dict[str, Any]:
        layers = {layer.name: layer for layer in all_layers(self.model)}
        found: dict[str, Any] = {}
        for name, layer in layers.items():
            if isinstance(layer, ReparameterizableBlock):
                found[name] = layer
            elif (path := SinglePath.find(name, layers)) is not None:
                found[name] = path
        return found


def named_outputs(outputs: Any, training_only: set[str]) -> dict[str, np.ndarray]:
    """A model's output, whatever its structure, as arrays by name; a single one is called 'output'."""
    if isinstance(outputs, Mapping):
        named = {str(key): value for key, value in outputs.items() if key not in training_only}
    elif isinstance(outputs, list | tuple):
        named = {f"output{index}": value for index, value in enumerate(outputs)}
    else:
        named = {"output": outputs}
    if len(named) == 1:
        named = {"output": next(iter(named.values()))}
    flat: dict[str, np.ndarray] = {}
    for key, value in named.items():
        if isinstance(value, Mapping | list | tuple):
            flat.update({f"{key}/{inner}": array for inner, array in named_outputs(value, set()).items()})
        else:
            flat[key] = to_numpy(value)
    return flat


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor as an array; 16-bit floats become float32, which NumPy calculates with."""
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _eager_call(model: Any) -> Callable[[Any], Any]:
    if keras.backend.backend() == "torch":
        import torch

        def call(images: Any) -> Any:
            with torch.no_grad():
                return model(images, training=False)

        return call
    return lambda images: model(images, training=False)


def _compiled_call(model: Any) -> Callable[[Any], Any]:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Not `model.predict`: it goes through XLA by itself, which is slower on a CPU. The signature makes one trace
        # serve images of every size.
        function = tf.function(lambda images: model(images, training=False))
        try:
            return function.get_concrete_function(tf.TensorSpec(_open_shape(model), tf.float32))  # type: ignore[no-any-return]
        except tf.errors.OperatorNotAllowedInGraphError:
            # Some layers of Keras look at the size, UpSampling2D with bilinear interpolation for one: a trace a size.
            return function  # type: ignore[no-any-return]
    if backend == "jax":
        import jax

        def stateless(trainable: Any, fixed: Any, images: Any) -> Any:
            return model.stateless_call(trainable, fixed, images, training=False)[0]

        compiled = jax.jit(stateless)

        def call(images: Any) -> Any:
            # Weights are looked up at each call, so that a model that is trained on stays current.
            trainable = [variable.value for variable in model.trainable_variables]
            fixed = [variable.value for variable in model.non_trainable_variables]
            return compiled(trainable, fixed, images)

        return call
    return _eager_call(model)


def _open_shape(model: Any) -> tuple[int | None, ...]:
    shape = getattr(model, "input_shape", None)
    return shape if isinstance(shape, tuple) and len(shape) == 4 else (None, None, None, None)
