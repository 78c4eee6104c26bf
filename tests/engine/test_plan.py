"""What a plan refuses, and what it says about itself."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plain_networks import attention, convolution, network, weights

from repvgg.base.errors import InputError
from repvgg.engine.plan import Convolution, Dense, GlobalAverage, Plan

BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no layers": (lambda: Plan("p", 3, (), {"out": "x"}), "no layers or no outputs"),
    "an output that nothing gives": (
        lambda: Plan("p", 3, (convolution("a", "images", 3, 8),), {"out": "b"}),
        "is 'b', which is not one of its layers",
    ),
    "too many layers": (
        lambda: _plan(*(convolution(f"c{i}", f"c{i - 1}" if i else "images", 3, 3, size=1) for i in range(2001))),
        "has 2001 layers; at most 2000",
    ),
    "two of a name": (lambda: _plan(convolution("a", "images", 3, 8), convolution("a", "a", 8, 8)), "unique"),
    "an unknown source": (lambda: _plan(convolution("a", "b", 3, 8)), "reads 'b', which no earlier layer gives"),
    "channels that do not fit": (lambda: _plan(convolution("a", "images", 4, 8)), r"expected \(any, any, 3, any\)"),
    "float64": (lambda: _plan(_with(kernel=np.zeros((3, 3, 3, 8)))), "must be an array of float32. Received: float64"),
    "a list": (lambda: _plan(_with(bias=[0.0] * 8)), "must be an array of float32. Received: list"),
    "a short bias": (lambda: _plan(_with(bias=np.zeros(7, np.float32))), r"has shape \(7,\); expected \(8\)"),
    "stride 0": (lambda: _plan(_with(strides=(0, 1))), "'strides' must be a whole number from 1"),
    "negative padding": (lambda: _plan(_with(pads=(-1, 0, 0, 0))), "'pads' must be a whole number from 0"),
    "two pads": (lambda: _plan(_with(pads=(1, 1))), "'pads' has 2 numbers"),
    "groups that do not divide": (lambda: _plan(_with(groups=2)), "cannot be divided into 2 groups"),
    "an unknown activation": (lambda: _plan(_with(activation="gelu")), "the activation 'gelu'"),
    "softmax of images": (lambda: _plan(_with(activation="softmax")), "the activation 'softmax'"),
    "a huge stride": (lambda: _plan(_with(strides=(1 << 40, 1))), "'strides' must be a whole number"),
    "dense on images": (lambda: _plan(Dense("a", "images", weights(3, 8), weights(8))), r"reads vectors \(N, C\)"),
    "a mean of vectors": (
        lambda: _plan(GlobalAverage("a", "images"), GlobalAverage("b", "a")),
        r"reads images \(N, H, W, C\)",
    ),
    "attention of other channels": (
        lambda: _plan(_with(attention=attention(9, "after_activation"))),
        r"attention's down has shape \(9, 2\)",
    ),
    "attention anywhere": (lambda: _plan(_with(attention=attention(8, "sideways"))), "not 'sideways'"),
}


def _plan(*layers: Any) -> Plan:
    return Plan("p", 3, layers, {"out": layers[-1].name})


def _with(**changes: Any) -> Convolution:
    return replace(convolution("a", "images", 3, 8), **changes)


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(InputError, match=message):
        make()


def test_shapes() -> None:
    plan = network(widths=(16, 32, 48), strides=(2, 1, 2))
    shapes = plan.shapes(33, 30)
    assert shapes["conv0"] == (17, 15, 16)
    assert shapes["conv2"] == (9, 8, 48)
    assert shapes["classifier"] == (10,)
    with pytest.raises(InputError, match=r"Images of 3 x 3 px are too small for 'small'.*'conv1'"):
        network(pads=(0, 0, 0, 0)).shapes(3, 3)


def test_it_can_be_printed_and_weighed() -> None:
    plan = network(groups=2, squeeze_excite="after_activation", dilations=(2, 2))
    text = str(plan)
    assert "conv1 <- conv0: Convolution 3x3x8x32 stride (1, 1) pads (1, 1, 1, 1) groups 2" in text
    assert "dilation (2, 2) attention after_activation relu" in text
    assert plan.weight_bytes == sum(array.nbytes for _, array in plan.arrays())
    assert len(dict(plan.arrays())) == 2 * 4 + 4 * 2
