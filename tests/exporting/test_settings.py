"""Fixed batches and sizes, probabilities, and pixels as input: the artifact, and everything that runs it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import repvgg
from exported import ADAPTING, OPENED, PAIRS, deployed, small, write
from helpers import infer, random_images, relative_error
from repvgg.base.errors import InputError, VerificationError
from repvgg.evaluation import evaluate
from repvgg.evaluation.prediction import predict
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import images_for

for module in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(module)

ADAPTING_PAIRS = [(name, precision) for name, precision in PAIRS if name in ADAPTING]


def random_pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images in folders of classes; their number fills no batch of 2."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, name in enumerate(("ant", 'a "bee" & <more>', "käfer", "ant", "käfer")):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(random_pixels((90, 100 + index, 3))[:, ::-1]).save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", ADAPTING)
def test_fixed_batch_and_size(name: str, tmp_path: Path) -> None:
    model = deployed("plain")
    result = write(model, tmp_path, name, batch=2, image_size=(40, 51))
    assert result.report.image_shapes == ((2, 40, 51, 3),)
    runner = load_runner(result.path)
    assert runner.batch_size == 2
    assert runner.input_shape == (40, 51, 3)
    images = random_images((2, 40, 51, 3))
    assert relative_error(infer(model, images), runner(images)) < 1e-5
    with pytest.raises(InputError, match="takes batches of 2 images; these are 3"):
        runner(random_images((3, 40, 51, 3)))
    with pytest.raises(InputError, match=r"expects images of shape .* the width of these is 50"):
        runner(random_images((2, 40, 50, 3)))
    # Any number of images can be compared.
    assert repvgg.verify(model, runner, random_images((5, 40, 51, 3))).images == 5


@pytest.mark.parametrize("name", ADAPTING)
def test_one_size_for_both_sides(name: str, tmp_path: Path) -> None:
    runner = load_runner(write(deployed("plain"), tmp_path, name, image_size=48).path)
    assert runner.input_shape == (48, 48, 3)
    assert runner.batch_size is None
    assert runner(random_images((3, 48, 48, 3))).shape == (3, 3)


@pytest.mark.parametrize(("name", "precision"), ADAPTING_PAIRS)
def test_probabilities(name: str, precision: str, tmp_path: Path) -> None:
    model = deployed("plain")
    runner = load_runner(write(model, tmp_path, name, precision, softmax=True).path)
    assert runner.gives_probabilities
    images = random_images((2, 64, 64, 3))
    exponentials = np.exp(infer(model, images).astype("float64"))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(runner(images), expected, rtol=1e-5 if precision == "float32" else 3e-3)


@pytest.mark.parametrize(("name", "precision"), ADAPTING_PAIRS)
def test_pixels_as_input(name: str, precision: str, tmp_path: Path) -> None:
    """Each pixel is normalized before anything is padded, so borders are right as well."""
    model = deployed("plain")
    preprocessing = repvgg.get_metadata(model).preprocessing
    assert preprocessing is not None
    runner = load_runner(write(model, tmp_path, name, precision, with_preprocessing=True).path)
    assert runner.takes_uint8
    assert runner.input_shape == (None, None, 3)
    pixels = random_pixels((2, 33, 38, 3))
    expected = infer(model, (pixels.astype("float32") / 255 - preprocessing.mean) / preprocessing.std)
    assert relative_error(expected, runner(pixels)) < (1e-5 if precision == "float32" else 3e-3)
    with pytest.raises(InputError, match="takes pixels from 0 to 255 in uint8; these images are in float32"):
        runner(pixels.astype(np.float32))


@pytest.mark.parametrize("name", ADAPTING)
def test_grey_pixels(name: str, tmp_path: Path) -> None:
    model = deployed("one channel")
    runner = load_runner(write(model, tmp_path, name, with_preprocessing=True).path)
    pixels = random_pixels((2, 40, 40, 1))
    assert relative_error(infer(model, (pixels / 255 - 0.2) / 0.2), runner(pixels)) < 1e-5


@pytest.mark.parametrize("name", ADAPTING)
def test_an_artifact_that_does_it_all_is_predicted_evaluated_and_verified(
    name: str, tmp_path: Path, pictures: Path
) -> None:
    """The same classes and probabilities as those of the Keras model, from files to names."""
    model = deployed("plain")
    settings = {"batch": 2, "image_size": 64, "softmax": True, "with_preprocessing": True}
    runner = load_runner(write(model, tmp_path, name, **settings).path)
    paths = sorted(pictures.rglob("*.png"))
    for expected, found in zip(predict(KerasRunner(model), paths), predict(runner, paths), strict=True):
        assert found.path == expected.path
        assert found.classes == expected.classes
        np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)
    assert evaluate(runner, pictures).to_dict()["top1"] == evaluate(model, pictures).to_dict()["top1"]
    report = repvgg.verify(model, runner)
    assert report.passed
    assert report.image_shapes == ((2, 64, 64, 3),)
    # Pixels and normalized images are the same images.
    pixels = random_pixels((3, 64, 64, 3))
    assert repvgg.verify(model, runner, pixels).max_relative_error < 1e-5
    assert repvgg.verify(model, runner, images_for(KerasRunner(model), pixels)).max_relative_error < 1e-5
    with pytest.raises(InputError, match="These images are not normalized pixels"):
        repvgg.verify(model, runner, random_images((2, 64, 64, 3)))


def test_probabilities_that_agree_where_logits_do_not(tmp_path: Path) -> None:
    """A softmax hides what is far below the largest logit; its logarithm does not."""
    model = repvgg.reparameterize(small())
    classifier = model.get_layer("classifier")
    kernel, bias = classifier.get_weights()
    classifier.set_weights([kernel, bias + np.array([40, 0, 0], "float32")])
    runner = load_runner(write(model, tmp_path, "onnx", softmax=True).path)
    classifier.set_weights([kernel * np.array([1, 1, 1.5], "float32"), bias + np.array([40, 0, 0], "float32")])
    images = random_images((2, 64, 64, 3))
    exponentials = np.exp(infer(model, images).astype("float64"))
    np.testing.assert_allclose(runner(images), exponentials / exponentials.sum(1, keepdims=True), atol=1e-6)
    assert not repvgg.verify(model, runner, images).passed


def test_a_wrong_normalization_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repvgg.targets.onnx import write as target

    def forgetful(preprocessing: repvgg.Preprocessing, precision: str) -> tuple[np.ndarray, np.ndarray]:
        return np.full(3, 1 / 255, np.float32), np.zeros(3, np.float32)

    monkeypatch.setattr(target, "scale_and_shift", forgetful)
    with pytest.raises(VerificationError, match="was not kept"):
        write(deployed("plain"), tmp_path, "onnx", with_preprocessing=True)


def test_what_the_model_fixes_stays(tmp_path: Path) -> None:
    model = deployed("fixed size")
    with pytest.raises(InputError, match=r"The width of '\w+' is fixed to 50, and 40 was asked for"):
        write(model, tmp_path, "onnx", image_size=40)
    assert load_runner(write(model, tmp_path, "onnx", image_size=(40, 50)).path).input_shape == (40, 50, 3)
    with pytest.raises(InputError, match=r"The batch .* must be at least 1\. Received: 0"):
        write(model, tmp_path, "onnx", batch=0, force=True)


def test_softmax_and_preprocessing_where_they_make_no_sense(tmp_path: Path) -> None:
    import keras

    with pytest.raises(InputError, match=r"Softmax makes probabilities of a classifier's logits, and '.*' is not one"):
        write(repvgg.reparameterize(small(num_classes=None)), tmp_path, "onnx", softmax=True)
    model = deployed("plain")
    twice = keras.Model(model.inputs, keras.layers.Activation("softmax")(model.outputs[0]))
    with pytest.raises(InputError, match="ends in a softmax, so it gives probabilities already"):
        write(twice, tmp_path, "onnx", softmax=True)
    bare = keras.Model(model.inputs, model.outputs)
    with pytest.raises(InputError, match="carries no preprocessing to write into the artifact"):
        write(bare, tmp_path, "onnx", with_preprocessing=True)
    repvgg.set_metadata(bare, preprocessing=repvgg.Preprocessing(mean=(0.5,), std=(0.5,)))
    with pytest.raises(InputError, match="takes images of 3 channels, and its preprocessing is for 1"):
        write(bare, tmp_path, "onnx", with_preprocessing=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings", [{"batch": 2}, {"image_size": 64}, {"softmax": True}, {"with_preprocessing": True}]
)
def test_a_keras_file_holds_the_model_as_it_is(settings: dict[str, object], tmp_path: Path) -> None:
    assert [name for name in OPENED if name not in ADAPTING] == ["keras"]
    with pytest.raises(InputError, match="'keras' holds the model as it is"):
        write(deployed("plain"), tmp_path, "keras", **settings)
