"""Which JPEG files every decoder reads alike, told from their markers (ITU-T T.81, annex B)."""

from pathlib import Path
from typing import BinaryIO

FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive, with Huffman coding; arithmetic and lossless ones are not read everywhere."""

ALL_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START, END = b"\xff\xd8", b"\xff\xd9"
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
APP14, SCAN = 0xEE, 0xDA


def is_plain_jpeg(path: Path) -> bool:
    """True for 8-bit grey or YCbCr JPEG files of usual sampling that end as they should."""
    with path.open("rb") as file:
        if file.read(2) != START:
            return False
        frame, plain = b"", True
        while True:
            marker, body = _segment(file)
            if marker == SCAN or marker is None:
                break
            if marker in ALL_FRAMES:
                plain &= marker in FRAMES and not frame
                frame = body
            if marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
                # 0 would be RGB as it is.
                plain &= body[11] == 1
        file.seek(-2, 2)
        return plain and marker == SCAN and _usual(frame) and file.read() == END


def _usual(frame: bytes) -> bool:
    if len(frame) < 9 or frame[0] != 8:
        return False
    components = frame[5]
    if components == 1:
        return True
    if components != 3 or len(frame) < 15:
        return False
    numbers, (luma, *chroma) = (
        [frame[6 + 3 * index] for index in range(3)],
        [frame[7 + 3 * index] for index in range(3)],
    )
    # Components called "RGB" are just that.
    return numbers != list(b"RGB") and luma in {0x11, 0x21, 0x12, 0x22} and chroma == [0x11, 0x11]


def _segment(file: BinaryIO) -> tuple[int | None, bytes]:
    """The next marker and what belongs to it; None at the end or where something else stands."""
    if file.read(1) != b"\xff":
        return None, b""
    code = b"\xff"
    while code == b"\xff":
        code = file.read(1)
    if not code:
        return None, b""
    if code[0] in STANDALONE:
        return code[0], b""
    length = int.from_bytes(file.read(2), "big")
    return (code[0], file.read(length - 2)) if length >= 2 else (None, b"")
