"""Makes `saved-VERSION/`: small networks in `.keras` files, and the answers they gave when they were saved.

    python make_saved.py saved-0.1.0

Run it with the version of `repvgg` that the folder is named after (0.1.0: commit 285b5c0). Later versions have to load
these files and give the same answers; files of one version are never made again with another.
"""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import repvgg

DEPTHS, WIDTHS, CLASSES = [1, 1, 2, 1], [0.0625] * 4, 5


def network(**settings: Any) -> Any:
    return repvgg.RepVGG(DEPTHS, WIDTHS, num_classes=CLASSES, **settings)


def deployed() -> Any:
    return repvgg.reparameterize(trained_like(network()))


def inside_another_model() -> Any:
    inputs = keras.Input((None, None, 3))
    block = repvgg.RepVGGBlock(6, strides=2, groups=3, kernel_regularizer=keras.regularizers.L2(1e-4), name="block")
    features = repvgg.RepVGGBlock(6, activation="silu", dilation_rate=2, epsilon=1e-3, name="dilated")(block(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(features))


def switched_in_place() -> Any:
    model = trained_like(inside_another_model())
    repvgg.switch_to_deploy(model)
    return model


def quantization_aware() -> Any:
    from repvgg.quantization.qat import prepare_qat

    return prepare_qat(trained_like(network()))


NETWORKS: dict[str, Callable[[], Any]] = {
    "training": network,
    "deploy": deployed,
    "qarepvgg": lambda: network(block="QARepVGGBlock"),
    "grouped": lambda: network(override_groups_map={1: 2, 4: 4}),
    "attention": lambda: network(squeeze_excite=repvgg.SqueezeExcite("before_activation", 4)),
    "plus": lambda: network(squeeze_excite=repvgg.SqueezeExcite("after_activation", 4), auxiliary_heads=True),
    "backbone": lambda: repvgg.RepVGGBackbone(DEPTHS, WIDTHS),
    "blocks": inside_another_model,
    "switched": switched_in_place,
    "quantization_aware": quantization_aware,
}


def trained_like(model: Any) -> Any:
    """Statistics as training leaves them; fresh ones hide most mistakes."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        match variable.path.rsplit("/", 1)[-1]:
            case "gamma":
                variable.assign(generator.uniform(0.7, 1.7, variable.shape))
            case "moving_variance":
                variable.assign(generator.uniform(0.3, 3, variable.shape))
            case "beta" | "moving_mean" | "bias":
                variable.assign(0.3 * generator.standard_normal(variable.shape))
    return model


def compress(path: Path) -> None:
    """The same members, deflated: most of a small HDF5 file is zeros."""
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info.filename, content)


def main(folder: Path) -> None:
    folder.mkdir()
    images = np.random.default_rng(1).standard_normal((2, 37, 32, 3), dtype=np.float32)
    answers = {"images": images}
    for name, make in NETWORKS.items():
        keras.utils.set_random_seed(2)
        model = make()
        if name not in ("deploy", "switched", "quantization_aware"):
            trained_like(model)
        repvgg.set_metadata(model, class_names=[f"class {i}" for i in range(CLASSES)])
        compress(repvgg.save_model(model, folder / f"{name}.keras"))
        outputs = model(images, training=False)
        outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
        answers |= {f"{name}/{key}": keras.ops.convert_to_numpy(value) for key, value in outputs.items()}
    np.savez_compressed(folder / "answers.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
