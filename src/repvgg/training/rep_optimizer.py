"""RepOptimizer: SGD and AdamW that train plain convolutions as if they were sums of branches.

Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023, arXiv 2205.15242, and
https://github.com/DingXiaoH/RepOptimizers. What the gradients are multiplied with is in `repvgg.blocks.csla`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.blocks import KINDS
from repvgg.blocks.branches import float64_of
from repvgg.blocks.csla import UPDATE_RULES, UpdateRule, fresh_kernel, gradient_multiplier
from repvgg.blocks.kind import BlockKind
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.checkpoints.scales import Scales, plain_blocks, scaled_blocks
from repvgg.core.architecture import BlockShape

Tensor = Any


@dataclass(frozen=True)
class ScaledKernel:
    """A plain kernel that is trained as a sum of branches.

    Attributes:
        path: of the variable, 'stage1_block0/conv3x3/kernel'.
        kind: of the sum, a key of `repvgg.blocks.KINDS`.
        shape: of its block.
        scales: the sum's factors by path, (channels,) each.
    """

    path: str
    kind: str
    shape: BlockShape
    scales: dict[str, np.ndarray]

    def to_config(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "scales": {path: scale.tolist() for path, scale in self.scales.items()}}

    @classmethod
    def from_config(cls, values: dict[str, Any]) -> "ScaledKernel":
        """Reads what `to_config` made.

        Raises:
            UnknownNameError: for a kind of block that this package does not have.
        """
        if values["kind"] not in KINDS:
            raise UnknownNameError("block", values["kind"], KINDS)
        shape = {**values["shape"], "kernel_size": tuple(values["shape"]["kernel_size"])}
        scales = {path: np.asarray(scale, np.float64) for path, scale in values["scales"].items()}
        return cls(values["path"], values["kind"], BlockShape(**shape), scales)


class _Rep(keras.optimizers.Optimizer):
    """What both rules have in common: the kernels, their factors as variables, and what decays.

    The factors are the optimizer's own variables, so a checkpoint of those is complete. The multipliers, which are as
    large as the kernels, are made of them in each step.
    """

    rule: UpdateRule

    def __init__(
        self, *args: Any, kernels: Sequence[Any] = (), decayed: Sequence[str] | None = None, **kw: Any
    ) -> None:
        super().__init__(*args, **kw)
        self._kernels = tuple(
            one if isinstance(one, ScaledKernel) else ScaledKernel.from_config(one) for one in kernels
        )
        self._decayed = None if decayed is None else tuple(decayed)
        self._entries: Any = None

    def build(self, variables: Any) -> None:
        """Makes all variables.

        Raises:
            InputError: if a kernel to be trained as a sum is not among `variables`, or is there more than once.
        """
        if self.built:
            return
        paths = [variable.path for variable in variables]
        for kernel in self._kernels:
            if paths.count(kernel.path) != 1:
                raise InputError(
                    f"There are {paths.count(kernel.path)} trainable variables called '{kernel.path}', and this "
                    "optimizer has scales for one. Make it for the network that it trains: "
                    "repvgg.RepOptimizer(model, scales)."
                )
        # Keras's own decay, beside the gradient, acts on the same variables.
        self.exclude_from_weight_decay(var_list=[one for one in variables if not self._decays(one)])
        super().build(variables)
        # By what Keras hands to `update_step`, which is not the same on every backend. Hidden from Keras's tracking.
        kernels, entries = {kernel.path: kernel for kernel in self._kernels}, {}
        for variable in variables:
            scaled = self._with_variables(kernels[variable.path], variable) if variable.path in kernels else None
            entries.update(dict.fromkeys(_keys(variable), (scaled, self._decays(variable))))
        self._entries = _Hidden(entries)

    def _with_variables(self, kernel: ScaledKernel, variable: Any) -> Any:
        # Made with their values: Keras may build an optimizer while it traces a step, and assigning is part of a step.
        made = {
            path: self.add_variable(
                values.shape,
                _constant(values),
                variable.dtype,
                name=f"{kernel.path}_{path}".replace("/", "_").replace(".", "_"),
            )
            for path, values in kernel.scales.items()
        }
        return KINDS[kernel.kind], kernel.shape, made

    def _decays(self, variable: Any) -> bool:
        return len(variable.shape) > 1 if self._decayed is None else variable.path in self._decayed

    def entry_of(self, variable: Any) -> tuple[Tensor, bool]:
        """The multiplier of a variable, None where there is none, and whether it decays."""
        scaled, decays = self._entries.value[id(variable)]
        return (None if scaled is None else _multiplier(scaled, self.rule)), decays

    def get_config(self) -> dict[str, Any]:
        """Everything that makes the same optimizer again, factors included."""
        return {
            **super().get_config(),
            "kernels": [kernel.to_config() for kernel in self._kernels],
            "decayed": None if self._decayed is None else list(self._decayed),
        }


def _constant(values: np.ndarray) -> Any:
    return lambda shape, dtype=None: keras.ops.reshape(keras.ops.convert_to_tensor(values, dtype=dtype), shape)


class _Hidden:
    """Keeps Keras from taking the model's variables for the optimizer's own."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _keys(variable: Any) -> Iterator[int]:
    yield id(variable)
    if keras.backend.backend() == "tensorflow":
        # Keras passes TensorFlow's own variables on, and of replicas each one's.
        yield id(variable.value)
        yield from (id(replica) for replica in getattr(variable.value, "values", ()))


