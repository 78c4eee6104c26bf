"""MobileOne in its authors' code, https://github.com/apple/ml-mobileone, and in PyTorch Image Models."""

from collections.abc import Mapping
from typing import Final

from repvgg.checkpoints.canonical import CLASSIFIER, REPARAM
from repvgg.checkpoints.dialects.dialect import Dialect
from repvgg.checkpoints.dialects.timm import TIMM

BLOCK: Final = "MobileOneBlock"
COPIES: Final = 8
"""As many as any network has had; the paper tried up to 5."""


def _branches(copy: str, scale: str, skip: str) -> Mapping[str, str]:
    """Names of the branches' modules, canonical ones first."""
    names = {"rbr_skip": skip}
    for part in ("conv", "bn"):
        names |= {f"rbr_conv.{number}.{part}": f"{copy}.{number}.{part}" for number in range(COPIES)}
        names[f"rbr_scale.{part}"] = f"{scale}.{part}"
    return names


MOBILEONE: Final = Dialect(
    name="mobileone",
    origin="Apple's mobileone.py",
    stem="stage0.",
    stages=(("stage1.",), ("stage2.",), ("stage3.",), ("stage4.",)),
    parts={
        "se.down": "se.reduce",
        "se.up": "se.expand",
        **_branches("rbr_conv", "rbr_scale", "rbr_skip"),
        REPARAM: "reparam_conv",
    },
    heads={CLASSIFIER: CLASSIFIER},
    blocks=(BLOCK,),
    family="official",
)

TIMM_MOBILEONE: Final = Dialect(
    name="timm-mobileone",
    origin="timm",
    stem=TIMM.stem,
    stages=TIMM.stages,
    parts={
        "se.down": "se.fc1",
        "se.up": "se.fc2",
        REPARAM: TIMM.parts[REPARAM],
        **_branches("conv_kxk", "conv_scale", "identity"),
    },
    heads=TIMM.heads,
    blocks=(BLOCK,),
    family=TIMM.name,
)
