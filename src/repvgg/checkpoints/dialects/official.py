"""The official repository, https://github.com/DingXiaoH/RepVGG: its `repvgg.py`."""

from typing import Final

from repvgg.checkpoints.canonical import CLASSIFIER, PARTS
from repvgg.checkpoints.dialects.dialect import Dialect

OFFICIAL: Final = Dialect(
    name="official",
    origin="The official repository's repvgg.py",
    stem="stage0.",
    stages=(("stage1.",), ("stage2.",), ("stage3.",), ("stage4.",)),
    parts={part: part for part in PARTS if not part.startswith("post_se.")},
    heads={CLASSIFIER: CLASSIFIER},
)
