"""Operations that each backend does in its own way; the blocks' tests cover convolution and normalization."""

from typing import Any

import keras
import numpy as np
import pytest

from helpers import random_images, to_numpy
from repvgg.blocks import ops

pytestmark = pytest.mark.backends


def test_gradients() -> None:
    first, second = random_images((2, 3)), random_images((3,), seed=1)

    def outcome(tensors: list[Any]) -> Any:
        return keras.ops.sum(keras.ops.square(tensors[0]) * tensors[1])

    found = ops.gradients(outcome, [keras.ops.convert_to_tensor(one) for one in (first, second)])
    np.testing.assert_allclose(to_numpy(found[0]), 2 * first * second, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(found[1]), np.square(first).sum(axis=0), rtol=1e-5)
