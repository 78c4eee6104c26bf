"""What stands around an integer network in a `.tflite` file: normalization of pixels before it, softmax behind it.

TensorFlow's converter would quantize both: probabilities in eight bits are ties of whatever is below 1/256, and
normalized pixels would be rounded twice. So they are added in float32 to what the converter wrote, with the format's
own schema.
"""

from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.errors import InputError
from repvgg.targets import Settings
from repvgg.targets.network import scale_and_shift
from repvgg.targets.operations import INPUT, PROBABILITIES

IDENTIFIER = b"TFL3"


def with_ends(content: bytes, settings: Settings) -> bytes:
    """The model with the ends that `settings` asks for.

    Args:
        content: a `.tflite` file with one input and one output in float32.
    """
    if settings.preprocessing is None and not settings.softmax:
        return content
    flatbuffers = require("flatbuffers", extra="litert", purpose="INT8 for LiteRT")
    schema = require("ai_edge_litert.schema_py_generated", extra="litert", purpose="INT8 for LiteRT")
    graph = _Graph(schema, schema.ModelT.InitFromPackedBuf(content))
    if settings.preprocessing is not None:
        graph.take_pixels(*scale_and_shift(settings.preprocessing, "float32"))
    if settings.softmax:
        graph.give_probabilities()
    builder = flatbuffers.Builder(len(content))
    builder.Finish(graph.model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def require_integers(content: bytes) -> None:
    """Raises `InputError`, naming the layer, if a model calculates anything in floating point."""
    schema = require("ai_edge_litert.schema_py_generated", extra="litert", purpose="INT8 for LiteRT")
    model = schema.ModelT.InitFromPackedBuf(content)
    floats = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    for graph in model.subgraphs:
        for operator in graph.operators:
            tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs) if index >= 0]
            if not any(tensor.type in floats for tensor in tensors):
                continue
            code = model.operatorCodes[operator.opcodeIndex]
            kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            # The network's last tensor has the function's name; the layer's is on its weights.
            named = (bytes(graph.tensors[index].name).decode() for index in (*operator.outputs, *operator.inputs[1:]))
            layer = next((name.split(";")[0] for name in named if not name.startswith("StatefulPartitioned")), kind)
            raise InputError(
                f"'{layer}' ({kind}) has no integer kernel in LiteRT and would be calculated in float32, which "
                "integer ends are to do without. Replace the layer, or leave integer_io out."
            )


class _Graph:
    def __init__(self, schema: Any, model: Any) -> None:
        self.schema, self.model = schema, model
        (self.graph,) = model.subgraphs
        (self.signature,) = model.signatureDefs

    def take_pixels(self, scale: np.ndarray, shift: np.ndarray) -> None:
        """Images in uint8 (N, H, W, C), times `scale`, plus `shift`."""
        schema = self.schema
        (normalized,) = self.graph.inputs
        floats, scaled = (self.like(normalized, f"{INPUT}:{name}") for name in ("float", "scaled"))
        pixels = self.like(normalized, INPUT, schema.TensorType.UINT8)
        self.graph.tensors[normalized].name = f"{INPUT}:normalized"
        cast = schema.CastOptionsT(schema.TensorType.UINT8, schema.TensorType.FLOAT32)
        self.graph.operators[:0] = [
            self.operator("CAST", [pixels], floats, "CastOptions", cast),
            self.operator("MUL", [floats, self.constant(scale)], scaled, "MulOptions", schema.MulOptionsT()),
            self.operator("ADD", [scaled, self.constant(shift)], normalized, "AddOptions", schema.AddOptionsT()),
        ]
        self.graph.inputs = [pixels]
        self.signature.inputs[0].tensorIndex = pixels

    def give_probabilities(self) -> None:
        """Softmax of the logits."""
        (logits,) = self.graph.outputs
        probabilities = self.like(logits, PROBABILITIES)
        softmax = self.schema.SoftmaxOptionsT(beta=1.0)
        self.graph.operators.append(self.operator("SOFTMAX", [logits], probabilities, "SoftmaxOptions", softmax))
        self.graph.outputs = [probabilities]
        (output,) = self.signature.outputs
        output.name, output.tensorIndex = PROBABILITIES, probabilities

    def like(self, index: int, name: str, kind: int | None = None) -> int:
        """A tensor of the same shape, in float32 if nothing else is said."""
        other = self.graph.tensors[index]
        kind = self.schema.TensorType.FLOAT32 if kind is None else kind
        return self.tensor(name, list(other.shape), kind, signature=other.shapeSignature)

    def constant(self, values: np.ndarray) -> int:
        self.model.buffers.append(self.schema.BufferT(data=np.frombuffer(values.astype("<f4").tobytes(), np.uint8)))
        buffer = len(self.model.buffers) - 1
        return self.tensor(f"{INPUT}/constant{buffer}", [len(values)], self.schema.TensorType.FLOAT32, buffer=buffer)

    def tensor(self, name: str, shape: list[int], kind: int, *, buffer: int = 0, signature: Any = None) -> int:
        made = self.schema.TensorT(shape=shape, type=kind, buffer=buffer, name=name, shapeSignature=signature)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: list[int], output: int, options_type: str, options: Any) -> Any:
        code = getattr(self.schema.BuiltinOperator, kind)
        # These four have small codes, which stand in both fields for readers of before 2020.
        self.model.operatorCodes.append(self.schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code))
        return self.schema.OperatorT(
            opcodeIndex=len(self.model.operatorCodes) - 1,
            inputs=inputs,
            outputs=[output],
            builtinOptionsType=getattr(self.schema.BuiltinOptions, options_type),
            builtinOptions=options,
        )
