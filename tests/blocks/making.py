"""Blocks for the tests of this folder."""

from typing import Any

from helpers import (
    trained_like,
)
from repvgg.blocks import BLOCKS


def make_block(kind: str, *arguments: Any, channels: int = 8, **options: Any) -> Any:
    block = BLOCKS[kind](*arguments, **options)
    block.build((None, None, None, channels))
    return trained_like(block)


def norms_of(block: Any) -> list[Any]:
    return [block.conv3x3.norm, block.conv1x1.norm, *([block.identity] if block.identity else [])]
