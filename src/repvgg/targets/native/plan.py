"""A Keras model as the engine's plan: operations one by one, then put together into layers.

Keras has an activation or channel attention as layers of their own; the engine does them while a convolution's results
are in registers, so a plan has them as parts of the convolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from repvgg.base.errors import InputError
from repvgg.engine import plan as plans
from repvgg.engine.plan import Plan
from repvgg.targets import Settings
from repvgg.targets.network import write_model
from repvgg.targets.operations import (
    INPUT,
    Activation,
    Combination,
    Convolution,
    Dense,
    GraphWriter,
    Normalization,
    Pads,
    Pool,
    Pooling,
    Resize,
    TransposedConvolution,
)


def plan_of(model: Any, *, softmax: bool = False) -> Plan:
    """The plan of a functional model of stock Keras layers, such as a deployed network.

    Args:
        model: a Keras model with one input of images (channels last).
        softmax: end in probabilities instead of logits.

    Raises:
        InputError: if a layer is outside the engine's reach; the message names it.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
        raise InputError(f"The engine compiles models with one input of images; '{model.name}' has {shapes}.")
    writer = _Writer(Settings(softmax=softmax))
    outputs = write_model(writer, model, INPUT)
    return writer.plan(str(model.name), int(model.inputs[0].shape[-1]), outputs)


@dataclass(frozen=True)
class _Node:
    """One operation: what it is, what it reads, and its weights or kind."""

    operator: str
    inputs: tuple[str, ...]
    details: Any = None


