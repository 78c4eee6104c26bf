"""A plan in a file: one safetensors file, arrays as tensors, everything else as text in its header.

Nothing in the file is code. Whatever it says is turned into a `Plan`, which checks that its layers fit together and
its arrays have the shapes they should; what a network of such a size needs is known before memory is taken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Metadata
from repvgg.engine.plan import Convolution, Dense, GlobalAverage, Layer, Plan, SqueezeExcite
from repvgg.engine.tune import Tuned

HEADER_KEY = "repvgg"
FORMAT = "repvgg-plan-1"
MAX_HEADER = 16 * 2**20
MAX_LAYERS = 10_000
MAX_TUNED = 100
"""Measured choices; the oldest give way."""

_ATTENTION_PARTS = ("down", "down_bias", "up", "up_bias")


@dataclass(frozen=True)
class PlanFile:
    """What a `.repvgg` file holds.

    Attributes:
        plan: the network, its arrays in float32.
        metadata: class names, preprocessing and so on.
        batch: images in every call; any number if None.
        image_size: (height, width) of all images; any if None.
        tuned: how layers are computed fastest, as measured on some kinds of processors.
    """

    plan: Plan
    metadata: Metadata
    batch: int | None = None
    image_size: tuple[int, int] | None = None
    tuned: tuple[Tuned, ...] = ()


def write_plan(path: Path, file: PlanFile, precision: str = "float32") -> None:
    """Writes a plan; the same plan gives the same bytes.

    Args:
        precision: what arrays are stored in, "float32" or "float16".
    """
    arrays = {name: np.ascontiguousarray(array.astype(precision)) for name, array in file.plan.arrays()}
    header = {
        "format": FORMAT,
        "plan": _plan_to_json(file.plan),
        "batch": file.batch,
        "image_size": file.image_size,
        "metadata": file.metadata.to_json(),
        "tuned": tuned_to_json(file.tuned),
    }
    # One text: safetensors writes several in no particular order.
    save_file(arrays, path, metadata={HEADER_KEY: json.dumps(header, ensure_ascii=False)})


def read_plan(path: Path) -> PlanFile:
    """Reads what `write_plan` wrote, or what somebody else made up.

    Raises:
        FileError: if it is damaged, no such file, or its layers and arrays do not fit together.
    """
    try:
        with path.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            if header_bytes > min(MAX_HEADER, path.stat().st_size):
                raise _refused(path, "it is not a safetensors file")
        with safe_open(path, framework="numpy") as opened:
            text = (opened.metadata() or {}).get(HEADER_KEY)
            if text is None:
                raise _refused(path, f"its header has no '{HEADER_KEY}'")
            arrays = {name: _array(path, name, opened) for name in opened.keys()}  # noqa: SIM118 - it is not a mapping
    except (SafetensorError, OSError) as error:
        raise _refused(path, f"safetensors says: {str(error).splitlines()[0]}") from error
    try:
        header = _object(json.loads(text), "the text")
        if header["format"] != FORMAT:
            raise InputError(f"its format is {header['format']!r}, and '{FORMAT}' was expected")
        plan = _plan_from_json(_object(header["plan"], "the plan"), arrays)
        batch, image_size = _input_of(header)
        tuned = tuple(_tuned(entry) for entry in _list(header.get("tuned", []), MAX_TUNED, "measured choices"))
        return PlanFile(plan, Metadata.from_json(_text(header["metadata"])), batch, image_size, tuned)
    except KeyError as error:
        raise _refused(path, f"it lacks {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _refused(path, str(error)) from error


def _refused(path: Path, reason: str) -> FileError:
    return FileError(f"'{path}' is not a network for the native engine, or is damaged: {reason}.")


def _array(path: Path, name: str, opened: Any) -> np.ndarray:
    kind = opened.get_slice(name).get_dtype()
    if kind not in ("F32", "F16"):
        raise _refused(path, f"its tensor '{name}' is of type {kind}, and F32 or F16 was expected")
    array: np.ndarray = opened.get_tensor(name).astype(np.float32, copy=False)
    return array


def tuned_to_json(tuned: Sequence[Tuned]) -> list[dict[str, Any]]:
    """Measured choices, as they are in a header."""
    return [asdict(entry) for entry in tuned]


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "channels": plan.channels,
        "layers": [_layer_to_json(layer) for layer in plan.layers],
        "outputs": dict(plan.outputs),
    }


def _layer_to_json(layer: Layer) -> dict[str, Any]:
    common = {"name": layer.name, "source": layer.source}
    if isinstance(layer, GlobalAverage):
        return {"kind": "global_average", **common}
    if isinstance(layer, Dense):
        return {"kind": "dense", **common, "activation": layer.activation}
    return {
        "kind": "convolution",
        **common,
        "strides": layer.strides,
        "dilations": layer.dilations,
        "groups": layer.groups,
        "pads": layer.pads,
        "activation": layer.activation,
        "attention": layer.attention.position if layer.attention else None,
    }


def _plan_from_json(fields: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Plan:
    rows = _list(fields["layers"], MAX_LAYERS, "layers")
    left = dict(arrays)
    layers = tuple(_layer_from_json(_object(row, "a layer"), left) for row in rows)
    if left:
        raise InputError(f"no layer uses its tensor '{next(iter(left))}'")
    outputs = {_text(key): _text(value) for key, value in _object(fields["outputs"], "the outputs").items()}
    return Plan(_text(fields["name"]), fields["channels"], layers, outputs)


def _layer_from_json(row: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> Layer:
    kind, name, source = row["kind"], _text(row["name"]), _text(row["source"])
    if kind == "global_average":
        return GlobalAverage(name, source)
    if kind not in ("dense", "convolution"):
        raise InputError(f"its layer '{name}' is of the unknown kind {kind!r}; a newer version may know it")
    kernel, bias = arrays.pop(f"{name}/kernel"), arrays.pop(f"{name}/bias")
    activation: Any = _text(row["activation"])
    if kind == "dense":
        return Dense(name, source, kernel, bias, activation)
    attention = None
    if row["attention"] is not None:
        down, down_bias, up, up_bias = (arrays.pop(f"{name}/attention/{part}") for part in _ATTENTION_PARTS)
        attention = SqueezeExcite(down, down_bias, up, up_bias, position=row["attention"])
    strides, dilations, pads = (tuple(row[key]) for key in ("strides", "dilations", "pads"))
    return Convolution(
        name,
        source,
        kernel,
        bias,
        strides,
        dilations,
        row["groups"],
        pads,
        activation,
        attention,
    )


def _input_of(fields: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    batch, size = fields["batch"], fields["image_size"]
    numbers = [*([] if batch is None else [batch]), *([] if size is None else size)]
    if not all(type(number) is int and number > 0 for number in numbers) or (size is not None and len(size) != 2):
        raise InputError(f"its batch is {batch!r} and its image size {size!r}")
    return batch, None if size is None else (size[0], size[1])


def _tuned(entry: Any) -> Tuned:
    fields = _object(entry, "a measured choice")
    batch, size = _input_of(fields)
    threads = fields["threads"]
    if batch is None or size is None or type(threads) is not int:
        raise InputError(f"a measured choice in its header is for batch {batch}, size {size}, threads {threads!r}")
    choices = {_text(name): _text(way) for name, way in _object(fields["choices"], "measured choices").items()}
    return Tuned(_text(fields["processor"]), batch, size, threads, choices)


def _list(value: Any, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise InputError(f"its {what} are not a list of at most {most}")
    return value


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} in its header is a {type(value).__name__}, and an object was expected")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"a name in its header is {value!r}, and a text was expected")
    return value
