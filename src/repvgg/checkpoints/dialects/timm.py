"""PyTorch Image Models, https://github.com/huggingface/pytorch-image-models: its `byobnet.py`."""

from dataclasses import replace
from typing import Final

from repvgg.checkpoints.canonical import CLASSIFIER
from repvgg.checkpoints.dialects.dialect import Dialect

TIMM: Final = Dialect(
    name="timm",
    origin="timm",
    stem="stem.",
    stages=(("stages.0.",), ("stages.1.",), ("stages.2.",), ("stages.3.",)),
    parts={
        "se.down": "attn.fc1",
        "se.up": "attn.fc2",
        "rbr_identity": "identity",
        "rbr_dense.conv": "conv_kxk.conv",
        "rbr_dense.bn": "conv_kxk.bn",
        "rbr_1x1.conv": "conv_1x1.conv",
        "rbr_1x1.bn": "conv_1x1.bn",
        "rbr_reparam": "reparam_conv",
    },
    heads={CLASSIFIER: "head.fc"},
)

TIMM_FEATURES: Final = replace(
    TIMM,
    name="timm-features",
    origin="timm with features_only=True",
    stages=(("stages_0.",), ("stages_1.",), ("stages_2.",), ("stages_3.",)),
)
"""`timm.create_model(..., features_only=True)` joins the names of sequences, and leaves the classifier out."""