def _multiplier(scaled: tuple[BlockKind, BlockShape, dict[str, Any]], rule: UpdateRule) -> Tensor:
    kind, shape, scales = scaled
    values = {path: keras.ops.convert_to_tensor(scale) for path, scale in scales.items()}
    dtype = next(iter(scales.values())).dtype
    return gradient_multiplier(
        kind,
        shape,
        values,
        rule,
        lambda constant: keras.ops.convert_to_tensor(constant, dtype=dtype),
        lambda size: keras.ops.ones(size, dtype=dtype),
    )


@keras.saving.register_keras_serializable(package="repvgg")
class RepSGD(_Rep, keras.optimizers.SGD):
    """SGD in which gradients of plain kernels are multiplied; `RepOptimizer` makes one for a model.

    Args:
        learning_rate, momentum, nesterov, ...: as for `keras.optimizers.SGD`.
        kernels: the `ScaledKernel`s.
        coupled_weight_decay: is added to the multiplied gradient, times the weights, as PyTorch's SGD does it. Keras's
            `weight_decay` acts past the momentum.
        decayed: paths of the variables that decay; all with more than one axis if None.
    """

    rule: UpdateRule = "sgd"

    def __init__(self, learning_rate: Any = 0.01, *, coupled_weight_decay: float = 0.0, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.coupled_weight_decay = coupled_weight_decay

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        multiplier, decays = self.entry_of(variable)
        if multiplier is not None:
            gradient = keras.ops.cast(gradient, variable.dtype) * multiplier
        if decays and self.coupled_weight_decay:
            gradient = gradient + self.coupled_weight_decay * keras.ops.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Everything that makes the same optimizer again, factors included."""
        return {**super().get_config(), "coupled_weight_decay": self.coupled_weight_decay}


@keras.saving.register_keras_serializable(package="repvgg")
class RepAdamW(_Rep, keras.optimizers.AdamW):
    """AdamW in which steps of plain kernels are multiplied; `RepOptimizer` makes one for a model.

    The gradient is multiplied too, as in the authors' code. Without `epsilon` that would change nothing; with it, steps
    outside the kernel's centre are those of the sum to the last digit.

    Args:
        learning_rate, weight_decay, beta_1, ...: as for `keras.optimizers.AdamW`.
        kernels, decayed: as for `RepSGD`.
    """

    rule: UpdateRule = "adamw"

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """One variable's step."""
        multiplier, _ = self.entry_of(variable)
        if multiplier is not None:
            gradient = keras.ops.cast(gradient, variable.dtype) * multiplier
            learning_rate = keras.ops.cast(learning_rate, variable.dtype) * multiplier
        super().update_step(gradient, variable, learning_rate)


_CLASSES = {"sgd": RepSGD, "adamw": RepAdamW}


def RepOptimizer(  # noqa: N802 - a name the field knows, and it makes an optimizer
    model: Any,
    scales: Scales,
    update_rule: str = "sgd",
    *,
    reinitialize: bool = True,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A Keras optimizer that trains the plain blocks of `model` as the sums of branches that `scales` belong to.

    Args:
        model: a network with blocks that are trained so, such as RepOpt-VGG.
        scales: of `repvgg.search_scales` or `repvgg.load_scales`.
        update_rule: "sgd" or "adamw".
        reinitialize: give each kernel the sum of fresh branches to begin with, as a search network of that scales would
            have it. Changes the model's weights.
        seed: of those branches.
        options: for `RepSGD` (learning_rate, momentum, nesterov, coupled_weight_decay, ...) or `RepAdamW`.

    Raises:
        InputError: if the scales are another network's, or a network to be re-initialized was trained already.
        UnknownNameError: if there is no such rule.

    Example:
        >>> model = repvgg.create_model("RepOpt-VGG-B1", num_classes=10)
        >>> scales = repvgg.load_scales("RepOpt-VGG-B1-scales.pth")  # doctest: +SKIP
        >>> optimizer = repvgg.RepOptimizer(model, scales, learning_rate=0.1, momentum=0.9)  # doctest: +SKIP
    """
    if update_rule not in UPDATE_RULES:
        raise UnknownNameError("update rule", update_rule, UPDATE_RULES)
    if reinitialize:
        reinitialize_kernels(model, scales, seed)
    return _CLASSES[update_rule](kernels=scaled_kernels(model, scales), **options)


def scaled_kernels(model: Any, scales: Scales) -> list[ScaledKernel]:
    """The kernels of a network that an optimizer with these scales multiplies the gradients of: frozen ones have none.

    Raises:
        InputError: if the scales are another network's.
    """
    trained = {id(variable) for variable in model.trainable_variables}
    kernels = [(block.variable(_main(block)), block, factors) for block, factors in scaled_blocks(model, scales)]
    return [
        ScaledKernel(kernel.path, block.kind.trained_as.name, block.shape, factors)
        for kernel, block, factors in kernels
        if id(kernel) in trained
    ]


def reinitialize_kernels(model: Any, scales: Scales, seed: int) -> None:
    """Gives each plain kernel the sum of fresh branches; the kernel it has serves as that of the first one.

    Raises:
        InputError: if the scales are another network's, or the network was trained.
    """
    if not is_fresh(model):
        raise InputError(
            f"'{model.name}' was trained already: the statistics of its normalizations are not fresh ones, and "
            "re-initializing its kernels would throw the weights away. Give reinitialize=False to train it on."
        )
    generator = np.random.default_rng(seed)
    for block, factors in scaled_blocks(model, scales):
        kernel = block.variable(_main(block))
        kernel.assign(fresh_kernel(block.kind.trained_as, block.shape, float64_of(kernel), factors, generator))


def is_fresh(model: Any) -> bool:
    """Whether no plain block of a network has been trained, as its normalizations tell."""

    def untouched(block: ReparameterizableBlock) -> bool:
        norms = [one.path for one in block.kind.parameters(block.shape) if one.role in ("norm", "statistic")]
        return all(
            np.all(float64_of(block.variable(path)) == path.endswith(("gamma", "moving_variance"))) for path in norms
        )

    return all(untouched(block) for block in plain_blocks(model).values())


def _main(block: ReparameterizableBlock) -> str:
    return next(one.path for one in block.kind.parameters(block.shape) if one.role == "kernel")
