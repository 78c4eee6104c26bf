"""The Keras layers of this room. Importing this registers all of them, without which no file that names them loads."""

import keras

from repvgg.blocks import KINDS
from repvgg.blocks.auxiliary import AuxiliaryClassifier
from repvgg.blocks.base import ReparameterizableBlock
from repvgg.blocks.branches import BatchNorm, Conv, ConvBatchNorm, ConvBias
from repvgg.blocks.fake_quantization import QuantizedBlock
from repvgg.blocks.kind import BlockKind
from repvgg.blocks.recording import recorded_inputs
from repvgg.blocks.single_path import SinglePath
from repvgg.blocks.squeeze_excite import SqueezeExcitation


def block_layer(kind: BlockKind, *, package: str = "repvgg") -> type[ReparameterizableBlock]:
    """The Keras layer of a kind of block, registered as `package`>`kind.name`."""
    made = type(
        kind.name,
        (ReparameterizableBlock,),
        {"kind": kind, "__doc__": type(kind).__doc__, "__module__": "repvgg.blocks"},
    )
    registered: type[ReparameterizableBlock] = keras.saving.register_keras_serializable(package=package)(made)
    return registered


BLOCKS: dict[str, type[ReparameterizableBlock]] = {name: block_layer(kind) for name, kind in KINDS.items()}

__all__ = [
    "BLOCKS",
    "AuxiliaryClassifier",
    "BatchNorm",
    "Conv",
    "ConvBatchNorm",
    "ConvBias",
    "QuantizedBlock",
    "ReparameterizableBlock",
    "SinglePath",
    "SqueezeExcitation",
    "block_layer",
    "recorded_inputs",
]
