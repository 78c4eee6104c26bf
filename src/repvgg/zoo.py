"""Models by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repvgg.model import build_described
from repvgg.saving import load_weights
from repvgg.variants import get_variant


def create_model(
    variant_name: str,
    num_classes: int | None = 1000,
    input_shape: Sequence[int | None] = (None, None, 3),
    deploy: bool = False,
    weights: str | Path | None = None,
    *,
    dtype: Any = None,
) -> Any:
    """A network by name.

    Args:
        variant_name: one of `repvgg.list_variants()`.
        num_classes, input_shape, deploy, dtype: as for `RepVGG`.
        weights: None for fresh ones, or a `.keras` or `.weights.h5` file of the same architecture and form.

    Raises:
        UnknownNameError: if there is no such variant; the message names the nearest ones.
        FileError: if the weights cannot be read or do not fit.

    Example:
        >>> model = create_model("RepVGG-A0", num_classes=5)
    """
    variant = get_variant(variant_name)
    model = build_described(variant.architecture, num_classes, input_shape, deploy=deploy, dtype=dtype)
    if weights is not None:
        load_weights(model, Path(weights))
    return model
