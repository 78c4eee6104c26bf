"""Which JPEG files every decoder reads alike, told from their markers (ITU-T T.81, annex B)."""

import re

FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive, with Huffman coding; arithmetic and lossless ones are not read everywhere."""

ALL_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
TABLES = frozenset({0xC4, 0xDB, 0xDD, 0xFE})
"""What may stand between two scans: Huffman and quantization tables, the restart interval, comments."""

START, ADOBE, SCAN, END = 0xD8, 0xEE, 0xDA, 0xD9

MARKER_IN_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""In the coded data 0xFF is followed by 0, or by the number of a restart; otherwise they end there."""


def is_plain_jpeg(content: bytes) -> bool:
    """True for 8-bit grey or YCbCr JPEG files of usual sampling whose markers are all in order, to the last one.

    Where they are not, libjpeg makes up for it, but what it then shows differs between programs, and some refuse.
    """
    if content[:2] != bytes([0xFF, START]):
        return False
    frame, position, scanned = b"", 2, False
    while True:
        marker, body, position = _segment(content, position)
        if marker is None or (scanned and marker not in TABLES | {SCAN, END}):
            return False
        if marker == END:
            return scanned
        if marker in ALL_FRAMES:
            if frame or marker not in FRAMES or not _usual(body):
                return False
            frame = body
        if marker == ADOBE and body.startswith(b"Adobe") and body[11:12] != b"\x01":
            # The colours are stored as RGB, not as YCbCr.
            return False
        if marker == SCAN:
            following = MARKER_IN_SCAN.search(content, position)
            if not frame or following is None:
                return False
            scanned, position = True, following.start()


def _usual(frame: bytes) -> bool:
    """8 bits; one component, or three of which the first may be finer than the others."""
    if len(frame) not in {9, 15} or frame[0] != 8 or len(frame) != 6 + 3 * frame[5]:
        return False
    names, (luma, *chroma) = frame[6::3], frame[7::3]
    # Components called "RGB" are just that. How finely a single component is sampled has no meaning.
    return len(frame) == 9 or (names != b"RGB" and luma in {0x11, 0x21, 0x12, 0x22} and set(chroma) == {0x11})


def _segment(content: bytes, position: int) -> tuple[int | None, bytes, int]:
    """The marker at `position`, what belongs to it and where that ends; None where no whole segment stands."""
    nothing = None, b"", position
    if content[position : position + 1] != b"\xff":
        return nothing
    while content[position : position + 1] == b"\xff":
        position += 1
    if position >= len(content):
        return nothing
    marker = content[position]
    if marker == END:
        return marker, b"", position + 1
    length = int.from_bytes(content[position + 1 : position + 3], "big")
    end = position + 1 + length
    return (marker, content[position + 3 : end], end) if length >= 2 and end <= len(content) else nothing
