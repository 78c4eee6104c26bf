"""SavedModels in TensorFlow."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import FileError
from repvgg.base.metadata import Metadata
from repvgg.runners.runner import Runner, as_input, refuse_threads

SIGNATURE = "serving_default"
METADATA_FILE = Path("assets.extra", "repvgg.json")


class SavedModelRunner(Runner):
    """Runs the signature 'serving_default' of a SavedModel."""

    def __init__(self, loaded: Any, function: Any, name: str, metadata: Metadata) -> None:
        self._loaded = loaded  # Its variables live as long as it does.
        self._function = function
        self.name = name
        self._input, spec = _one_input(function)
        self._dtype = spec.dtype.as_numpy_dtype
        self.batch_size, *sides = spec.shape
        self.input_shape = tuple(sides)
        self.metadata = replace(metadata, input="uint8") if spec.dtype == "uint8" else metadata

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "SavedModelRunner":
        """Reads the folder of a SavedModel.

        Raises:
            FileError: if TensorFlow cannot load it, or it has no signature that takes one batch of images.
            InputError: if `threads` are asked for.
        """
        refuse_threads(path, threads)
        import tensorflow as tf

        try:
            loaded = tf.saved_model.load(str(path))
        except Exception as error:
            text = str(error).strip() or type(error).__name__
            raise FileError(f"TensorFlow cannot load '{path}': {text.splitlines()[0]}") from error
        if SIGNATURE not in loaded.signatures:
            names = ", ".join(loaded.signatures) or "none"
            raise FileError(f"'{path}' has no signature '{SIGNATURE}' to run. Its signatures: {names}.")
        function = loaded.signatures[SIGNATURE]
        inputs = function.structured_input_signature[1]
        shapes = ", ".join(f"{name} {spec.shape} {spec.dtype.name}" for name, spec in inputs.items())
        if len(inputs) != 1 or any(
            spec.shape.rank != 4 or spec.dtype.name not in ("float32", "uint8") for spec in inputs.values()
        ):
            raise FileError(f"'{path}' does not take one batch of images. Its inputs: {shapes}.")
        extra = path / METADATA_FILE
        metadata = Metadata.from_json(extra.read_text(encoding="utf-8")) if extra.exists() else Metadata()
        return cls(loaded, function, path.name, metadata)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        import tensorflow as tf

        found = self._function(**{self._input: tf.constant(as_input(self, images, self._dtype))})
        # A signature keeps names, and no order.
        arrays = {name: found[name].numpy() for name in sorted(found)}
        return {"output": next(iter(arrays.values()))} if len(arrays) == 1 else arrays

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        import tensorflow as tf

        tensors = {self._input: tf.constant(as_input(self, images, self._dtype))}
        return lambda: [output.numpy() for output in self._function(**tensors).values()]


def _one_input(function: Any) -> tuple[str, Any]:
    ((name, spec),) = function.structured_input_signature[1].items()
    return name, spec
