"""`import repvgg` is enough for Keras to load what it saved, and does not import Keras."""

from pathlib import Path

import pytest

from helpers import run_python, small_network
from repvgg.checkpoints.scales import scales_of
from repvgg.models.backbone import RepVGGBackbone
from repvgg.training.rep_optimizer import RepOptimizer

CLASSES = {"repvgg>RepVGGBlock", "repvgg>RepVGGBackbone", "repvgg>FakeQuantization", "repvgg.compat>RepVGGBlock"}

LOADING = """
import sys
{imports}
import keras
classes = set(keras.saving.get_custom_objects())
missing = {classes} - classes
assert not missing, missing
for path in sys.argv[1:]:
    print(type(keras.models.load_model(path)).__name__)
"""

ORDERS = {
    "before keras": "import repvgg; assert 'keras' not in sys.modules",
    "after keras": "import keras; import repvgg",
    # One of our own modules is the first to import Keras, while its package is half imported.
    "by the blocks": "import repvgg.blocks.base",
    "by the models": "import repvgg.models.layers",
    "by a runner": "from repvgg.runners.keras import KerasRunner",
    "by a public name": "from repvgg import RepVGG",
}


@pytest.mark.parametrize(
    "order", [pytest.param(order, marks=[] if order == "after keras" else pytest.mark.full) for order in ORDERS]
)
def test_keras_finds_the_classes(order: str, tmp_path: Path) -> None:
    small_network().save(tmp_path / "train.keras")
    RepVGGBackbone([1, 1, 1, 1], [0.125] * 4).save(tmp_path / "backbone.keras")
    plain = small_network(block="RepOptVGGBlock")
    scales = scales_of(small_network(block="LinearAdditionBlock"))
    plain.compile(RepOptimizer(plain, scales), "categorical_crossentropy")
    plain.optimizer.build(plain.trainable_variables)
    plain.save(tmp_path / "compiled.keras")
    code = LOADING.format(imports=ORDERS[order], classes=CLASSES)
    files = [tmp_path / f"{name}.keras" for name in ("train", "backbone", "compiled")]
    assert run_python(code, *files).split() == ["Functional", "RepVGGBackbone", "Functional"]


@pytest.mark.full
def test_whichever_module_imports_keras_first() -> None:
    """Of each package that a backbone is made of, a module that imports Keras itself, each the first in its process."""
    modules = """
import sys, repvgg.models.backbone
from pathlib import Path
ours = [name for name in sys.modules if name.startswith("repvgg.")]
print(*[name for name in ours if "\\nimport keras\\n" in Path(sys.modules[name].__file__).read_text(encoding="utf-8")])
"""
    packages = {name.rpartition(".")[0]: name for name in run_python(modules).split()}
    assert "repvgg.blocks" in packages
    for name in packages.values():
        run_python(LOADING.format(imports=f"import {name}", classes=CLASSES))


def test_a_backend_that_blocks_do_not_run_on_can_still_be_imported() -> None:
    code = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; import repvgg, keras; print(keras.backend.backend())"
    assert run_python(code).split() == ["numpy"]
