"""ResNet-50 as a file of ONNX, with random weights: the network the paper compares RepVGG-A2 with.

Written by hand because nothing else here has it; BatchNorm is folded already, as every runtime does. Bottlenecks are
those of torchvision (stride on the 3x3 convolution), 25.5 M parameters and 4.1 GMAC at 224 px.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and first stride of each stage; results are four times as wide."""


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.generator = np.random.default_rng(0)

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, *shape: int, scale: float) -> str:
        name = f"weight{len(self.weights)}"
        values = (scale * self.generator.standard_normal(shape)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(self, x: str, channels: int, filters: int, size: int, stride: int, *, relu: bool) -> str:
        kernel = self.constant(filters, channels, size, size, scale=(2 / (channels * size * size)) ** 0.5)
        inputs = [x, kernel, self.constant(filters, scale=0.01)]
        x = self.node("Conv", inputs, kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4)
        return self.node("Relu", [x]) if relu else x


def write(path: Path) -> None:
    """Writes the network: images (N, 3, H, W) to logits (N, 1000)."""
    graph = _Graph()
    x = graph.convolution("images", 3, 64, 7, 2, relu=True)
    x = graph.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, blocks, first in STAGES:
        for block in range(blocks):
            stride = first if block == 0 else 1
            y = graph.convolution(x, channels, width, 1, 1, relu=True)
            y = graph.convolution(y, width, width, 3, stride, relu=True)
            y = graph.convolution(y, width, 4 * width, 1, 1, relu=False)
            shortcut = x if block else graph.convolution(x, channels, 4 * width, 1, stride, relu=False)
            x = graph.node("Relu", [graph.node("Add", [y, shortcut])])
            channels = 4 * width
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x])])
    classifier = [x, graph.constant(channels, 1000, scale=channels**-0.5), graph.constant(1000, scale=0.01)]
    graph.nodes.append(helper.make_node("Gemm", classifier, ["logits"]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])
    body = helper.make_graph(graph.nodes, "resnet50", [images], [logits], graph.weights)
    model = helper.make_model(body, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    onnx.save(model, path)
