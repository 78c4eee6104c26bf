"""A network made ready for `fit`: loss, weight decay and the optimizer of a recipe."""

from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.blocks import KINDS
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.checkpoints.scales import Scales
from repvgg.models.layers import all_layers
from repvgg.training.distribution import replicas
from repvgg.training.optimizers import make_optimizer
from repvgg.training.recipe import Recipe
from repvgg.training.rep_optimizer import scaled_kernels

Tensor = Any

ACCURACY, CROSS_ENTROPY = "accuracy", "cross_entropy"
"""Names of the metrics of the main output in `fit`'s logs, with 'val_' before them for validation images."""


class TrainingModel(keras.Model):
    """A functional model whose loss includes weight decay, as the recipe wants it.

    Decay is part of the loss and so of the gradient: that is PyTorch's SGD. Keras's own `weight_decay` acts beside the
    gradient, past the momentum, and at momentum 0.9 decays a tenth as much for the same number.
    """

    def __init__(self, inputs: Any, outputs: Any, *, recipe: Recipe, decay_in_loss: bool = True, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, **kwargs)
        self._weight_decay = recipe.weight_decay if decay_in_loss else 0
        self._decayed = decayed_variables(self, custom_l2=recipe.custom_l2)
        self._custom = custom_l2_blocks(self) if recipe.custom_l2 else []

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if not training or self._weight_decay == 0:
            return loss
        squares = [keras.ops.sum(keras.ops.square(variable.value)) for variable in self._decayed]
        squares += [block.get_custom_L2() for block in self._custom]
        # The gradients of replicas are added up; each has its part of the loss already, and gets its part of the decay.
        # Keras gives the loss in single precision, whatever the weights are in.
        return loss + keras.ops.cast(0.5 * self._weight_decay / replicas() * sum(squares), loss.dtype)


def decayed_variables(model: Any, *, custom_l2: bool = False) -> list[Any]:
    """The trainable variables that weight decay acts on.

    Kernels, and the scales of identity branches; neither biases nor other normalization parameters. With `custom_l2`
    the kernels of the blocks that have one are left out, because their folded kernel is decayed instead.

    Source: the official repository's `set_weight_decay`.
    """
    # What a block's list of branches says of each of its variables; elsewhere kernels are told by their axes.
    said: dict[int, bool] = {}
    for block in _blocks_in_training_form(model):
        folded = custom_l2 and block.kind.has_custom_l2
        for parameter in block.kind.parameters(block.shape):
            by_itself = not (folded and parameter.role == "kernel")
            said[id(block.variable(parameter.path))] = parameter.decayed and by_itself
    if custom_l2:
        custom_l2_blocks(model)
    return [variable for variable in model.trainable_variables if said.get(id(variable), len(variable.shape) > 1)]


def _blocks_in_training_form(model: Any) -> list[ReparameterizableBlock]:
    return [layer for layer in all_layers(model) if isinstance(layer, ReparameterizableBlock) and not layer.deploy]


def custom_l2_blocks(model: Any) -> list[ReparameterizableBlock]:
    """The blocks that have a custom L2.

    Raises:
        InputError: if there are re-parameterizable blocks without one, or none at all.
    """
    blocks = [layer for layer in all_layers(model) if isinstance(layer, ReparameterizableBlock)]
    without = {block.kind.name for block in blocks if not block.kind.has_custom_l2}
    if without or not blocks:
        known = [kind.name for kind in KINDS.values() if kind.has_custom_l2]
        raise InputError(
            f"`custom_l2` is defined for {', '.join(known)} in its training form; '{model.name}' has "
            f"{', '.join(sorted(without)) or 'no such block'}. Leave it off."
        )
    return blocks


def compile_for(model: Any, recipe: Recipe, steps_per_epoch: int, scales: Scales | None = None) -> TrainingModel:
    """The same layers under a model that `fit` can train by `recipe`; the caller's own stays uncompiled.

    Args:
        scales: train plain blocks by `RepOptimizer`.

    Targets are (N, classes): one-hot, smoothed or mixed. For a network with auxiliary outputs, `output_targets` tells
    how to give each of them its own.
    """
    # AdamW's decay is decoupled, and in RepOptimizer only the gradient of the loss is multiplied.
    in_loss = recipe.optimizer == "sgd" and scales is None
    trainer = TrainingModel(model.input, model.output, recipe=recipe, decay_in_loss=in_loss, name=model.name)
    kernels = scaled_kernels(trainer, scales) if scales is not None else None
    decayed = decayed_variables(trainer)
    kept = {id(variable) for variable in decayed}
    others = [variable for variable in trainer.trainable_variables if id(variable) not in kept]
    optimizer = make_optimizer(recipe, steps_per_epoch, decayed, others, kernels)
    names = output_names(model)
    # Weighted: images that only fill up a batch count nothing.
    metrics = [
        keras.metrics.CategoricalAccuracy(name=ACCURACY),
        keras.metrics.CategoricalCrossentropy(name=CROSS_ENTROPY, from_logits=True),
    ]

    def loss() -> Any:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)

    trainer.compile(
        optimizer,
        loss={name: loss() for name in names} if names else loss(),
        loss_weights={name: 1.0 if name == "main" else recipe.auxiliary_weight for name in names} if names else None,
        weighted_metrics={"main": metrics} if names else metrics,
        jit_compile=compiles_fast(),
    )
    _make_variables(trainer, names)
    return trainer


def _make_variables(trainer: TrainingModel, names: list[str]) -> None:
    """Makes the optimizer's and the metrics' variables, which Keras would make at the first step: a checkpoint has
    to find them before that.
    """
    trainer.optimizer.build(trainer.trainable_variables)
    outputs = trainer.output["main"] if names else trainer.output
    zeros = keras.ops.zeros((1, outputs.shape[-1]))
    empty = dict.fromkeys(names, zeros) if names else zeros
    trainer.compute_loss(y=empty, y_pred=empty, training=False)
    trainer.compute_metrics(None, empty, empty, keras.ops.ones((1,)))
    trainer.reset_metrics()


def output_names(model: Any) -> list[str]:
    """Names of the outputs where there are auxiliary ones, 'main' first; none for a plain classifier.

    Raises:
        InputError: if the outputs are not a classifier's.
    """
    outputs = model.output
    if isinstance(outputs, dict) and "main" in outputs:
        return list(outputs)
    if isinstance(outputs, dict | list | tuple) or len(outputs.shape) != 2:
        raise InputError(f"'{model.name}' is not a classifier: logits (N, classes) are needed to train on labels.")
    return []


def compiles_fast() -> bool:
    """Whether XLA pays: on accelerators; on a CPU TensorFlow's own kernels are two times faster (JAX has no others).

    Not on several devices in TensorFlow, whose exchange between them it cannot compile.
    """
    if keras.backend.backend() != "tensorflow":
        return bool(keras.backend.backend() == "jax")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU")) and replicas() == 1
