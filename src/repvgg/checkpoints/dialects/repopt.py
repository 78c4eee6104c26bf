"""RepOpt-VGG in its authors' code, https://github.com/DingXiaoH/RepOptimizers: the plain network, and the one that
scales are searched with.
"""

from typing import Final

from repvgg.checkpoints.canonical import CLASSIFIER, REPARAM
from repvgg.checkpoints.dialects.dialect import Dialect

REPOPT: Final = Dialect(
    name="repopt",
    origin="The authors' RepOptimizers",
    stem="stage0.",
    stages=(("stage1.",), ("stage2.",), ("stage3.",), ("stage4.",)),
    parts={
        "conv": "conv",
        "bn": "bn",
        "scale_conv": "scale_conv",
        "conv_1x1": "conv_1x1",
        "scale_1x1": "scale_1x1",
        "scale_identity": "scale_identity",
        # The authors leave folding the normalization to the runtime; a folded file has the official repository's name.
        REPARAM: REPARAM,
    },
    heads={CLASSIFIER: CLASSIFIER},
    blocks=("RepOptVGGBlock", "LinearAdditionBlock"),
    family="official",
)
