"""A Keras model, or a file of one, compiled for this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError
from repvgg.engine import Engine, Tuned, compile_plan
from repvgg.engine.tune import SECONDS
from repvgg.targets.native.file import read_plan
from repvgg.targets.native.plan import plan_of
from repvgg.targets.native.tuned import add_tuned, require_rewritable

IMAGE_SIZE = 224
"""Of networks that take images of any size, if nothing is said."""


def compile(  # noqa: A001 - what it does, and what compilers' own functions are called
    model: Any,
    *,
    batch: int | None = None,
    image_size: int | Sequence[int] | None = None,
    threads: int | None = None,
    max_isa: str | None = None,
    tune: bool = False,
    tune_seconds: float = SECONDS,
) -> Engine:
    """Compiles a network to machine code for the processor it runs on.

    Args:
        model: a Keras model, which is converted first if it is in training form, or a `.repvgg` file.
        batch: images in every call; 1, or what the model fixes, if None.
        image_size: height and width of images, or one number for both; 224, or what the model fixes, if None.
        threads: how many it runs on; as many as this process has cores if None.
        max_isa: use no more than this instruction set ("avx2", "avx512").
        tune: measure which way of computing each layer is fastest here. For a `.repvgg` file the choice is kept in it:
            from then on whoever loads the file on a processor of this kind, with the same batch, image size and
            threads, has it at once.
        tune_seconds: about how long is measured.

    Returns:
        A callable from images (batch, height, width, channels), normalized, in float32, to its first output, such as
        logits (batch, classes). It was compared with the plain form of the network on random images.

    Raises:
        InputError: if a layer is outside the engine's reach (the message names it), an argument is out of range, or
            this machine has no fused multiply-add.
        FileError: if the file is missing or damaged, or a choice cannot be kept in it.
        MissingDependencyError: if llvmlite is not installed: pip install 'repvgg[engine]'.
        VerificationError: if a conversion or the compiled network is not exact.

    Example:
        >>> engine = compile(model, batch=1, image_size=224, threads=2)
        >>> engine(images).shape                      # images: (1, 224, 224, 3), float32
        (1, 1000)
    """
    own_batch: int | None
    own_size: tuple[int, int] | None
    tuned: tuple[Tuned, ...] = ()
    path = Path(model) if isinstance(model, str | Path) else None
    if path is not None:
        from repvgg.base.files import require_file

        require_file(path, what="model")
        if tune:
            require_rewritable(path)
        file = read_plan(path)
        plan, own_batch, own_size, tuned = file.plan, file.batch, file.image_size, file.tuned
    else:
        import keras

        if not isinstance(model, keras.Model):
            raise InputError(f"A keras.Model or a .repvgg file was expected. Received: {type(model).__name__}.")
        plan = plan_of(_deployed(model))
        own_batch, height, width, _ = model.inputs[0].shape
        own_size = None if height is None or width is None else (height, width)
    engine = compile_plan(
        plan,
        batch=own_batch or 1 if batch is None else batch,
        image_size=own_size or IMAGE_SIZE if image_size is None else image_size,
        threads=threads,
        max_isa=max_isa,
        tune=tune,
        seconds=tune_seconds,
        tuned=tuned,
    )
    if tune and path is not None:
        add_tuned(path, Tuned.of(engine.schedule))
    return engine


def _deployed(model: Any) -> Any:
    from repvgg.blocks import ReparameterizableBlock
    from repvgg.conversion import reparameterize
    from repvgg.models.layers import all_layers

    converts = any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model))
    return reparameterize(model) if converts else model
