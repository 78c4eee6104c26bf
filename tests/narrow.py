"""Named networks under their own names, and a hundred times smaller."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from repvgg.models.variants import VARIANTS

NARROW = dict.fromkeys(("RepVGG-A0", "QARepVGG-A0", "RepOpt-VGG-A0", "RepOpt-VGG-A0-search"), (1, 1, 1, 1))
"""Networks that examples train, and how deep they are here; an eighth as wide as a RepVGG of width 1."""


@contextmanager
def narrow_variants() -> Iterator[None]:
    """The networks of `NARROW` have two or three channels a block, under the same names."""
    rows = {
        name: replace(
            VARIANTS[name],
            architecture=replace(VARIANTS[name].architecture, num_blocks=depths, width_multiplier=(0.125,) * 4),
        )
        for name, depths in NARROW.items()
    }
    with patch.dict(VARIANTS, rows):
        yield
