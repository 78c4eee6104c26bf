"""Engines as they are used: compiling, calling, refusing, and numbers that are not finite."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plain_networks import convolution, images, network, schedule_of

from repvgg.base.errors import InputError, VerificationError
from repvgg.engine import Dense, Plan, Tuned, compile_plan, host_isa
from repvgg.engine import compile as compiling
from repvgg.engine.choose import assemble, options_of
from repvgg.engine.engine import Engine
from repvgg.engine.program import build
from repvgg.engine.reference import compute, relative_error
from repvgg.engine.schedule import Schedule, Winograd
from repvgg.engine.tune import processor_name, recall


def test_an_engine_proves_itself_before_it_is_handed_over() -> None:
    plan = network()
    with compile_plan(plan, batch=2, image_size=(33, 30), threads=2) as engine:
        assert engine.error is not None
        assert engine.error < 1e-5
        assert (engine.batch, engine.image_size, engine.threads) == (2, (33, 30), 2)
        batch = images(2, 33, 30, 3)
        outputs = engine.outputs(batch)
        assert list(outputs) == ["logits", "features"]
        np.testing.assert_array_equal(engine(batch), outputs["logits"])
        assert relative_error(outputs, compute(plan, batch)) < 1e-5
        assert "conv1: 16->32 17x15" in str(engine.schedule)
        assert engine.memory["constants"] == engine.program.constant_bytes > plan.weight_bytes


def test_an_engine_that_is_wrong_is_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # A plain form that disagrees stands for code that is wrong.
    plan = network(widths=(16, 16), strides=(2, 1))
    wrong = replace(
        plan, layers=(plan.layers[0], replace(plan.layers[1], bias=plan.layers[1].bias + 1), *plan.layers[2:])
    )
    monkeypatch.setattr(compiling.reference, "compute", lambda _, batch: compute(wrong, batch))
    monkeypatch.setattr(compiling, "LARGEST_TILE", 2)
    with pytest.raises(VerificationError, match="'small' does not give the answers of its plain form"):
        compile_plan(plan, image_size=32, threads=1)


def test_smaller_tiles_are_taken_where_large_ones_are_not_exact_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = network(widths=(16, 32, 32, 32), strides=(2, 1, 1, 1))
    monkeypatch.setattr(compiling, "TOLERANCE", 1.2e-6)
    with compile_plan(plan, image_size=48, threads=1) as engine:
        assert engine.error is not None
        assert engine.error < 1.2e-6
        assert "F6" not in str(engine.schedule)
        assert "F5" not in str(engine.schedule)


def test_softmax_and_several_dense_layers() -> None:
    plan = network(classes=19)
    last = plan.layers[-1]
    assert isinstance(last, Dense)
    more = Dense("second", "classifier", images(19, 21), images(21), "softmax")
    plan = replace(
        plan, layers=(*plan.layers[:-1], replace(last, activation="relu"), more), outputs={"probabilities": "second"}
    )
    with compile_plan(plan, batch=3, image_size=32, threads=2) as engine:
        probabilities = engine(images(3, 32, 32, 3))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_feature_pyramids() -> None:
    plan = network(widths=(16, 32, 48, 64), strides=(2, 2, 2, 2))
    plan = replace(plan, layers=plan.layers[:4], outputs={f"P{i + 1}": f"conv{i}" for i in range(4)})
    batch = images(4, 37, 64, 3)
    with compile_plan(plan, batch=4, image_size=(37, 64), threads=2) as engine:
        outputs = engine.outputs(batch)
    assert [outputs[f"P{level}"].shape[1:3] for level in range(1, 5)] == [(19, 32), (10, 16), (5, 8), (3, 4)]
    assert relative_error(outputs, compute(plan, batch.astype(np.float64))) < 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_what_is_not_finite_passes_through_as_in_the_plain_form(value: float) -> None:
    plan = network()
    batch = images(1, 32, 32, 3)
    batch[0, 5, 7, 1] = value
    with compile_plan(plan, image_size=32, threads=1) as engine:
        got = engine.outputs(batch)
    expected = compute(plan, batch)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)
    # A pixel is far from most of the last feature map: its tiles must not be lost with it.
    assert np.isfinite(got["features"]).mean() > 0.3


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "attention before": {"squeeze_excite": "before_activation"},
    "attention after": {"squeeze_excite": "after_activation"},
    "groups": {"groups": 2},
    "dilation": {"dilations": (2, 2), "pads": (2, 2, 2, 2)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_call_after_one_that_is_not_finite_is_as_if_it_had_not_been(kind: str) -> None:
    plan = network(**KINDS[kind])
    batch, spoiled = images(2, 33, 30, 3), np.full((2, 33, 30, 3), np.nan, np.float32)
    with compile_plan(plan, batch=2, image_size=(33, 30), threads=2) as engine:
        before = engine.outputs(batch)
        for value in (np.nan, np.inf, 3e38):
            spoiled[...] = value
            engine.outputs(spoiled)
        for name, values in engine.outputs(batch).items():
            np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize(("tile", "power"), [(2, 126), (4, 123)])
@pytest.mark.parametrize("ending", ["relu", "sigmoid"])
def test_overflow_in_a_transform_is_seen_behind_whatever_cuts_it_off(ending: str, tile: int, power: int) -> None:
    # One channel is the same number everywhere. Of its transform one place alone is not zero, and overflows there; its
    # kernel is negative, so outputs would be minus infinity, which a ReLU makes 0. The other channels' sum is positive.
    first = convolution("conv0", "images", 8, 8, activation=ending, pads=(0, 0, 0, 0))
    kernel = -0.01 * np.abs(first.kernel)
    kernel[:, :, 0] *= 0.1
    first = replace(first, kernel=kernel, bias=np.zeros(8, np.float32))
    second = convolution("conv1", "conv0", 8, 8)
    plan = Plan("large", 8, (first, second), {"out": "conv1"})
    ways = {name: Winograd(tile, "tiles", True, 1, 4, 9, 8) for name in ("conv0", "conv1")}
    schedule = schedule_of(plan, (14, 14), choices=ways)
    batch = -2e36 * np.abs(images(1, 14, 14, 8)).clip(0.5, 2)
    batch[..., 0] = 2.0**power
    if tile == 2:
        batch[..., 1:] *= 10
    expected = compute(plan, batch)["out"]
    assert np.isfinite(expected).all()
    with Engine(plan, build(plan, schedule)) as engine:
        np.testing.assert_allclose(engine(batch), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_weights_that_are_not_finite_pass_through() -> None:
    plan = network()
    layer = plan.layers[1]
    kernel = layer.kernel.copy()  # type: ignore[union-attr]
    kernel[1, 1, 0, 0] = np.nan
    plan = replace(plan, layers=(plan.layers[0], replace(layer, kernel=kernel), *plan.layers[2:]))
    batch = images(1, 32, 32, 3)
    with compile_plan(plan, image_size=32, threads=1, check=False) as engine:
        np.testing.assert_array_equal(engine(batch), compute(plan, batch)["logits"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no batch": ({"batch": 0}, "'batch' must be a whole number from 1"),
    "half a batch": ({"batch": 1.5}, "'batch' must be a whole number"),
    "three sides": ({"image_size": (1, 2, 3)}, "'image_size' is a height and a width"),
    "no pixels": ({"image_size": 0}, "'image_size' must be a whole number"),
    "many threads": ({"threads": 10_000}, "'threads' must be a whole number from 1 to 256"),
    "an unknown instruction set": ({"max_isa": "mmx"}, "no instruction set for this processor called 'mmx'"),
    "too much memory": ({"memory_limit": 10_000}, r"would take .* MiB, and .* MiB are allowed"),
    "an impossible batch": ({"batch": 1 << 20, "image_size": 1 << 12}, r"would take .* MiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_before_anything_is_compiled(case: str) -> None:
    arguments, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        compile_plan(network(), **{"image_size": 32, "threads": 1, **arguments})


def test_images_of_another_shape_or_type_are_refused() -> None:
    with compile_plan(network(), image_size=32, threads=1) as engine:
        with pytest.raises(InputError, match=r"compiled for images of shape \(1, 32, 32, 3\) in float32"):
            engine(images(2, 32, 32, 3))
        with pytest.raises(InputError, match="in float64"):
            engine(np.zeros((1, 32, 32, 3)))
        # Whatever lies in memory another way is put in order first.
        turned = images(1, 3, 32, 32).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(engine(turned), engine(np.ascontiguousarray(turned)))
    with pytest.raises(RuntimeError, match="closed"):
        engine(images(1, 32, 32, 3))


def test_measured_schedules_give_the_same_answers() -> None:
    plan = network()
    with compile_plan(plan, image_size=32, threads=1, tune=True, seconds=0) as engine:
        assert engine.error is not None
        assert engine.error < 1e-5


def kept(plan: Plan, choices: dict[str, str]) -> Schedule | None:
    """What is recalled of a choice for 32 px."""
    isa = host_isa()
    tuned = Tuned(processor_name(isa), 1, (32, 32), 1, choices)
    return recall(plan, isa, [tuned], batch=1, image_size=(32, 32), threads=1)


def test_a_choice_that_was_kept_is_found_again_on_the_same_processor() -> None:
    plan, isa = network(), host_isa()
    case: dict[str, Any] = {"batch": 1, "image_size": (32, 32), "threads": 1}
    options = options_of(plan, isa, **case)
    # The dearest ways that take little memory: the model would never take them.
    dearest = [[option for option in some if option.bytes <= some[0].bytes][-1] for some in options]
    measured = assemble(plan, isa, [option.choice for option in dearest], 1, (32, 32), 1)
    tuned = Tuned.of(measured)
    again = recall(plan, isa, [tuned], **case)
    assert again is not None
    assert [step.choice for step in again.steps] == [step.choice for step in measured.steps]
    with compile_plan(plan, image_size=32, threads=1, tuned=[tuned]) as engine:
        assert [step.choice for step in engine.schedule.steps] == [step.choice for step in measured.steps]
        assert engine.error is not None
        assert engine.error < 1e-5
    for other in (replace(tuned, processor="another avx2"), replace(tuned, batch=2), replace(tuned, threads=2)):
        assert recall(plan, isa, [other], **case) is None


def test_a_choice_that_this_version_does_not_offer_is_not_taken() -> None:
    plan = network()
    ways = {step.layer.name: str(step.choice) for step in schedule_of(plan, (32, 32)).steps}
    assert kept(plan, ways) is not None
    assert kept(plan, ways | {"conv1": "F6 by tiles, 10000 tiles, 6x2 vectors, kernels stored"}) is None
    assert kept(plan, {}) is None


def test_packed_weights_stay_below_three_times_the_weights() -> None:
    layers = [convolution("conv0", "images", 3, 64)]
    layers += [convolution(f"conv{i}", f"conv{i - 1}", 64, 64) for i in range(1, 6)]
    plan = Plan("even", 3, tuple(layers), {"out": "conv5"})
    with compile_plan(plan, image_size=24, threads=1, check=False) as engine:
        assert engine.memory["constants"] < 3 * plan.weight_bytes
