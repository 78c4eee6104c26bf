"""Comparing networks: what is reported, what fails, and that the guilty block is named."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import (
    Array,
    detached,
    infer,
    random_images,
    relative_error,
    small_network,
    to_numpy,
    trained_like,
    values_of,
)
from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Metadata
from repvgg.blocks import RepVGGBlock
from repvgg.conversion import reparameterize, switch_to_deploy
from repvgg.core.architecture import SqueezeExcite
from repvgg.exporting import export
from repvgg.models.saving import save_model
from repvgg.runners.classifier import softmax
from repvgg.runners.function import FunctionRunner
from repvgg.runners.runner import Runner
from repvgg.verification import difference, verify

BLOCK_NAMES = [
    "stage0",
    "stage1_block0",
    "stage2_block0",
    "stage2_block1",
    "stage3_block0",
    "stage3_block1",
    "stage4_block0",
]


def pair(**options: Any) -> tuple[Any, Any]:
    """A network and its deploy form."""
    model = trained_like(small_network(**options))
    return model, reparameterize(model)


def falsify(deployed: Any, name: str, factor: float = 1.01) -> None:
    layer = deployed.get_layer(name)
    kernel, bias = values_of(layer)
    layer.set_weights([kernel * factor, bias])


@pytest.mark.backends
def test_the_report_of_two_forms() -> None:
    model, deployed = pair(name="mine")
    report = verify(model, deployed)
    assert report.passed
    assert 0 < report.max_relative_error < 1e-5
    assert 0 < report.max_absolute_error < 1e-4
    assert report.top1_agreement == 1.0
    assert (report.reference, report.candidate) == ("mine (training form)", "mine (deploy form)")
    assert report.rtol == 1e-4
    assert [row.name for row in report.blocks] == BLOCK_NAMES
    assert all(row.relative_error < 1e-5 for row in report.blocks)
    # An even and an odd size at every stride.
    assert [shape[1:] for shape in report.image_shapes] == [(64, 64, 3), (75, 75, 3)]
    assert report.images == sum(shape[0] for shape in report.image_shapes)
    assert "agree: relative error" in report.summary()
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


def test_the_figures_are_those_of_the_outputs() -> None:
    model, deployed = pair()
    falsify(deployed, "stage3_block1", 1.3)
    images = random_images((5, 40, 33, 3))
    expected, found = infer(model, images).astype("float64"), infer(deployed, images).astype("float64")
    distance = np.abs(expected - found).max(axis=1)
    report = verify(model, deployed, images)
    assert report.images == 5
    assert report.image_shapes == ((5, 40, 33, 3),)
    assert report.max_absolute_error == pytest.approx(distance.max(), rel=1e-3)
    assert report.max_relative_error == pytest.approx(distance.max() / np.abs(expected).max(), rel=1e-3)
    assert report.top1_agreement == np.mean(expected.argmax(axis=1) == found.argmax(axis=1))


@pytest.mark.parametrize(
    "guilty", ["stage0", pytest.param("stage2_block1", marks=pytest.mark.backends), "stage4_block0"]
)
def test_the_guilty_block_is_named(guilty: str) -> None:
    model, deployed = pair(squeeze_excite=SqueezeExcite("before_activation", 4))
    falsify(deployed, guilty, 1.5)
    report = verify(model, deployed)
    assert not report.passed
    assert report.worst_block is not None
    assert report.worst_block.name == guilty
    # Its own error on its own input: blocks after it are given the reference's input and are innocent.
    assert [row.name for row in report.blocks if row.relative_error > 1e-4] == [guilty]
    assert "differ" in report.summary()
    assert f"worst block: {guilty}" in report.summary()


def test_a_strict_limit_fails() -> None:
    model, deployed = pair()
    assert not verify(model, deployed, rtol=1e-9).passed
    assert verify(model, model, rtol=0).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_fail_on_either_side(bad: float) -> None:
    model, deployed = pair()
    images = random_images((3, 32, 32, 3))
    falsify(deployed, "classifier", bad)
    for report in (
        verify(model, deployed, images),
        verify(deployed, model, images),
        verify(deployed, deployed, images),
    ):
        assert not report.passed
        assert report.max_relative_error == np.inf
    assert not verify(model, lambda batch: np.full((len(batch), 5), bad), images).passed


def test_differences_by_hand() -> None:
    reference = np.array([[1.0, -4.0], [2.0, 0.5]])
    found = difference(reference, reference + np.array([[0.0, 0.0], [0.0, 0.2]]))
    assert (found.absolute, found.relative) == pytest.approx((0.2, 0.05))
    assert difference(np.zeros((1, 3)), np.zeros((1, 3))).relative == 0
    assert difference(np.zeros((1, 3)), np.full((1, 3), 1e-30)).relative == np.inf


def test_the_figures_do_not_depend_on_how_images_are_batched() -> None:
    """The largest value and the largest difference may sit in different batches, as for an image of zeros."""
    images = random_images((70, 8, 8, 3))
    images[40:] *= 1e-3

    def reference(batch: Array) -> Array:
        result: Array = batch.sum(axis=(1, 2))
        return result

    def candidate(batch: Array) -> Array:
        return reference(batch) + 1e-4

    report = verify(reference, candidate, images)
    assert report.max_relative_error == pytest.approx(1e-4 / np.abs(reference(images)).max(), rel=0.05)
    assert report.max_absolute_error == pytest.approx(1e-4, rel=0.05)


def test_float64_outputs_are_compared_in_float64() -> None:
    reference = np.ones((1, 3))
    assert difference(reference, reference + 1e-12).relative == pytest.approx(1e-12, rel=1e-3)


@pytest.mark.backends
def test_training_form_runs_in_inference_mode() -> None:
    """The usual pitfall: one side in training mode normalizes with the batch and moves its statistics."""
    model, deployed = pair()
    before = values_of(model)
    images = random_images((4, 32, 32, 3))
    assert verify(model, deployed, images).passed
    np.testing.assert_equal(values_of(model), before)

    def in_training_mode(batch: Array) -> Array:
        return to_numpy(detached(model(keras.ops.convert_to_tensor(batch), training=True)))

    assert not verify(in_training_mode, deployed, images).passed


def test_large_batches_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = pair()
    sizes: list[int] = []

    def runs(batch: Array) -> Array:
        sizes.append(len(batch))
        result: Array = infer(model, batch)
        return result

    report = verify(model, runs, random_images((70, 32, 32, 3)))
    assert report.passed
    assert report.images == sum(sizes) == 70
    assert max(sizes) <= 32


def test_a_callable_and_a_path(tmp_path: Path) -> None:
    model, deployed = pair()
    path = save_model(deployed, tmp_path / "deployed.keras")

    def my_network(images: Array) -> Array:
        assert images.dtype == np.float32
        result: Array = infer(model, images)
        return result

    report = verify(my_network, path, random_images((2, 40, 40, 3)))
    assert report.passed
    assert (report.reference, report.candidate, report.blocks) == ("my_network", "deployed.keras", ())
    report = verify(model, str(path))
    assert report.passed
    assert [row.name for row in report.blocks] == BLOCK_NAMES


def test_a_callable_beside_a_model_gets_the_models_probe_images() -> None:
    model, _ = pair(input_shape=(48, 40, 1))
    assert verify(lambda images: infer(model, images), model).image_shapes == ((4, 48, 40, 1),)
    with pytest.raises(InputError, match=r"The number of channels of the images is unknown\. Pass `images`"):
        verify(lambda images: images, lambda images: images)


def test_features_and_auxiliary_heads() -> None:
    features, deployed = pair(num_classes=None)
    report = verify(features, deployed)
    assert report.passed
    assert report.top1_agreement is None
    model, deployed = pair(auxiliary_heads=True, squeeze_excite=SqueezeExcite("after_activation", 4))
    report = verify(model, deployed)
    assert report.passed
    assert report.top1_agreement == 1.0
    assert [row.name for row in report.blocks] == BLOCK_NAMES


def test_one_wrong_output_of_several_fails() -> None:
    features, deployed = pair(num_classes=None)
    falsify(deployed, "stage1_block0")
    report = verify(features, deployed)
    assert not report.passed
    assert report.worst_block is not None
    assert report.worst_block.name == "stage1_block0"


def test_a_model_before_and_after_conversion_in_place() -> None:
    @keras.saving.register_keras_serializable(package="verification_tests")
    class Small(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = [RepVGGBlock(8, 2, name="first"), RepVGGBlock(8, name="second")]
            self.pool = keras.layers.GlobalAveragePooling2D()

        def call(self, x: Any, training: bool = False) -> Any:
            for block in self.inner:
                x = block(x, training=training)
            return self.pool(x)

    def make() -> Any:
        model = Small()
        model(np.zeros((1, 32, 32, 3), "float32"))
        return trained_like(model)

    model, converted = make(), make()
    converted.set_weights(values_of(model))
    switch_to_deploy(converted)
    report = verify(model, converted, random_images((2, 33, 32, 3)))
    assert report.passed
    assert [row.name for row in report.blocks] == ["first", "second"]


def test_mixed_precision_is_compared_in_float32(tmp_path: Path) -> None:
    model, deployed = pair(dtype="mixed_bfloat16")
    assert verify(model, deployed).max_relative_error < 1e-6
    save_model(model, tmp_path / "model.keras")
    assert verify(tmp_path / "model.keras", deployed).max_relative_error < 1e-6


def test_the_limit_is_that_of_the_precision_an_artifact_is_stored_in(tmp_path: Path) -> None:
    model, _ = pair(input_shape=(32, 32, 3))
    export(model, tmp_path / "half.onnx", precision="float16")
    report = verify(model, tmp_path / "half.onnx")
    assert report.rtol == 5e-3
    assert report.passed
    assert report.max_relative_error > 1e-4
    assert not verify(model, tmp_path / "half.onnx", rtol=1e-4).passed


# Bad input


def test_images_that_are_none() -> None:
    model, deployed = pair(input_shape=(32, 32, 3))
    for images, message in (
        (random_images((32, 32, 3)), r"non-empty batch \(N, H, W, C\). Received an array of shape \(32, 32, 3\)"),
        (random_images((0, 32, 32, 3)), "non-empty batch"),
        (random_images((2, 32, 32, 1)), "the channels of these is 1"),
        (random_images((2, 33, 32, 3)), r"expects images of shape \(32, 32, 3\) .* the height of these is 33"),
    ):
        with pytest.raises(InputError, match=message):
            verify(model, deployed, images)


def test_images_that_fit_the_candidate_only() -> None:
    with pytest.raises(InputError, match=r"expects images of shape \(None, None, 1\) .* the channels of these is 3"):
        verify(small_network(), small_network(input_shape=(None, None, 1)), random_images((1, 32, 32, 3)))


def test_networks_that_are_not_two_forms_of_one() -> None:
    model, _ = pair()
    with pytest.raises(InputError, match=r"different shapes, \(4, 5\) and \(4, 7\)"):
        verify(model, small_network(num_classes=7))
    with pytest.raises(InputError, match="different outputs: output and stage0, stage1"):
        verify(model, small_network(num_classes=None))
    with pytest.raises(InputError, match=r"images of different channels \(3 and 1\), so no image fits both"):
        verify(model, small_network(input_shape=(None, None, 1)))
    with pytest.raises(InputError, match=r"images of different heights \(32 and 64\)"):
        verify(small_network(input_shape=(32, 32, 3)), small_network(input_shape=(64, 32, 3)))


def test_sides_that_cannot_be_run(tmp_path: Path) -> None:
    model, _ = pair()
    with pytest.raises(InputError, match=r"A keras\.Model, a path, a callable or a Runner was expected"):
        verify(model, 3)
    with pytest.raises(FileError, match=r"none\.keras' does not exist"):
        verify(model, tmp_path / "none.keras")
    with pytest.raises(FileError, match=r"model\.xyz' ends in none of \.keras"):
        verify(model, tmp_path / "model.xyz")


def test_a_runner_of_ones_own() -> None:
    model, _ = pair()

    class Half(Runner):
        name = "half"
        input_shape = (None, None, 3)
        batch_size = 2

        def __call__(self, images: Array) -> Array:
            assert len(images) == 2
            result: Array = infer(model, images)
            return result

    report = verify(Half(), model)
    assert report.passed
    assert report.reference == "half"
    assert report.images == 4


def test_the_relative_error_is_of_the_reference() -> None:
    ones = np.ones((1, 2))
    assert difference(ones, 3 * ones).relative == pytest.approx(2.0)
    assert difference(3 * ones, ones).relative == pytest.approx(relative_error(3 * ones, ones))


def test_probabilities_that_vanish_agree_with_logits_far_apart() -> None:
    """A probability below the smallest float32 is 0; its logarithm says nothing about the logit it came from."""
    logits = np.array([[0.0, 300.0, -120.0]], np.float32)

    def network(images: np.ndarray) -> np.ndarray:
        return np.repeat(logits, len(images), axis=0)

    def as_probabilities(images: np.ndarray) -> np.ndarray:
        return softmax(network(images)).astype(np.float32)

    candidate = FunctionRunner(as_probabilities, "probabilities")
    candidate.metadata = Metadata(output="probabilities")
    assert verify(network, candidate, random_images((2, 8, 8, 3))).passed
