"""How the quick suite samples a table whose whole is left to the tests marked `full`."""

import itertools
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pytest

FULL = pytest.mark.full


def sampled(rows: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """All rows as parameters, tuples as several; those that are not in `quick` only run in the full suite."""
    return [
        pytest.param(*(row if isinstance(row, tuple) else [row]), marks=() if row in quick else FULL) for row in rows
    ]


def first_of_each(rows: Mapping[str, Any], kind: Callable[[Any], Any]) -> list[str]:
    """The name of the first row of each kind."""
    names: dict[Any, str] = {}
    for name, row in rows.items():
        names.setdefault(kind(row), name)
    return list(names.values())


def kind_of_variant(variant: Any) -> tuple[Any, ...]:
    """What makes variants differ in more than depth and width."""
    architecture = variant.architecture
    return architecture.block, bool(architecture.groups), architecture.squeeze_excite, architecture.auxiliary_heads


def pairwise(axes: Mapping[str, Iterable[Any]], where: Callable[..., bool] = lambda **row: True) -> Any:
    """Parametrizes over all combinations of `axes`; the quick ones have every pair of two axes' values at least once.

    A mistake nearly always shows at one value, or where two of them meet, and pairs need a tenth of the runs.

    Args:
        axes: names of arguments and their values.
        where: which combinations there are; all if not given.
    """
    names = list(axes)
    table = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes.values())]
    rows = [row for row in table if where(**row)]
    pairs = [_pairs(row) for row in rows]
    missing, quick = set().union(*pairs), set()
    # Of equally good ones not always the first, which would leave the other values of an axis to single rows.
    order = random.Random(0).sample(range(len(rows)), len(rows))
    while missing:
        best = max(order, key=lambda index: len(pairs[index] & missing))
        quick.add(best)
        missing -= pairs[best]
    values = [pytest.param(*row.values(), marks=() if index in quick else FULL) for index, row in enumerate(rows)]
    return pytest.mark.parametrize(names, values)


def _pairs(row: Mapping[str, Any]) -> set[Any]:
    named = [(name, repr(value)) for name, value in row.items()]
    return set(itertools.combinations(named, 2))
