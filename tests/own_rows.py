"""Rows that examples add to the package's tables, and that no other test may see."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from repvgg.blocks import BLOCKS, KINDS
from repvgg.checkpoints.dialects import DIALECTS
from repvgg.models.variants import VARIANTS
from repvgg.runners import RUNNERS
from repvgg.targets import TARGETS
from repvgg.training.recipe import RECIPES


@contextmanager
def own_rows_forgotten() -> Iterator[None]:
    """The tables are afterwards what they were."""
    with ExitStack() as stack:
        for table in (BLOCKS, KINDS, DIALECTS, RECIPES, RUNNERS, TARGETS, VARIANTS):
            stack.enter_context(patch.dict(table))
        yield
