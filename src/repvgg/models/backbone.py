"""The feature extractor, by KerasHub's conventions for feature pyramids."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras

from repvgg.core.architecture import EPSILON, Adaptation, Architecture, SqueezeExcite
from repvgg.models.model import build_stages

ImageShape = tuple[int | None, int | None, int]


@keras.saving.register_keras_serializable(package="repvgg")
class RepVGGBackbone(keras.Model):
    """RepVGG without its classifier: images -> the last feature map, every level in `pyramid_outputs`.

    Args:
        num_blocks, width_multiplier, override_groups_map, squeeze_excite, block, stem_strides, output_stride,
            dilate_first, epsilon, separable, kernel_size, copies, squeeze_excite_blocks: as for `repvgg.RepVGG`.
        deploy: True for stock convolutions instead of blocks.
        image_shape: shape of one image, None where a side may vary; channels come last or first as `data_format` says.
        data_format: "channels_last" or "channels_first"; Keras's setting if None.
        dtype: Keras dtype policy.

    Attributes:
        pyramid_outputs: 'P1' ... 'P5' -> symbolic feature map; level Pn is 2^n times smaller than the image, but for
            the strides that `stem_strides` and `output_stride` take away.
        image_shape: as given.
        token_embedding: None; KerasHub asks every backbone for it.

    Example:
        >>> backbone = RepVGGBackbone([2, 4, 14, 1], [0.75, 0.75, 0.75, 2.5])
        >>> pyramid = keras.Model(backbone.inputs, backbone.pyramid_outputs)
        >>> pyramid(images)["P3"].shape               # images: (1, 224, 224, 3)
        (1, 28, 28, 96)
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        width_multiplier: Sequence[float],
        override_groups_map: Mapping[int, int] | None = None,
        *,
        squeeze_excite: SqueezeExcite | Mapping[str, Any] | None = None,
        block: str = "RepVGGBlock",
        stem_strides: int = 2,
        output_stride: int = 32,
        dilate_first: bool = True,
        epsilon: float = EPSILON,
        separable: bool = False,
        kernel_size: int = 3,
        copies: int = 1,
        squeeze_excite_blocks: Sequence[int] | None = None,
        deploy: bool = False,
        image_shape: ImageShape = (None, None, 3),
        data_format: str | None = None,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(squeeze_excite, Mapping):
            squeeze_excite = SqueezeExcite(**squeeze_excite)
        # A config that went through JSON has text for keys.
        groups = {int(place): count for place, count in (override_groups_map or {}).items()}
        architecture = Architecture(
            tuple(num_blocks),
            tuple(width_multiplier),
            groups,
            squeeze_excite,
            auxiliary_heads=False,
            block=block,
            adaptation=Adaptation(stem_strides, output_stride, dilate_first, epsilon),
            separable=separable,
            kernel_size=kernel_size,
            copies=copies,
            squeeze_excite_blocks=tuple(squeeze_excite_blocks) if squeeze_excite_blocks is not None else None,
        )
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        layout = data_format or keras.config.image_data_format()
        inputs, stages = build_stages(architecture, image_shape, deploy=deploy, data_format=layout, policy=policy)
        super().__init__(inputs=inputs, outputs=stages["stage4"], name=name, **kwargs)
        self.dtype_policy = policy
        self.architecture = architecture
        self.deploy = deploy
        self.image_shape = tuple(image_shape)
        self.data_format = layout
        self.pyramid_outputs = {f"P{level}": stages[f"stage{level - 1}"] for level in range(1, 6)}

    token_embedding = None

    def compute_output_spec(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        # Keras asks the layers one after the other, and stock layers tell no shape of a NumPy array.
        spec = keras.KerasTensor(tuple(inputs.shape), dtype=keras.backend.standardize_dtype(inputs.dtype))
        return super().compute_output_spec(spec, training=training, mask=mask)

    def get_config(self) -> dict[str, Any]:
        attention = self.architecture.squeeze_excite
        return {
            "num_blocks": list(self.architecture.num_blocks),
            "width_multiplier": list(self.architecture.width_multiplier),
            "override_groups_map": {str(place): count for place, count in self.architecture.groups.items()},
            "squeeze_excite": asdict(attention) if attention else None,
            "block": self.architecture.block,
            **asdict(self.architecture.adaptation),
            "separable": self.architecture.separable,
            "kernel_size": self.architecture.kernel_size,
            "copies": self.architecture.copies,
            "squeeze_excite_blocks": self.architecture.squeeze_excite_blocks,
            "deploy": self.deploy,
            "image_shape": list(self.image_shape),
            "data_format": self.data_format,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "RepVGGBackbone":  # noqa: ARG003
        return cls(**config)
