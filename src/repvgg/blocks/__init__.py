"""Re-parameterizable blocks: one file a block, and the table of them."""

from collections.abc import Mapping

from repvgg.blocks.auxiliary import AuxiliaryClassifier
from repvgg.blocks.base import ReparameterizableBlock
from repvgg.blocks.branches import BatchNorm, Conv, ConvBatchNorm, ConvBias
from repvgg.blocks.qarepvgg import QARepVGGBlock
from repvgg.blocks.recording import recorded_inputs
from repvgg.blocks.repvgg import RepVGGBlock
from repvgg.blocks.rounded import QuantizedBlock
from repvgg.blocks.single_path import SinglePath
from repvgg.blocks.squeeze_excite import SqueezeExcitation

BLOCKS: Mapping[str, type[ReparameterizableBlock]] = {
    "RepVGGBlock": RepVGGBlock,
    "QARepVGGBlock": QARepVGGBlock,
}

__all__ = [
    "BLOCKS",
    "AuxiliaryClassifier",
    "BatchNorm",
    "Conv",
    "ConvBatchNorm",
    "ConvBias",
    "QARepVGGBlock",
    "QuantizedBlock",
    "RepVGGBlock",
    "ReparameterizableBlock",
    "SinglePath",
    "SqueezeExcitation",
    "recorded_inputs",
]
