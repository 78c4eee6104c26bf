"""From training form to deploy form: a new model of stock layers, or blocks converted in place."""

from collections.abc import Mapping
from typing import Any

import keras

from repvgg.base.errors import ConversionError
from repvgg.blocks import ops
from repvgg.blocks.layers import AuxiliaryClassifier, ReparameterizableBlock, SinglePath
from repvgg.conversion.self_check import check_block, check_conversion
from repvgg.models.copying import Copier
from repvgg.models.full_precision import in_full_precision, no_half_policy
from repvgg.models.layers import Functional, all_layers, copy_state, plain_model, require_float_weights
from repvgg.models.metadata import attached_metadata, get_metadata, set_metadata


def reparameterize(model: Any, *, rtol: float | None = None) -> Any:
    """A new model in which every re-parameterizable block is one stock convolution, with the same answers.

    Any functional or Sequential model will do, however the blocks sit in it: nested, shared between branches, inside
    `TimeDistributed`. Other layers are copied with their weights. Outputs of RepVGGplus's auxiliary classifiers are
    left out. The original is not touched. The new model loads in a Keras that never imports this package (unless other
    custom layers were in it).

    Before the model is handed over, both forms are run on probe inputs. A network that calculates in 16 bits, such as
    one of mixed precision, is converted, compared and handed over in float32, as which its weights are stored.

    Args:
        rtol: relative error up to which the new model passes; 1e-4 if None, and 1e-10 in float64.

    Raises:
        ConversionError: if there is nothing to convert, the model's structure cannot be seen, or a layer has weights
            that are not in float (quantized by Keras, LoRA).
        VerificationError: if the two forms differ; the message names the worst block.

    Example:
        >>> deployed = reparameterize(model)
        >>> deployed.save("model.keras")
    """
    _require_convertible(model)
    converter = _Converter()
    with no_half_policy():
        plain = in_full_precision(without_auxiliary_outputs(model))
        deployed = converter.convert_model(plain)
    converter.copy_weights()
    check_conversion(plain, deployed, converter.single_paths(), rtol)
    set_metadata(deployed, get_metadata(model), form="deploy")
    return deployed


def switch_to_deploy(model: Any) -> None:
    """Converts every block inside `model` in place; for subclassed models, whose structure Keras does not know.

    Each block's two forms are compared on a probe input before any block is touched. An optimizer made before holds
    weights that are gone: compile again before training.

    Raises:
        ConversionError: if there is nothing to convert, or a block has no weights yet.
        VerificationError: if the two forms of a block differ.
    """
    blocks = _blocks_of(model)
    for block in blocks:
        check_block(block)
    for block in blocks:
        block.switch_to_deploy()
    if isinstance(model, keras.Model):
        model.make_predict_function(force=True)
        set_metadata(model, form="deploy")


def _blocks_of(model: Any) -> list[ReparameterizableBlock]:
    if not isinstance(model, keras.Layer):
        raise ConversionError(f"A Keras model was expected, and a {type(model).__name__} came.")
    blocks = [layer for layer in all_layers(model) if isinstance(layer, ReparameterizableBlock)]
    if not blocks:
        form = (
            "It says that it is in its deploy form already."
            if (metadata := attached_metadata(model)) and metadata.form == "deploy"
            else ("Either it was converted before, or it was built of other layers.")
        )
        raise ConversionError(
            f"'{model.name}' contains no re-parameterizable block, so there is nothing to convert. {form}"
        )
    return blocks


def _require_convertible(model: Any) -> None:
    _blocks_of(model)
    if not isinstance(model, Functional | keras.Sequential):
        raise ConversionError(
            f"'{model.name}' is a subclassed model ({type(model).__name__}), whose structure Keras does not know, so "
            "no new model can be made of it. Convert its blocks in place with repvgg.switch_to_deploy(model)."
        )
    if any(block.data_format == "channels_first" for block in _blocks_of(model)) and not (
        ops.stock_layers_run_channels_first()
    ):
        raise ConversionError(
            f"'{model.name}' has its channels first. Keras's own layers, which a deploy form is made of, run that on a "
            "CPU in TensorFlow only with oneDNN, which TF_ENABLE_ONEDNN_OPTS=0 switches off: unset it, or set "
            "KERAS_BACKEND=jax or torch."
        )
    if not model.built:
        raise ConversionError(f"'{model.name}' has no weights yet. Give it an Input layer, or call it on a batch.")
    require_float_weights(model)


def without_auxiliary_outputs(model: Any) -> Any:
    """`model` as a plain functional model over the same layers, neither compiled nor with training-only outputs."""
    if isinstance(model, keras.Sequential):
        return plain_model(model)
    training_only = {id(layer.output) for layer in model.layers if isinstance(layer, AuxiliaryClassifier)}
    outputs = model.output
    if training_only and isinstance(outputs, Mapping):
        outputs = {key: value for key, value in outputs.items() if id(value) not in training_only}
        if len(outputs) == 1:
            outputs = next(iter(outputs.values()))
    return keras.Model(model.input, outputs, name=model.name)


class _Converter:
    """Copies a model, with each block replaced by a stock convolution."""

    def __init__(self) -> None:
        self._copier = Copier(self._new, opens=_has_blocks)

    def convert_model(self, model: Any) -> Any:
        """A copy of a plain functional model with its blocks replaced."""
        return self._copier.model(model)

    def copy_weights(self) -> None:
        """Fills the copies. They have weights only once the whole model is wired up."""
        for original, copy in self._copier.pairs():
            if isinstance(copy, SinglePath):
                copy.copy_weights(original)
            elif isinstance(copy, keras.Layer) and original.weights and not _wraps_blocks(original):
                copy_state(original, copy)
                for block in all_layers(copy):
                    if isinstance(block, ReparameterizableBlock):
                        block.switch_to_deploy()

    def single_paths(self) -> list[tuple[ReparameterizableBlock, SinglePath]]:
        """Every block with its replacement."""
        return [(original, copy) for original, copy in self._copier.pairs() if isinstance(copy, SinglePath)]

    def _new(self, layer: Any) -> Any:
        if isinstance(layer, ReparameterizableBlock):
            return SinglePath.of_block(layer)
        if _wraps_blocks(layer):
            return keras.layers.TimeDistributed(self._as_layer(layer.layer), name=layer.name, dtype=layer.dtype_policy)
        return type(layer).from_config(layer.get_config())

    def _as_layer(self, layer: Any) -> Any:
        copy = self._copier.layer(layer)
        if not isinstance(copy, SinglePath):
            return copy
        last = layer.data_format == "channels_last"
        inputs = keras.Input((None, None, layer.in_channels) if last else (layer.in_channels, None, None))
        return keras.Model(inputs, copy(inputs), name=f"{layer.name}_single_path")


def _has_blocks(layer: Any) -> bool:
    return any(isinstance(inner, ReparameterizableBlock) for inner in all_layers(layer))


def _wraps_blocks(layer: Any) -> bool:
    """Whether it is put together anew around what becomes of its inner layer, which is a copy of its own."""
    return isinstance(layer, keras.layers.TimeDistributed) and _has_blocks(layer)
