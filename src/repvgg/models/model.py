"""From an architecture to a Keras model, in training or deploy form."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.base.metadata import Form, Metadata
from repvgg.blocks.branches import torch_initializer
from repvgg.blocks.layers import BLOCKS, AuxiliaryClassifier, SinglePath
from repvgg.core.architecture import EPSILON, Adaptation, Architecture, SqueezeExcite
from repvgg.models.metadata import set_metadata
from repvgg.models.variants import Variant, find_variant

Tensor = Any
InputShape = tuple[int | None, int | None, int]


def build_stages(
    architecture: Architecture, input_shape: Sequence[int | None], *, deploy: bool, data_format: str, policy: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """The symbolic input, and every block's output by its name; 'stage0' ... 'stage4' name each stage's last one."""
    shape, channels = _checked_shape(input_shape, data_format)
    inputs = keras.Input(shape, name="images")
    outputs: dict[str, Tensor] = {}
    x = inputs
    for spec in architecture.blocks(channels):
        if deploy:
            unit: Any = SinglePath.make(
                spec.name,
                spec.filters,
                strides=spec.strides,
                groups=spec.groups,
                kernel_size=spec.kernel_size,
                dilation_rate=spec.dilation,
                squeeze_excite=spec.squeeze_excite,
                data_format=data_format,
                dtype=policy,
                initializer=torch_initializer(),
            )
        else:
            unit = BLOCKS[architecture.block](
                spec.filters,
                spec.strides,
                spec.groups,
                kernel_size=spec.kernel_size,
                copies=spec.copies,
                dilation_rate=spec.dilation,
                squeeze_excite=spec.squeeze_excite,
                data_format=data_format,
                epsilon=architecture.adaptation.epsilon,
                identity_branch=not spec.keeps_size,
                dtype=policy,
                name=spec.name,
            )
        x = unit(x)
        outputs[spec.name] = outputs[f"stage{spec.stage}"] = x
    return inputs, outputs


def build_network(
    architecture: Architecture,
    num_classes: int | None,
    input_shape: Sequence[int | None],
    *,
    deploy: bool = False,
    dtype: Any = None,
    name: str = "repvgg",
) -> Any:
    """A classifier, or with `num_classes=None` a feature extractor, as a functional Keras model.

    The training form consists of this package's blocks; the deploy form of stock Keras layers only, with the layer
    names that `repvgg.reparameterize` gives.
    """
    if num_classes is not None and num_classes < 1:
        raise InputError(f"`num_classes` must be at least 1, or None for features. Received: {num_classes}.")
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    inputs, features = build_stages(
        architecture, input_shape, deploy=deploy, data_format="channels_last", policy=policy
    )
    if num_classes is None:
        return keras.Model(inputs, {f"stage{stage}": features[f"stage{stage}"] for stage in range(5)}, name=name)

    pool = keras.layers.GlobalAveragePooling2D(data_format="channels_last", dtype=policy, name="pool")
    # Logits stay in the dtype of the weights: a softmax of 16-bit logits loses too much.
    classifier = keras.layers.Dense(
        num_classes, kernel_initializer=torch_initializer(), dtype=policy.variable_dtype, name="classifier"
    )
    outputs: Any = classifier(pool(features["stage4"]))
    taps = architecture.auxiliary_taps()
    if taps and not deploy:
        outputs = {"main": outputs}
        for output, block in taps.items():
            head = AuxiliaryClassifier(num_classes, epsilon=architecture.adaptation.epsilon, dtype=policy, name=output)
            outputs[output] = head(features[block])
    return keras.Model(inputs, outputs, name=name)


def _checked_shape(input_shape: Sequence[int | None], data_format: str) -> tuple[tuple[int | None, ...], int]:
    shape = tuple(input_shape)
    if len(shape) != 3:
        raise InputError(
            f"`input_shape` needs (height, width, channels), None where an image side may vary. Received: {shape}."
        )
    channels = shape[-1 if data_format == "channels_last" else 0]
    if not isinstance(channels, int) or channels < 1:
        raise InputError(f"`input_shape` needs a number of channels ({data_format}). Received: {shape}.")
    return shape, channels


def RepVGG(  # noqa: N802 - a public name the field knows, and it makes a model
    num_blocks: Sequence[int],
    width_multiplier: Sequence[float],
    override_groups_map: Mapping[int, int] | None = None,
    num_classes: int | None = 1000,
    deploy: bool = False,
    input_shape: InputShape = (None, None, 3),
    *,
    squeeze_excite: SqueezeExcite | None = None,
    auxiliary_heads: bool = False,
    block: str = "RepVGGBlock",
    stem_strides: int = 2,
    output_stride: int = 32,
    dilate_first: bool = True,
    epsilon: float = EPSILON,
    separable: bool = False,
    kernel_size: int = 3,
    copies: int = 1,
    squeeze_excite_blocks: Sequence[int] | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Any:
    """A RepVGG of any depth and width.

    Args:
        num_blocks: blocks in stages 1 to 4.
        width_multiplier: factors on 64, 128, 256 and 512 channels.
        override_groups_map: groups of single blocks by place, the stem being 0.
        num_classes: outputs of the classifier; None for the features of all stages.
        deploy: True for the plain stack of stock convolutions, with fresh weights.
        input_shape: (height, width, channels); None where a side may vary.
        squeeze_excite: channel attention of every block.
        auxiliary_heads: RepVGGplus's extra outputs in training form.
        block: a key of `repvgg.blocks.BLOCKS`.
        stem_strides: 2, or 1 for small images.
        output_stride: 8, 16 or 32; below 32 the last stages keep their size, and their 3x3 kernels are dilated.
        dilate_first: whether the first block of such a stage is dilated too, as in the official repository's PSPNet;
            False is torchvision's and timm's way (`repvgg.core.architecture.Adaptation`).
        epsilon: of every batch normalization.
        separable, kernel_size, copies, squeeze_excite_blocks: as for `repvgg.Architecture`.
        dtype: Keras dtype policy, such as "mixed_bfloat16" or "float64".

    Returns:
        A `keras.Model` from images (N, H, W, C) to logits (N, num_classes), or to a dict 'stage0' ... 'stage4' of
        feature maps. With auxiliary heads the training form gives a dict 'main', 'stage1_aux', 'stage2_aux',
        'stage3_first_aux'.

    Raises:
        InputError: if the arguments make no network.

    Example:
        >>> model = RepVGG([2, 4, 14, 1], [0.75, 0.75, 0.75, 2.5], num_classes=10)
    """
    if block not in BLOCKS:
        raise InputError(f"There is no block '{block}'. Known: {', '.join(BLOCKS)}.")
    architecture = Architecture(
        tuple(num_blocks),
        tuple(width_multiplier),
        override_groups_map or {},
        squeeze_excite,
        auxiliary_heads,
        block,
        Adaptation(stem_strides, output_stride, dilate_first, epsilon),
        separable,
        kernel_size,
        copies,
        tuple(squeeze_excite_blocks) if squeeze_excite_blocks is not None else None,
    )
    return build_described(architecture, num_classes, input_shape, deploy=deploy, dtype=dtype, name=name)


def build_described(
    architecture: Architecture,
    num_classes: int | None,
    input_shape: Sequence[int | None],
    *,
    deploy: bool,
    dtype: Any = None,
    name: str | None = None,
) -> Any:
    """`build_network`, with the metadata that say what was built."""
    variant = find_variant(architecture)
    model = build_network(
        architecture, num_classes, input_shape, deploy=deploy, dtype=dtype, name=name or _model_name(variant)
    )
    form: Form = "deploy" if deploy else "training"
    set_metadata(model, Metadata(variant=variant.name if variant else None, form=form))
    return model


def _model_name(variant: Variant | None) -> str:
    return variant.name.replace("-", "_").lower() if variant else "repvgg"
