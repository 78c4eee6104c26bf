"""Every kind of layer, every way of computing it, against float64."""

from typing import Any

import numpy as np
import pytest
from plain_networks import ISAS, error_of, images, network, schedule_of

from repvgg.engine.engine import Engine
from repvgg.engine.program import build
from repvgg.engine.schedule import Direct, Winograd
from sampling import pairwise

# Float32 sums of up to 1000 terms; large tiles lose up to a digit more (docs/engine.md).
TOLERANCE = {"direct": 2e-6, 2: 3e-6, 3: 5e-6, 4: 1e-5, 5: 1.5e-5, 6: 2e-5}

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "narrow groups": {"groups": 4},
    "wide groups": {"groups": 2, "widths": (64, 64, 64)},
    "attention before": {"squeeze_excite": "before_activation"},
    "attention after": {"squeeze_excite": "after_activation"},
    "dilated": {"dilations": (2, 2), "pads": (2, 2, 2, 2)},
    "pointwise": {"size": 1},
    "5x5": {"size": 5},
    "valid": {"pads": (0, 0, 0, 0)},
    "lopsided": {"pads": (0, 1, 2, 0)},
    "depthwise, many taps": {"widths": (16, 16, 16), "groups": 16, "size": 9},
    "a tall kernel": {"widths": (4, 5, 6), "size": 15},
    "depthwise": {"widths": (16, 16, 16), "groups": 16},
    "widths that fill no vector": {"widths": (12, 20, 7)},
    "sigmoid": {"activation": "sigmoid"},
    "linear": {"activation": "linear"},
    "stride 1 on images": {"strides": (1, 2, 1)},
}


SITUATIONS = {"odd": ((31, 26), 3, 2), "even": ((16, 17), 1, 3), "one": ((24, 24), 2, 1)}
"""Sizes of images, batch and threads."""


@pairwise({"form": FORMS, "isa": ISAS, "situation": SITUATIONS})
def test_every_form_on_odd_and_even_sizes(form: str, isa: str, situation: str) -> None:
    plan = network(**FORMS[form])
    size, batch, threads = SITUATIONS[situation]
    assert error_of(plan, schedule_of(plan, size, batch=batch, threads=threads, isa=isa)) < TOLERANCE[6]


@pairwise({"m": [2, 3, 4, 5, 6], "split": ["tiles", "kernels", "kernels alone"], "stored": [True, False], "isa": ISAS})
def test_every_way_of_minimal_filtering(m: int, split: Any, stored: bool, isa: str) -> None:
    plan = network()
    # 30 x 27 after the stem: tiles that do not fit, several blocks of tiles, and more tiles than rows.
    choice = Winograd(m, split.split()[0], stored, vectors=1, rows=6, tiles=7, chunk=6, private="alone" in split)
    choices = {"conv1": choice, "conv2": choice}
    schedule = schedule_of(plan, (60, 54), threads=2, isa=isa, choices=choices)
    assert error_of(plan, schedule) < TOLERANCE[m]


@pairwise({"vectors": [1, 2], "cut": [(1, 1), (5, 1), (1, 2), (3, 2)], "isa": ISAS})
def test_every_way_of_direct_convolution(vectors: int, cut: tuple[int, int], isa: str) -> None:
    plan = network(widths=(32, 64, 64))
    choice = Direct(vectors, rows=6, bands=cut[0], parts=cut[1])
    choices = dict.fromkeys(("conv1", "conv2"), choice)
    schedule = schedule_of(plan, (30, 27), batch=2, threads=2, isa=isa, choices=choices)
    assert error_of(plan, schedule) < TOLERANCE["direct"]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("alone", [1, 2, 3])
def test_first_layers_image_by_image(alone: int, isa: str) -> None:
    plan = network(widths=(16, 32, 32, 48), strides=(2, 1, 2, 1), squeeze_excite="before_activation")
    schedule = schedule_of(plan, (33, 30), batch=5, threads=2, isa=isa, alone=alone)
    assert error_of(plan, schedule) < TOLERANCE[6]


def test_tasks_of_all_sizes_give_the_same_bits() -> None:
    # A sum is made in the same order whatever is done together with it.
    plan = network(widths=(32, 32, 32), strides=(2, 1, 1))
    batch = images(1, 41, 40, 3)
    found = []
    for tiles, threads in ((3, 1), (7, 2), (11, 3)):
        choice = Winograd(4, "tiles", True, vectors=2, rows=6, tiles=tiles, chunk=32)
        schedule = schedule_of(plan, (41, 40), threads=threads, choices=dict.fromkeys(("conv1", "conv2"), choice))
        with Engine(plan, build(plan, schedule)) as engine:
            found.append(engine.outputs(batch))
    for other in found[1:]:
        for name, values in found[0].items():
            np.testing.assert_array_equal(other[name], values)


def test_tiles_of_its_own_are_made_anew_in_every_call_and_layer() -> None:
    plan = network()
    choice = Winograd(4, "kernels", stored=False, vectors=1, rows=6, tiles=7, chunk=6, private=True)
    choices = {"conv1": choice, "conv2": choice}
    schedules = [schedule_of(plan, (24, 24), threads=threads, choices=choices) for threads in (1, 3)]
    several = [images(1, 24, 24, 3) for _ in range(3)]
    with Engine(plan, build(plan, schedules[1])) as engine:
        once = [engine.outputs(one)["logits"] for one in several]
        again = [engine.outputs(one)["logits"] for one in reversed(several)]
    for one, first, second in zip(several, once, reversed(again), strict=True):
        with Engine(plan, build(plan, schedules[0])) as fresh:
            np.testing.assert_array_equal(fresh.outputs(one)["logits"], first)
        np.testing.assert_array_equal(first, second)
