"""Names of the tutorial "RepVGG in TensorFlow 2" and of the official repository, as thin shims over this package.

Code written for either runs by changing its import:

    from repvgg.compat import get_RepVGG_func_by_name, repvgg_model_convert

    model = get_RepVGG_func_by_name("RepVGG-A0")(num_classes=1000)
    model.build((None, 160, 160, 3))
    deployed = repvgg_model_convert(model, "RepVGG-A0")

The difference is in the answers: the tutorial's converted network is off by a tenth of its largest logit, because its
padding is lopsided; this one's agrees.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repvgg import conversion
from repvgg.base.errors import ConversionError, UnknownNameError
from repvgg.base.files import atomic_output
from repvgg.blocks import tutorial
from repvgg.models import model as models
from repvgg.models.recover import recover
from repvgg.models.saving import save_model
from repvgg.models.variants import find_variant, get_variant

ConvBn = tutorial.ConvBn
RepVGGBlock = tutorial.RepVGGBlock

optional_groupwise_layers = list(range(2, 27, 2))
g2_map = dict.fromkeys(optional_groupwise_layers, 2)
g4_map = dict.fromkeys(optional_groupwise_layers, 4)


def RepVGG(
    num_blocks: Sequence[int],
    num_classes: int = 1000,
    width_multiplier: Sequence[float] | None = None,
    override_groups_map: Mapping[int, int] | None = None,
    deploy: bool = False,
) -> Any:
    """A classifier with the tutorial's order of arguments; `repvgg.RepVGG` is the real one.

    Groups may name blocks that the network does not have, as `g2_map` does for short ones.
    """
    places = sum(num_blocks)
    groups = {place: count for place, count in (override_groups_map or {}).items() if place <= places}
    return models.RepVGG(num_blocks, width_multiplier or (1, 1, 1, 1), groups, num_classes, deploy)


def _creator(name: str) -> Callable[..., Any]:
    """The `create_RepVGG_...` function of one variant."""

    def create(num_classes: int = 1000, deploy: bool = False) -> Any:
        return models.build_described(get_variant(name).architecture, num_classes, (None, None, 3), deploy=deploy)

    create.__name__ = create.__qualname__ = f"create_{name.replace('-', '_')}"
    create.__doc__ = (
        f"{name} as a `keras.Model`; the same as `repvgg.create_model('{name}', num_classes, deploy=deploy)`."
    )
    return create


create_RepVGG_A0 = _creator("RepVGG-A0")
create_RepVGG_A1 = _creator("RepVGG-A1")
create_RepVGG_A2 = _creator("RepVGG-A2")
create_RepVGG_B0 = _creator("RepVGG-B0")
create_RepVGG_B1 = _creator("RepVGG-B1")
create_RepVGG_B1g2 = _creator("RepVGG-B1g2")
create_RepVGG_B1g4 = _creator("RepVGG-B1g4")
create_RepVGG_B2 = _creator("RepVGG-B2")
create_RepVGG_B2g2 = _creator("RepVGG-B2g2")
create_RepVGG_B2g4 = _creator("RepVGG-B2g4")
create_RepVGG_B3 = _creator("RepVGG-B3")
create_RepVGG_B3g2 = _creator("RepVGG-B3g2")
create_RepVGG_B3g4 = _creator("RepVGG-B3g4")
create_RepVGG_D2se = _creator("RepVGG-D2se")

func_dict: dict[str, Callable[..., Any]] = {
    "RepVGG-A0": create_RepVGG_A0,
    "RepVGG-A1": create_RepVGG_A1,
    "RepVGG-A2": create_RepVGG_A2,
    "RepVGG-B0": create_RepVGG_B0,
    "RepVGG-B1": create_RepVGG_B1,
    "RepVGG-B1g2": create_RepVGG_B1g2,
    "RepVGG-B1g4": create_RepVGG_B1g4,
    "RepVGG-B2": create_RepVGG_B2,
    "RepVGG-B2g2": create_RepVGG_B2g2,
    "RepVGG-B2g4": create_RepVGG_B2g4,
    "RepVGG-B3": create_RepVGG_B3,
    "RepVGG-B3g2": create_RepVGG_B3g2,
    "RepVGG-B3g4": create_RepVGG_B3g4,
    "RepVGG-D2se": create_RepVGG_D2se,
}


def get_RepVGG_func_by_name(name: str) -> Callable[..., Any]:
    """The function that creates the variant `name`.

    Raises:
        UnknownNameError: if there is none; the message names the nearest ones.

    Example:
        >>> model = get_RepVGG_func_by_name("RepVGG-A0")(num_classes=10)
    """
    if name not in func_dict:
        raise UnknownNameError("variant", name, func_dict)
    return func_dict[name]


def repvgg_model_convert(model: Any, model_name: str | None = None, save_path: str | Path | None = None) -> Any:
    """The deploy form of `model`, as a new model; `repvgg.reparameterize` is the real one.

    Args:
        model: anything that `repvgg.reparameterize` takes, also a larger network around a RepVGG.
        model_name: the tutorial passes it; if given, the model must be that variant, with any number of classes.
        save_path: where to save the result, a `.keras` file, or `.weights.h5` for the weights alone. An existing file
            is replaced, as both originals do.

    Raises:
        ConversionError: if there is nothing to convert, or `model` is not `model_name`.
    """
    if model_name is not None:
        get_RepVGG_func_by_name(model_name)
        variant = find_variant(recover(model).architecture)
        if variant is None or variant.name != model_name:
            raise ConversionError(f"This model is {variant.name if variant else 'no named variant'}, not {model_name}.")
    deployed = conversion.reparameterize(model)
    if save_path is not None:
        path = Path(save_path)
        if path.name.endswith(".weights.h5"):
            with atomic_output(path) as temporary:
                deployed.save_weights(temporary)
        else:
            save_model(deployed, path, force=True)
    return deployed
