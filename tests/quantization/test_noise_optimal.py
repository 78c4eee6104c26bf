"""Noise-optimal equalization."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.optimize

import repvgg
from helpers import infer, random_images, small_network, to_numpy, trained_like
from repvgg.quantization import equalize, noise_optimal, scale_channels
from repvgg.quantization.channels import layer_channels
from repvgg.quantization.equalization_groups import Weights, find_equalization_groups
from repvgg.quantization.noise_optimal import noise_optimal_scales
from repvgg.quantization.ranges import input_limits, rounded_input
from repvgg.quantization.rounding import rounded_weights, signal_to_noise
from repvgg.quantization.steps import Steps, apply, copied, kernel_of, linear_part
from sampling import sampled

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"override_groups_map": {2: 2, 3: 4}},
    "attention": {"squeeze_excite": repvgg.SqueezeExcite("after_activation", 4)},
}
IMAGES = random_images((24, 24, 24, 3), seed=3)


def deployed(name: str) -> Any:
    return repvgg.reparameterize(trained_like(small_network(**NETWORKS[name])))


def searched(model: Any, per_channel: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, np.ndarray, Any]:
    """The function that is minimized, where the search begins, and what it finds."""
    seen: list[Any] = []
    real = scipy.optimize.minimize

    def minimize(function: Any, first: np.ndarray, **options: Any) -> Any:
        seen.extend((function, first, real(function, first, **options)))
        return seen[-1]

    monkeypatch.setattr(noise_optimal.scipy.optimize, "minimize", minimize)
    steps = Steps(model)
    noise_optimal_scales(
        find_equalization_groups(steps), Weights(steps), layer_channels(steps, IMAGES), per_channel=per_channel
    )
    return seen[0], seen[1], seen[2]


@pytest.mark.parametrize(
    ("name", "per_channel"),
    sampled(itertools.product(NETWORKS, [True, False]), [("plain", True), ("grouped", False)]),
)
def test_the_slope_and_the_minimum(name: str, per_channel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    noise, first, found = searched(deployed(name), per_channel, monkeypatch)
    generator = np.random.default_rng(0)
    for _ in range(5):
        place, direction = first + generator.normal(size=first.shape), generator.normal(size=first.shape)
        measured = (noise(place + 1e-5 * direction)[0] - noise(place - 1e-5 * direction)[0]) / 2e-5
        assert noise(place)[1] @ direction == pytest.approx(measured, rel=1e-4, abs=1e-6)
        # The lowest there is, wherever one looks, and convex on the way.
        assert noise(place)[0] >= found.fun
        assert noise((place + found.x) / 2)[0] <= (noise(place)[0] + found.fun) / 2 + 1e-9


@pytest.mark.parametrize("name", sampled(NETWORKS, ["grouped"]))
def test_importance_is_what_noise_does(name: str) -> None:
    """Noise of known power in one layer, and what arrives at the answers."""
    model = deployed(name)
    steps = Steps(model)
    known = layer_channels(steps, IMAGES)
    expected = infer(model, IMAGES)
    generator = np.random.default_rng(1)
    for layer in ("stage1_block0", "stage3_block0"):
        size = 1e-3 * known[layer].deviation

        def call(step: Any, inputs: Any, layer: str = layer, size: np.ndarray = size) -> Any:
            if step.name != layer:
                return apply(step, inputs)
            outputs = linear_part(step, inputs)
            noise = (generator.normal(size=outputs.shape) * size).astype("float32")
            return step.layer.activation(outputs + noise)

        arrived = [
            np.square(to_numpy(tensor).astype(np.float64) - expected).sum(axis=1).mean()
            for _ in range(8)
            for step, tensor in steps.run(IMAGES, call)
            if step.name == steps.outputs[0]
        ]
        # Sixteen images with one random sign for each answer: right within a factor of two, of powers that differ by
        # thousands from layer to layer.
        told = (known[layer].importance * size**2).sum()
        assert told / 2 < np.mean(arrived) < 2 * told, layer


def rounded(model: Any, images: np.ndarray, per_channel: bool) -> np.ndarray:
    """Its answers with weights and inputs rounded to the nearest of eight bits."""
    limits = input_limits(model, IMAGES)
    coarse = copied(model)
    for step in Steps(coarse).weighted:
        step.layer.kernel.assign(rounded_weights(kernel_of(step.layer), per_channel=per_channel))

    def call(step: Any, inputs: list[Any]) -> Any:
        return apply(step, rounded_input(step, inputs, limits) if step.weighted else inputs)

    return to_numpy([tensor for _, tensor in Steps(coarse).run(images, call)][-1])


@pytest.mark.parametrize("per_channel", sampled([True, False], [True]))
def test_rounding_makes_less_noise(per_channel: bool) -> None:
    """Than in a network whose channels are far apart: three bits; and no more than after balancing weights."""
    model = scale_channels(deployed("plain"))
    images = random_images((16, 24, 24, 3), seed=8)
    wanted = infer(model, images)
    before, by_weights, optimal = (
        signal_to_noise(wanted, rounded(network, images, per_channel))
        for network in (model, equalize(model), equalize(model, IMAGES, per_channel=per_channel))
    )
    assert optimal > before + 18
    assert optimal > by_weights
