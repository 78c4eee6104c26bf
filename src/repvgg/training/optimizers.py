"""The optimizer of a recipe and its schedule."""

from collections.abc import Sequence
from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.training.distribution import replicas
from repvgg.training.recipe import Recipe
from repvgg.training.rep_optimizer import RepAdamW, RepSGD, ScaledKernel


class _AverageApart(keras.optimizers.Optimizer):
    """Leaves averaged weights where they are when `fit` ends.

    Keras puts the average in place of the weights at the end of every `fit`, and a resumed run consists of several.
    """

    def finalize_variable_values(self, var_list: Any) -> None:
        """Does nothing; see `finish_average`."""

    def finish_average(self, variables: Any) -> None:
        """Puts the moving average in place of the weights."""
        super().finalize_variable_values(variables)


class _SGD(_AverageApart, keras.optimizers.SGD):
    pass


class _AdamW(_AverageApart, keras.optimizers.AdamW):
    pass


class _RepSGD(_AverageApart, RepSGD):
    pass


class _RepAdamW(_AverageApart, RepAdamW):
    pass


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


def make_optimizer(
    recipe: Recipe,
    steps_per_epoch: int,
    decayed: Sequence[Any] = (),
    others: Sequence[Any] = (),
    kernels: Sequence[ScaledKernel] | None = None,
) -> Any:
    """A recipe's optimizer, with a linear warm-up and a cosine to 0 over the whole of its epochs.

    SGD alone leaves weight decay to the loss.

    Args:
        decayed, others: the variables that weight decay acts on, and the rest.
        kernels: those that are trained as sums of branches; None for an ordinary optimizer.

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
    options: dict[str, Any] = {
        "learning_rate": make_schedule(recipe, steps_per_epoch),
        # Keras numbers its names otherwise, and a checkpoint knows variables by their paths.
        "name": recipe.optimizer,
        "global_clipnorm": recipe.clip_norm,
        "use_ema": recipe.ema is not None,
        "ema_momentum": recipe.ema if recipe.ema is not None else 0.99,
        "gradient_accumulation_steps": recipe.accumulate if recipe.accumulate > 1 else None,
    }
    scaled = {} if kernels is None else {"kernels": kernels, "decayed": [variable.path for variable in decayed]}
    if recipe.optimizer == "sgd":
        options |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
        if kernels is None:
            return _SGD(**options)
        return _RepSGD(**options, **scaled, coupled_weight_decay=recipe.weight_decay)
    options |= {"beta_1": recipe.momentum, "weight_decay": recipe.weight_decay}
    if kernels is not None:
        return _RepAdamW(**options, **scaled)
    optimizer = _AdamW(**options)
    optimizer.exclude_from_weight_decay(var_list=list(others))
    return optimizer
