"""`repvgg export`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from repvgg.base.errors import InputError
from repvgg.cli.networks import RANDOM_HELP, load_model, refuse_random_files, require_model
from repvgg.cli.terminal import FORCE_HELP


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A .keras file, a PyTorch checkpoint, or a name such as RepVGG-A0, which stands for its published "
            "weights. A training form is converted first."
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            help="What to write: model.onnx, model.xml (OpenVINO), model.tflite, a folder (SavedModel), model.keras, "
            "model.repvgg (the engine), model.o (an object file, with model.h beside it)."
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="onnx, openvino, litert, savedmodel, keras, native or object; what the output's ending says if not "
            "given.",
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32; float16 for weights of half the size; int8 for a quarter, and for speed.")
    ] = "float32",
    batch: Annotated[int | None, typer.Option(min=1, help="Fix the number of images in a call.")] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", "--image-size", help="Fix the images' size: 224, or height and width: 224x320."),
    ] = None,
    softmax: Annotated[bool, typer.Option("--softmax", help="Give probabilities instead of logits.")] = False,
    with_preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="Take pixels in uint8, resized already, and normalize them inside."),
    ] = False,
    integer_io: Annotated[
        str | None,
        typer.Option(
            "--integer-io",
            help="For int8 in LiteRT: images and answers in int8 or uint8, with scale and zero point, for "
            "microcontrollers and Edge TPUs.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="For int8: a folder of images like those the network will get.")
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--evaluate",
            help="For int8: a folder of class folders to measure accuracy on; agreement on the calibration images "
            "counts if not given.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, help="For int8: points of accuracy, or percent of images, that may be lost; 1 by default."),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(help="For int8: naive, default, fallback, ... (docs/int8.md); what is good enough if not given."),
    ] = None,
    processor: Annotated[
        str | None,
        typer.Option(
            help="For int8: portable (the default; right on every processor), vnni (8 bits for x86 with VNNI), or "
            "this. For .o: x86-64-v3 (the default; AVX2), x86-64-v4 (AVX-512), ..."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="For .o: at most so many in a call; 4 by default.")] = None,
    count: Annotated[
        int | None, typer.Option("--calibration-count", min=1, help="For int8: images at most; 256 by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="For int8: which images these are; 0 by default.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--report", help="For int8: write a PNG of what it costs each layer, and a table.")
    ] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help=RANDOM_HELP)] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Writes a model for another runtime, loads the file there, and keeps it only if its answers are the same.

    In int8 they cannot be quite the same; there it is kept if it is about as good, which is measured.

    Example: repvgg export model.keras model.tflite --precision float16 --size 224
    """
    from repvgg.base.files import refuse_existing
    from repvgg.base.processor import PORTABLE, get_processor
    from repvgg.cli.int8 import print_int8
    from repvgg.cli.progress import progress_bar
    from repvgg.cli.terminal import console, human_size, start_keras
    from repvgg.cli.verify import print_report
    from repvgg.targets import format_of
    from repvgg.targets.int8 import INT8, require_faithful

    refuse_existing(output, force=force)
    refuse_random_files(random_weights, source)
    target = target or format_of(output)
    if target == "object":
        from repvgg.targets.object.run import require_runnable
        from repvgg.targets.object.write import PROCESSOR

        require_runnable(processor or PROCESSOR)
    elif processor is not None:
        get_processor(processor)
    if precision == INT8 and evaluation is not None:
        require_faithful(target, processor or PORTABLE)
    image_size = both_sides(size)
    require_model(source, random_weights=random_weights)
    start_keras()
    from repvgg.exporting import export

    with progress_bar("quantizing" if precision == "int8" else "exporting"):
        result = export(
            load_model(source, random_weights=random_weights),
            output,
            target,
            precision,
            batch=batch,
            image_size=image_size,
            softmax=softmax,
            with_preprocessing=with_preprocessing,
            integer_io=integer_io,
            calibration=calibration,
            evaluation=evaluation,
            max_drop=max_drop,
            scheme=scheme,
            processor=processor,
            threads=threads,
            calibration_count=count,
            seed=seed,
            picture=picture,
            force=force,
        )
    out = console()
    if result.converted:
        out.print(f"{source} is in training form; it was converted first.", soft_wrap=True)
    if result.int8 is None:
        print_report(out, result.report, rows=0)
    else:
        print_int8(out, result.int8)
    if picture is not None:
        out.print(f"Picture: {picture}", soft_wrap=True)
    out.print(f"Written: {result.path} ({human_size(result.size)})", soft_wrap=True)


def both_sides(text: str | None) -> tuple[int, int] | None:
    """Height and width from an option's text, such as 224 or 224x320."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise InputError(f"--size is a number of pixels such as 224, or height and width: 224x320. Received: '{text}'.")
    height, width = match.groups()
    return int(height), int(width or height)
