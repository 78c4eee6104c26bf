"""torch's element types and NumPy's: one table for reading and for writing."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np


class ElementType(NamedTuple):
    """One row: torch's dtype name, torch's storage class (None: only untyped storages hold it), NumPy's dtype."""

    torch_name: str
    storage_class: str | None
    numpy: np.dtype[Any]


# Files of torch are little-endian unless they say otherwise, so the byte order is stated, not the machine's own.
ELEMENT_TYPES = (
    ElementType("float64", "DoubleStorage", np.dtype("<f8")),
    ElementType("float32", "FloatStorage", np.dtype("<f4")),
    ElementType("float16", "HalfStorage", np.dtype("<f2")),
    ElementType("bfloat16", "BFloat16Storage", np.dtype(ml_dtypes.bfloat16)),
    ElementType("complex128", "ComplexDoubleStorage", np.dtype("<c16")),
    ElementType("complex64", "ComplexFloatStorage", np.dtype("<c8")),
    ElementType("int64", "LongStorage", np.dtype("<i8")),
    ElementType("int32", "IntStorage", np.dtype("<i4")),
    ElementType("int16", "ShortStorage", np.dtype("<i2")),
    ElementType("int8", "CharStorage", np.dtype("i1")),
    ElementType("uint8", "ByteStorage", np.dtype("u1")),
    ElementType("bool", "BoolStorage", np.dtype("?")),
    ElementType("uint64", None, np.dtype("<u8")),
    ElementType("uint32", None, np.dtype("<u4")),
    ElementType("uint16", None, np.dtype("<u2")),
)
