"""A functional model of stock layers, written call by call, and what goes into it."""

from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.models.functional_graph import FunctionalGraph, TensorKey
from repvgg.targets import Settings
from repvgg.targets.operations import FLOAT16, LOGITS, PROBABILITIES, GraphWriter, in_float16
from repvgg.targets.stock_layers import Padded, settled, write_layer

Tensor = TypeVar("Tensor")


def write_model(writer: GraphWriter[Tensor], model: Any, images: Tensor) -> dict[str, Tensor]:
    """Writes the whole model; its outputs by name: 'logits' or 'probabilities' where there is one.

    Raises:
        InputError: if a layer has no counterpart, or softmax is asked for where it makes no sense.
    """
    graph = FunctionalGraph(model)
    written = _write_graph(writer, graph, [images], prefix="")
    outputs = {name: written[key] for name, key in graph.outputs.items()}
    if not writer.settings.softmax:
        return outputs if len(outputs) > 1 else {LOGITS: next(iter(outputs.values()))}
    if len(outputs) > 1 or len(model.outputs[0].shape) != 2:
        raise InputError(f"Softmax makes probabilities of a classifier's logits, and '{model.name}' is not one.")
    last = next(call.layer for call in graph.calls if call.output in graph.outputs.values())
    active = keras.activations.serialize(getattr(last, "activation", None) or keras.activations.linear)
    if active == "softmax" or isinstance(last, keras.layers.Softmax):
        raise InputError(f"'{model.name}' ends in a softmax, so it gives probabilities already. Leave softmax out.")
    (logits,) = outputs.values()
    return {PROBABILITIES: writer.activate(logits, 2, "softmax", f"{PROBABILITIES}:softmax")}


def output_shapes(model: Any) -> list[tuple[int | None, ...]]:
    """The shapes of the outputs, in the order in which `write_model` has them."""
    graph = FunctionalGraph(model)
    shapes = {key: tuple(tensor.shape) for key, tensor in zip(graph.flat_outputs, model.outputs, strict=True)}
    return [shapes[key] for key in graph.outputs.values()]


def _write_graph(
    writer: GraphWriter[Tensor], graph: FunctionalGraph, inputs: Sequence[Tensor], prefix: str
) -> dict[TensorKey, Tensor]:
    """The model's outputs, by their keys."""
    values: dict[TensorKey, Tensor | Padded[Tensor]] = dict(zip(graph.inputs, inputs, strict=True))
    for call in graph.calls:
        label = prefix + call.output[0] + (f":{call.output[1]}" if call.output[1] else "")
        given = [values[key] for key in call.inputs]
        if isinstance(call.layer, keras.Model):
            tensors = [
                settled(writer, value, f"{label}/pad" + (str(place) if place else ""))
                for place, value in enumerate(given)
            ]
            inner = FunctionalGraph(call.layer)
            written = _write_graph(writer, inner, tensors, prefix=f"{label}/")
            values.update(zip(call.outputs, (written[key] for key in inner.flat_outputs), strict=True))
        else:
            values[call.output] = write_layer(writer, call, given, label)
    wanted = dict.fromkeys(graph.flat_outputs)
    return {key: settled(writer, values[key], f"{prefix}{key[0]}") for key in wanted}


def image_shape(model: Any, settings: Settings, what: str) -> tuple[int | None, int | None, int | None, int]:
    """(batch, height, width, channels) of the artifact's input: the model's, where the settings fix nothing.

    Raises:
        InputError: if the model takes something else than one batch of images, or other images than the settings say.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
        raise InputError(f"{what} export takes models with one input of images; '{model.name}' has {shapes}.")
    own = tuple(model.inputs[0].shape)
    asked = (settings.batch, *(settings.image_size or (None, None)))
    fixed = []
    for side, size, wanted in zip(("batch", "height", "width"), own, asked, strict=False):
        if wanted is not None and wanted < 1:
            raise InputError(f"The {side} of the artifact's input must be at least 1. Received: {wanted}.")
        if size is not None and wanted is not None and size != wanted:
            raise InputError(
                f"The {side} of '{model.name}' is fixed to {size}, and {wanted} was asked for. Load or build the model "
                "with open sides first: input_shape=(None, None, 3)."
            )
        fixed.append(size if size is not None else wanted)
    preprocessing = settings.preprocessing
    if preprocessing is not None and preprocessing.channels != own[3]:
        raise InputError(
            f"'{model.name}' takes images of {own[3]} channels, and its preprocessing is for {preprocessing.channels}."
        )
    return fixed[0], fixed[1], fixed[2], int(own[3])


def scale_and_shift(preprocessing: Preprocessing | None, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels times the first, plus the second, are normalized images; each (channels,), rounded to the precision."""
    if preprocessing is None:
        raise InputError("There is no preprocessing to write into the artifact.")
    mean, std = (np.asarray(part, np.float64) for part in (preprocessing.mean, preprocessing.std))
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return (in_float16(scale), in_float16(shift)) if precision == FLOAT16 else (scale, shift)
