"""OpenMMLab's pre-training toolbox, https://github.com/open-mmlab/mmpretrain: its `RepVGG` backbone."""

from typing import Final

from repvgg.checkpoints.canonical import CLASSIFIER
from repvgg.checkpoints.dialects.dialect import Dialect

MMPRETRAIN: Final = Dialect(
    name="mmpretrain",
    origin="mmpretrain",
    stem="backbone.stem.",
    stages=(("backbone.stage_1.",), ("backbone.stage_2.",), ("backbone.stage_3.",), ("backbone.stage_4.",)),
    parts={
        "se.down": "se_layer.conv1.conv",
        "se.up": "se_layer.conv2.conv",
        "rbr_identity": "branch_norm",
        "rbr_dense.conv": "branch_3x3.conv",
        "rbr_dense.bn": "branch_3x3.norm",
        "rbr_1x1.conv": "branch_1x1.conv",
        "rbr_1x1.bn": "branch_1x1.norm",
        "rbr_reparam": "branch_reparam",
    },
    heads={CLASSIFIER: "head.fc"},
)
