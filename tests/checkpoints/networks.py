"""Small networks that cover what a checkpoint can hold, with weights that hide no mistake."""

from collections.abc import Mapping
from typing import Any

from helpers import trained_like
from repvgg.core.architecture import Architecture, SqueezeExcite
from repvgg.models.model import build_described

WIDTHS = (0.25, 0.125, 0.125, 0.125)
NETWORKS: Mapping[str, Architecture] = {
    "plain": Architecture((1, 2, 2, 1), WIDTHS),
    "grouped": Architecture((1, 2, 2, 1), WIDTHS, {2: 4, 3: 2, 5: 4}),
    "attention": Architecture((1, 2, 2, 1), WIDTHS, squeeze_excite=SqueezeExcite("before_activation", 4)),
    "plus": Architecture(
        (1, 2, 4, 1), WIDTHS, squeeze_excite=SqueezeExcite("after_activation", 4), auxiliary_heads=True
    ),
}


def network(
    name: str, *, deploy: bool = False, num_classes: int | None = 6, dtype: str | None = None, channels: int = 3
) -> Any:
    """A network of the table above, deterministic."""
    import keras

    keras.utils.set_random_seed(3)
    model = build_described(NETWORKS[name], num_classes, (None, None, channels), deploy=deploy, dtype=dtype)
    return trained_like(model)
