"""PSPNet and U-Net on a RepVGG backbone: pixels (N, H, W, 3), 0 to 255, to logits (N, H, W, classes).

Both take images of one size, which is part of the network, so that any size will do, odd ones too: what was halved on
the way down is resized to exactly the size it came from. The weights do not depend on it: train on crops, then build
the network again for whole images and copy the weights.
"""

from typing import Any

import keras

import repvgg

Tensor = Any


def unet(architecture: repvgg.Architecture, image_size: tuple[int, int], classes: int) -> Any:
    """Feature maps of all levels, joined from the coarsest to the finest (Ronneberger et al., arXiv 1505.04597)."""
    images, pyramid = _backbone(architecture, image_size)
    x = keras.layers.Conv2D(192, 1, activation="relu", name="bridge")(pyramid["P5"])
    for level, filters in (("P4", 128), ("P3", 96), ("P2", 48), ("P1", 32)):
        skip = pyramid[level]
        x = _resized(x, skip.shape[1:3], f"{level}_up")
        x = keras.layers.Concatenate(name=f"{level}_join")([x, skip])
        x = repvgg.RepVGGBlock(filters, name=f"{level}_block")(x)
    return _classified(images, x, image_size, classes, name="unet")


def pspnet(architecture: repvgg.Architecture, image_size: tuple[int, int], classes: int) -> Any:
    """Averages over regions of four sizes beside the coarsest feature map (Zhao et al., arXiv 1612.01105)."""
    images, pyramid = _backbone(architecture, image_size, output_stride=16)
    features = pyramid["P5"]
    height, width = features.shape[1:3]
    parts = [features]
    for bins in (1, 2, 3, 6):
        size = (-(-height // bins), -(-width // bins))
        x = keras.layers.AveragePooling2D(size, padding="same", name=f"pool{bins}")(features)
        # No batch normalization: at one bin an image it would see as many values as there are images.
        x = keras.layers.Conv2D(64, 1, activation="relu", name=f"pool{bins}_conv")(x)
        parts.append(_resized(x, (height, width), f"pool{bins}_up"))
    x = keras.layers.Concatenate(name="join")(parts)
    x = repvgg.RepVGGBlock(128, name="head")(x)
    x = keras.layers.Dropout(0.1, name="dropout")(x)
    return _classified(images, x, image_size, classes, name="pspnet")


NETWORKS = {"pspnet": pspnet, "unet": unet}


def _backbone(
    architecture: repvgg.Architecture, image_size: tuple[int, int], output_stride: int = 32
) -> tuple[Tensor, dict[str, Tensor]]:
    """The network's input, and the feature maps 'P1' ... 'P5' of a backbone on it, P5 `output_stride` times smaller."""
    backbone = repvgg.RepVGGBackbone(
        architecture.num_blocks,
        architecture.width_multiplier,
        architecture.groups,
        squeeze_excite=architecture.squeeze_excite,
        block=architecture.block,
        image_shape=(*image_size, 3),
        output_stride=output_stride,
    )
    images = keras.Input((*image_size, 3), name="images")
    # The network takes pixels as they are read, so nobody who runs it has to know how it was trained.
    normalized = keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalize")(images)
    pyramid = keras.Model(backbone.inputs, backbone.pyramid_outputs, name="backbone")
    return images, pyramid(normalized)


def _resized(x: Tensor, size: tuple[int, int], name: str) -> Tensor:
    return keras.layers.Resizing(*size, interpolation="bilinear", name=name)(x)


def _classified(images: Tensor, x: Tensor, image_size: tuple[int, int], classes: int, name: str) -> Any:
    logits = keras.layers.Conv2D(classes, 1, name="classifier")(x)
    return keras.Model(images, _resized(logits, image_size, "logits"), name=name)
