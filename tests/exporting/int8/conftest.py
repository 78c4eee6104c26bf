"""Preparing a network for INT8 takes longer than all the rest, and several tests ask for the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from repvgg.exporting.int8 import search


@pytest.fixture(autouse=True, scope="session")
def prepared_once() -> Iterator[None]:
    real, known = search.prepare, {}

    def prepare(model: Any, images: np.ndarray, *rest: Any, **options: Any) -> Any:
        key = id(model), images.tobytes(), repr(rest), repr(sorted(options.items()))
        if key not in known:
            # With the model, lest another one gets its id.
            known[key] = model, real(model, images, *rest, **options)
        return known[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "prepare", prepare)
        yield
