"""Any network from a path or a name: what `load_runner` takes, checkpoints of other frameworks, published weights, and
repositories on the hub.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from repvgg.base.errors import FileError, InputError, UnknownNameError
from repvgg.base.files import require_file
from repvgg.checkpoints.repository import Repository, is_repository, parse_repository
from repvgg.cli.device import check_device
from repvgg.models.variants import VARIANTS, Variant, known_variant

if TYPE_CHECKING:
    from repvgg.runners.runner import Runner

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")

NETWORK_HELP = (
    "A .keras file, a PyTorch checkpoint (.pth, .pt, .bin, .safetensors), an exported file such as .onnx, a name such "
    "as RepVGG-A0, which stands for its published weights, or a repository on the hub: hf-hub:user/name."
)

RANDOM_HELP = "A name stands for random weights, the same each time, and nothing is downloaded."

_WITHOUT_KERAS = (".onnx", ".tflite", ".xml")
"""Files that run without Keras and TensorFlow, which then need not be started."""


def network_named(network: Path) -> Variant | Repository | None:
    """The variant or the repository that is meant where a file or folder could stand; what lies there comes first.

    Raises:
        UnknownNameError: if it is neither there, nor looks like a file, nor is a name.
        InputError: if it is meant as a repository, and no repository can be called so.
    """
    if network.exists():
        return None
    if is_repository(str(network)):
        return parse_repository(str(network))
    variant = known_variant(str(network))
    if variant is None and not network.suffix and len(network.parts) == 1:
        raise UnknownNameError("file or network", str(network), VARIANTS)
    return variant


def require_network(path: Path, *, random_weights: bool = False) -> Variant | Repository | None:
    """Looks at what can be looked at before a framework is started; gives what is meant if a name was given.

    Raises:
        FileError: if it is missing, or of a kind that nothing runs; if published weights cannot be had.
        UnknownNameError: if it looks like a name, and is not one.
        InputError: if it is a name without published weights.
    """
    from repvgg.runners import RUNNERS

    named = network_named(path)
    if named is not None:
        _require_weights(named, random_weights=random_weights)
        return named
    known = (*(ending for ending in RUNNERS if ending.startswith(".")), *CHECKPOINT_SUFFIXES)
    if path.suffix not in known and not path.is_dir():
        raise FileError(
            f"'{path}' ends in none of {', '.join(known)}, and is not a SavedModel's folder; these are what can be run."
        )
    if not path.is_dir():
        require_file(path, what="network")
    return None


def require_model(path: Path, *, random_weights: bool = False) -> None:
    """`require_network` for what `load_model` takes: the content decides what kind of file it is."""
    named = network_named(path)
    if named is None:
        require_file(path, what="network")
    else:
        _require_weights(named, random_weights=random_weights)


def _require_weights(named: Variant | Repository, *, random_weights: bool) -> None:
    from repvgg.checkpoints.hub import fetch, fetch_repository

    if isinstance(named, Repository):
        fetch_repository(named)
    elif not random_weights:
        fetch(named.name)


def refuse_random_files(random_weights: bool, *networks: Path | None) -> None:
    """Raises `InputError` if random weights are wanted and no network is given by its name."""
    if random_weights and not any(path is not None and isinstance(network_named(path), Variant) for path in networks):
        raise InputError("--random-weights is about networks given by name, such as RepVGG-A0. A file has its own.")


def load_network(path: Path, *, random_weights: bool = False, device: str | None = None) -> "Runner":
    """The network in `path`, ready to run; a checkpoint's has the file's form and no class names of its own.

    Where no such file exists, a variant's name stands for its published weights, in training form.

    Args:
        random_weights: or for random ones.
        device: what Keras runs on, as `--device` says.

    Raises:
        FileError: if it is missing, damaged or of an unknown kind, or published weights cannot be had.
        UnknownNameError: if it looks like a name, and is not one.
        MissingDependencyError: if its runtime is not installed.
    """
    from repvgg.cli.progress import progress_bar
    from repvgg.cli.terminal import start_keras
    from repvgg.runners import load_runner

    named = require_network(path, random_weights=random_weights)
    check_device(device)
    if named is None and path.suffix in (*_WITHOUT_KERAS, ".repvgg") and device not in (None, "cpu"):
        raise InputError(
            f"--device {device} is for what Keras runs (.keras, checkpoints, names, SavedModels); '{path}' runs on the "
            "CPU here."
        )
    if named is None and path.suffix in _WITHOUT_KERAS:
        return load_runner(path)
    start_keras(device)
    with progress_bar(f"loading {path.name}"):
        if named is None and (path.suffix not in CHECKPOINT_SUFFIXES or path.is_dir()):
            return load_runner(path)
        from repvgg.runners.keras import KerasRunner

        name = path.name if named is None else named.name
        return KerasRunner(load_model(path, random_weights=random_weights), name=name)


def load_model(path: Path, *, random_weights: bool = False, **options: Any) -> Any:
    """The Keras model in a `.keras` file or a checkpoint, of a variant's name or of a repository; Keras is started
    already.

    Args:
        options: of `load_checkpoint`, and of `create_model` where a name is given.

    Raises:
        FileError: if it is missing, damaged or of an unknown kind, or published weights cannot be had.
        UnknownNameError: if it looks like a name, and is not one.
    """
    named = network_named(path)
    if named is None:
        from repvgg.checkpoints import load_checkpoint

        return load_checkpoint(path, **options)
    from repvgg.checkpoints.zoo import IMAGENET, create_model

    if isinstance(named, Repository):
        return create_model(str(named), **options)
    if not random_weights:
        return create_model(named.name, weights=IMAGENET, **options)
    import keras

    from repvgg.models.random_statistics import randomize_statistics

    keras.utils.set_random_seed(0)
    return randomize_statistics(create_model(named.name, **options))
