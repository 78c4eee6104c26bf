"""The example of `docs/extending.md`: a kind of block that the package does not know, in somebody's own model."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import pytest

import repvgg
from helpers import infer, random_images, relative_error, trained_like
from own_rows import own_rows_forgotten
from repvgg.base.errors import InputError
from repvgg.blocks import block_layer
from repvgg.blocks.kind import BlockKind, conv_norm

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"


class _TooHigh(BlockKind):
    """A branch that does not fit into the block's kernel."""

    name = "TooHighBlock"

    def branches(self, shape: Any) -> Iterator[Any]:
        yield conv_norm("square", "square", (3, 3))
        yield conv_norm("column", "column", (shape.filters, 1))


@pytest.mark.parametrize(("filters", "fits"), [(5, True), (7, False), (4, False)])
def test_branches_that_do_not_fit_are_refused_before_any_training(filters: int, fits: bool) -> None:
    block = block_layer(_TooHigh(), package="tests")(filters, kernel_size=(5, 3))
    refused = pytest.raises(InputError, match=f"'column' of TooHighBlock is {filters} x 1.* 5 x 3")
    with nullcontext() if fits else refused:
        block.build((None, 9, 9, 3))


def test_the_example_trains_converts_saves_and_loads(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    example, *_ = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    with own_rows_forgotten():
        exec(example, names)
    layer = names["TwoKernelsBlock"]
    assert callable(layer)
    inputs = keras.Input((None, None, 3))
    features = layer(8, strides=2)(inputs)
    features = layer(8, kernel_size=5, squeeze_excite={"position": "before_activation", "reduction": 4})(features)
    model = trained_like(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(features))))
    images = random_images((2, 19, 16, 3))
    loaded = repvgg.load_model(repvgg.save_model(model, tmp_path / "mine.keras"))
    assert relative_error(infer(model, images), infer(loaded, images)) == 0
    deployed = repvgg.reparameterize(loaded)
    assert relative_error(infer(model, images), infer(deployed, images)) < 1e-5
    before = keras.ops.convert_to_numpy(model.get_layer(index=1).row.kernel).copy()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, keras.ops.convert_to_tensor([0, 1]), verbose=0)
    assert (keras.ops.convert_to_numpy(model.get_layer(index=1).row.kernel) != before).any()
