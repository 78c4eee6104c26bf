"""Re-parameterizable blocks: one file a kind, and the table of them.

The table knows no Keras, so counting and reading names of tensors need none. The layers are made when they are first
asked for.
"""

from importlib import import_module
from typing import Any

from repvgg.blocks.acb import AC
from repvgg.blocks.dbb import DiverseBranch
from repvgg.blocks.kind import BlockKind
from repvgg.blocks.mobileone import MobileOne
from repvgg.blocks.qarepvgg import QARepVGG
from repvgg.blocks.repopt import LinearAddition, RepOptVGG
from repvgg.blocks.repvgg import RepVGG

KINDS: dict[str, BlockKind] = {
    kind.name: kind
    for kind in (
        RepVGG(),
        QARepVGG(),
        AC(),
        DiverseBranch(),
        MobileOne(),
        RepOptVGG(),
        LinearAddition(),
    )
}
"""Every kind by the name of its layer."""

_LAYERS = (
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
)


def __getattr__(name: str) -> Any:
    if name not in _LAYERS and name not in KINDS:
        raise AttributeError(f"module 'repvgg.blocks' has no attribute '{name}'")
    layers = import_module("repvgg.blocks.layers")
    value = layers.BLOCKS[name] if name in KINDS else getattr(layers, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(["KINDS", "BlockKind", *_LAYERS, *KINDS])