class _Writer(GraphWriter[str]):
    """Collects operations under their labels; a tensor is the label of what gives it."""

    what: ClassVar[str] = "native"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.nodes: dict[str, _Node] = {}
        self.absorbed: set[str] = set()
        self.outputs: set[str] = set()

    def node(self, operator: str, inputs: Sequence[str], label: str, details: Any = None) -> str:
        self.nodes[label] = _Node(operator, tuple(inputs), details)
        return label

    def convolve(self, tensor: str, convolution: Convolution, label: str) -> str:
        return self.node("convolution", [tensor], label, convolution)

    def convolve_transposed(self, tensor: str, convolution: TransposedConvolution, label: str) -> str:
        return self.node("transposed convolution", [tensor], label, convolution)

    def pad(self, tensor: str, pads: Pads, label: str) -> str:
        return self.node("padding without a convolution behind it", [tensor], label, pads)

    def dense(self, tensor: str, dense: Dense, label: str) -> str:
        return self.node("dense", [tensor], label, dense)

    def pool(self, tensor: str, pooling: Pooling, label: str) -> str:
        return self.node(f"{pooling.kind} pooling", [tensor], label, pooling)

    def pool_globally(self, tensor: str, kind: Pool, label: str, *, keepdims: bool) -> str:
        return self.node("average" if kind == "average" else "global maximum", [tensor], label, keepdims)

    def resize(self, tensor: str, resize: Resize, label: str) -> str:
        return self.node("resize", [tensor], label, resize)

    def reshape(self, tensor: str, rank: int, shape: Sequence[int], label: str) -> str:
        return self.node("reshape", [tensor], label, shape)

    def normalize(self, tensor: str, normalization: Normalization, label: str) -> str:
        return self.node("normalization", [tensor], label, normalization)

    def scale(self, tensor: str, rank: int, factor: np.ndarray, addend: np.ndarray, label: str) -> str:
        return self.node("scaling", [tensor], label, (factor, addend))

    def activate(self, tensor: str, rank: int, activation: Activation, label: str) -> str:
        return self.node("activation", [tensor], label, activation)

    def combine(self, tensors: Sequence[str], rank: int, how: Combination, label: str) -> str:
        return self.node(how, tensors, label)

    def plan(self, name: str, channels: int, outputs: dict[str, str]) -> Plan:
        """Puts the collected operations together."""
        self.outputs = set(outputs.values())
        renamed: dict[str, str] = {INPUT: plans.INPUT}
        layers: list[plans.Layer] = []
        for label, node in self.nodes.items():
            if label in self.absorbed:
                continue
            if node.operator == "convolution":
                layer, last = self._convolution_layer(label, node, renamed)
            elif node.operator == "dense":
                layer, last = self._dense_layer(label, node, renamed)
            elif node.operator == "average" and not node.details:
                layer, last = plans.GlobalAverage(label, renamed[node.inputs[0]]), label
            elif node.operator == "average" and self._is_squeeze(label):
                continue
            else:
                raise self._out_of_reach(label, node)
            layers.append(layer)
            renamed[last] = layer.name
        return Plan(name, channels, tuple(layers), {output: renamed[label] for output, label in outputs.items()})

    def _convolution_layer(self, label: str, node: _Node, renamed: dict[str, str]) -> tuple[plans.Layer, str]:
        convolution: Convolution = node.details
        if convolution.pads is None:
            raise self._out_of_reach(label, replace(node, operator="convolution that pads by the image's size"))
        attention, last = self._attention_behind(label, "before_activation")
        activation, last = self._activation_behind(last, ("relu", "sigmoid"))
        if attention is None:
            attention, last = self._attention_behind(last, "after_activation")
        filters = convolution.kernel.shape[3]
        layer = plans.Convolution(
            name=convolution.name if convolution.name not in renamed.values() else label,
            source=self._source(label, node, renamed),
            kernel=np.ascontiguousarray(convolution.kernel),
            bias=_bias(convolution.bias, filters),
            strides=convolution.strides,
            dilations=convolution.dilations,
            groups=convolution.groups,
            pads=convolution.pads,
            activation=activation,
            attention=attention,
        )
        return layer, last

    def _dense_layer(self, label: str, node: _Node, renamed: dict[str, str]) -> tuple[plans.Layer, str]:
        dense: Dense = node.details
        activation, last = self._activation_behind(label, ("relu", "sigmoid", "softmax"))
        layer = plans.Dense(
            name=dense.name if dense.name not in renamed.values() else label,
            source=self._source(label, node, renamed),
            kernel=np.ascontiguousarray(dense.kernel),
            bias=_bias(dense.bias, dense.kernel.shape[1]),
            activation=activation,
        )
        return layer, last

    def _source(self, label: str, node: _Node, renamed: dict[str, str]) -> str:
        if node.inputs[0] not in renamed:
            raise self._out_of_reach(label, node)
        return renamed[node.inputs[0]]

    def _users(self, label: str) -> list[str]:
        return [user for user, node in self.nodes.items() if label in node.inputs]

    def _activation_behind(self, label: str, known: Sequence[str]) -> tuple[Any, str]:
        """The activation that alone reads `label`, and the label behind it."""
        users = self._users(label)
        if len(users) != 1 or label in self.outputs:
            return "linear", label
        node = self.nodes[users[0]]
        if node.operator != "activation" or node.details not in known:
            return "linear", label
        self.absorbed.add(users[0])
        return node.details, users[0]

    def _attention_behind(self, label: str, position: plans.Position) -> tuple[plans.SqueezeExcite | None, str]:
        """Channel attention on `label`, if that is what reads it, and the label behind it."""
        users = self._users(label)
        scales = [user for user in users if self.nodes[user].operator == "multiply"]
        squeezes = [user for user in users if self._is_squeeze(user)]
        if len(users) != 2 or len(scales) != 1 or len(squeezes) != 1 or label in self.outputs:
            return None, label
        chain = self._chain(squeezes[0])
        if set(self.nodes[scales[0]].inputs) != {label, chain[-1]}:
            return None, label
        self.absorbed |= {*chain, scales[0]}
        down, up = self.nodes[chain[1]].details, self.nodes[chain[3]].details
        attention = plans.SqueezeExcite(
            down=np.ascontiguousarray(down.kernel[0, 0]),
            down_bias=_bias(down.bias, down.kernel.shape[3]),
            up=np.ascontiguousarray(up.kernel[0, 0]),
            up_bias=_bias(up.bias, up.kernel.shape[3]),
            position=position,
        )
        return attention, scales[0]

    def _chain(self, squeeze: str) -> list[str]:
        """The labels of mean, 1x1 convolution, ReLU, 1x1 convolution, sigmoid; fewer where it is something else."""
        chain = [squeeze]
        for operator, details in (
            ("convolution", None),
            ("activation", "relu"),
            ("convolution", None),
            ("activation", "sigmoid"),
        ):
            users = self._users(chain[-1])
            if len(users) != 1 or chain[-1] in self.outputs:
                return chain
            node = self.nodes[users[0]]
            if node.operator != operator or (details and node.details != details):
                return chain
            if operator == "convolution" and not _is_pointwise(node.details):
                return chain
            chain.append(users[0])
        return chain

    def _is_squeeze(self, label: str) -> bool:
        node = self.nodes[label]
        return node.operator == "average" and bool(node.details) and len(self._chain(label)) == 5

    def _out_of_reach(self, label: str, node: _Node) -> InputError:
        what = f"activation {node.details}" if node.operator == "activation" else node.operator
        return InputError(
            f"The engine cannot compile '{label}' ({what}). It compiles convolutions with ReLU, sigmoid and channel "
            "attention behind them, global averages and dense layers. Export to another format, such as .onnx."
        )


def _bias(bias: np.ndarray | None, channels: int) -> np.ndarray:
    return np.zeros(channels, np.float32) if bias is None else bias


def _is_pointwise(convolution: Convolution) -> bool:
    return (
        convolution.kernel.shape[:2] == (1, 1)
        and convolution.groups == 1
        and convolution.strides == (1, 1)
        and convolution.pads == (0, 0, 0, 0)
    )
