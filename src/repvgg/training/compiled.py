"""A network made ready for `fit`: loss, weight decay, optimizer and schedule of a recipe."""

from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.blocks import KINDS
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.models.layers import all_layers
from repvgg.training.distribution import replicas
from repvgg.training.recipe import Recipe

Tensor = Any

ACCURACY, CROSS_ENTROPY = "accuracy", "cross_entropy"
"""Names of the metrics of the main output in `fit`'s logs, with 'val_' before them for validation images."""


class TrainingModel(keras.Model):
    """A functional model whose loss includes weight decay, as the recipe wants it.

    Decay is part of the loss and so of the gradient: that is PyTorch's SGD. Keras's own `weight_decay` acts beside the
    gradient, past the momentum, and at momentum 0.9 decays a tenth as much for the same number.
    """

    def __init__(self, inputs: Any, outputs: Any, *, recipe: Recipe, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, **kwargs)
        self._weight_decay = recipe.weight_decay
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
        return loss + 0.5 * self._weight_decay / replicas() * sum(squares)


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


class SGD(keras.optimizers.SGD):
    """Keras's SGD, which leaves averaged weights where they are when `fit` ends.

    Keras puts the average in place of the weights at the end of every `fit`, and a resumed run consists of several.
    """

    def finalize_variable_values(self, var_list: Any) -> None:
        """Does nothing; see `finish_average`."""

    def finish_average(self, variables: Any) -> None:
        """Puts the moving average in place of the weights."""
        super().finalize_variable_values(variables)


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> Any:
    """The learning rate of each step: a linear warm-up, and a cosine to 0 over the rest of the epochs."""
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    # With accumulation, Keras counts an iteration for every step, moved weights or not.
    steps = recipe.epochs * steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.peak_rate,
        decay_steps=max(1, steps - warmup),
        warmup_target=recipe.peak_rate if warmup else None,
        warmup_steps=warmup,
    )


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> Any:
    """SGD with a linear warm-up and a cosine to 0, over the whole of the recipe's epochs.

    Raises:
        InputError: for what Keras's optimizers cannot do on several devices in TensorFlow.
    """
    for name, wanted in (("accumulate", recipe.accumulate > 1), ("clip_norm", recipe.clip_norm is not None)):
        # Keras clips the gradients of each replica before it adds them up, and has no step in which it only adds.
        if wanted and replicas() > 1:
            raise InputError(
                f"`{name}` does not go together with several devices in TensorFlow. Set KERAS_BACKEND=jax, which "
                "trains on all of them with it, or CUDA_VISIBLE_DEVICES=0 for one device."
            )
    return SGD(
        make_schedule(recipe, steps_per_epoch),
        # Keras numbers its names otherwise, and a checkpoint knows variables by their paths.
        name="sgd",
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema if recipe.ema is not None else 0.99,
        gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
    )


def compile_for(model: Any, recipe: Recipe, steps_per_epoch: int) -> TrainingModel:
    """The same layers under a model that `fit` can train by `recipe`; the caller's own stays uncompiled.

    Targets are (N, classes): one-hot, smoothed or mixed. For a network with auxiliary outputs, `output_targets` tells
    how to give each of them its own.
    """
    trainer = TrainingModel(model.input, model.output, recipe=recipe, name=model.name)
    names = output_names(model)
    # Weighted: images that only fill up a batch count nothing.
    metrics = [
        keras.metrics.CategoricalAccuracy(name=ACCURACY),
        keras.metrics.CategoricalCrossentropy(name=CROSS_ENTROPY, from_logits=True),
    ]

    def loss() -> Any:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)

    trainer.compile(
        make_optimizer(recipe, steps_per_epoch),
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
        InputError: if the outputs are no classifier's.
    """
    outputs = model.output
    if isinstance(outputs, dict) and "main" in outputs:
        return list(outputs)
    if isinstance(outputs, dict | list | tuple) or len(outputs.shape) != 2:
        raise InputError(f"'{model.name}' is no classifier: logits (N, classes) are needed to train on labels.")
    return []


def compiles_fast() -> bool:
    """Whether XLA pays: on accelerators; on a CPU TensorFlow's own kernels are two times faster (JAX has no others).

    Not on several devices in TensorFlow, whose exchange between them it cannot compile.
    """
    if keras.backend.backend() != "tensorflow":
        return bool(keras.backend.backend() == "jax")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU")) and replicas() == 1
