"""The official repository, https://github.com/DingXiaoH/RepVGG: its `repvggplus.py`, with names of its own."""

from typing import Final

from repvgg.checkpoints.canonical import HEADS, PARTS
from repvgg.checkpoints.dialects.dialect import Dialect

PLUS: Final = Dialect(
    name="plus",
    origin="The official repository's repvggplus.py",
    stem="stage0.",
    # The auxiliary classifier in the middle of stage 3 is why that stage comes in two halves.
    stages=(
        ("stage1.blocks.",),
        ("stage2.blocks.",),
        ("stage3_first.blocks.", "stage3_second.blocks."),
        ("stage4.blocks.",),
    ),
    parts={part: part for part in PARTS if not part.startswith("se.")},
    heads={head: head for head in HEADS},
)
