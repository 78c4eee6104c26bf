"""An object file with the weights inside, and the C header that goes with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError
from repvgg.base.metadata import Metadata
from repvgg.engine import build, isa_for
from repvgg.engine.choose import choose
from repvgg.engine.library import library, workspace_bytes
from repvgg.engine.program import Program
from repvgg.targets import Settings
from repvgg.targets.native.plan import plan_of
from repvgg.targets.network import image_shape
from repvgg.targets.object.description import Description

PROCESSOR = "x86-64-v3"
"""AVX2 and FMA: x86 processors since 2013 (Intel) and 2015 (AMD)."""

THREADS = 4
"""How many a call may ask for, if nothing else is said. Memory grows a little with each."""

HEADER = ".h"


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers, and a header of the same name beside it.

    Raises:
        InputError: if the image size is open, or the engine cannot compile a layer; the message names it.
        UnknownNameError: for an unknown processor.
    """
    batch, height, width, channels = image_shape(model, settings, "Object")
    if height is None or width is None:
        raise InputError(f"An object file is made for images of one size, and '{model.name}' takes any.")
    processor = settings.processor or PROCESSOR
    plan = plan_of(model, softmax=settings.softmax)
    schedule = choose(
        plan, isa_for(processor), batch=batch or 1, image_size=(height, width), threads=settings.threads or THREADS
    )
    program = build(plan, schedule)
    description = Description(
        input_shape=(batch or 1, height, width, channels),
        outputs={name: output.shape for name, output in program.outputs.items()},
        workspace=workspace_bytes(program),
        threads=schedule.threads,
        processor=processor,
        metadata=metadata.to_json(),
    )
    path.write_bytes(library(program, description.to_json()))
    path.with_suffix(HEADER).write_text(_header(path.stem, program, description, metadata), encoding="utf-8")


def _header(name: str, program: Program, description: Description, metadata: Metadata) -> str:
    batch, height, width, channels = description.input_shape
    floats = program.output_bytes // 4
    shapes = "\n".join(
        f" *   {output}: {' x '.join(map(str, item.shape))}, from outputs[{item.offset}] on"
        for output, item in program.outputs.items()
    )
    preprocessing = metadata.preprocessing
    pixels = ""
    if preprocessing is not None:
        pixels = (
            f"\n/* (pixel / 255 - mean) / std for each channel; shorter side resized to {preprocessing.resize}, centre "
            f"{preprocessing.crop} x {preprocessing.crop}. */\n"
            f"{_floats('repvgg_mean', preprocessing.mean)}\n{_floats('repvgg_std', preprocessing.std)}\n"
        )
    classes = ""
    if metadata.class_names:
        names = ",\n".join(f"    {json.dumps(label, ensure_ascii=False)}" for label in metadata.class_names)
        classes = (
            f"\n#define REPVGG_CLASSES {len(metadata.class_names)}\n"
            f"static const char *const repvgg_class_names[REPVGG_CLASSES] = {{\n{names}\n}};\n"
        )
    return f"""/* {name}: a network compiled for {description.processor}, to be linked with {name}.o and -lpthread. */
#ifndef REPVGG_RUN_H
#define REPVGG_RUN_H

#define REPVGG_BATCH {batch}
#define REPVGG_HEIGHT {height}
#define REPVGG_WIDTH {width}
#define REPVGG_CHANNELS {channels}
#define REPVGG_IMAGE_FLOATS {batch * height * width * channels}
#define REPVGG_OUTPUT_FLOATS {floats}
#define REPVGG_WORKSPACE_BYTES {description.workspace}
#define REPVGG_MAX_THREADS {description.threads}

#define REPVGG_OK 0
#define REPVGG_NOT_FINITE 1  /* NaN or infinity in images, outputs or between them; outputs mean nothing */
#define REPVGG_BAD_THREADS 2 /* threads below 1 or above REPVGG_MAX_THREADS; nothing was computed */

#ifdef __cplusplus
extern "C" {{
#endif

/* images: REPVGG_IMAGE_FLOATS normalized numbers, [image][row][column][channel].
 * outputs: REPVGG_OUTPUT_FLOATS numbers:
{shapes}
 * workspace: REPVGG_WORKSPACE_BYTES of memory, all zero before the first call (calloc) and left alone afterwards.
 * Calls at the same time are fine with a workspace each. Threads are started and ended by every call. */
int repvgg_run(const float *images, float *outputs, void *workspace, int threads);

#ifdef __cplusplus
}}
#endif
{pixels}{classes}
#endif
"""


def _floats(name: str, values: Sequence[float]) -> str:
    return f"static const float {name}[{len(values)}] = {{{', '.join(f'{value!r}f' for value in values)}}};"
