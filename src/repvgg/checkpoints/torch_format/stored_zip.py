"""The members of an uncompressed zip archive, as places in the file.

torch stores its members uncompressed, so a tensor's bytes lie in the file as they are and can be memory mapped. This
reader is strict where `zipfile` is lenient: two readers that disagree about a file are how hostile archives hide
things, so names, sizes and places must agree, and no byte may belong to two members.
"""

import struct
import zlib
from dataclasses import dataclass

from repvgg.base.errors import CheckpointError
from repvgg.checkpoints.errors import damaged, shown

MAX_MEMBERS = 100_000
_MAX_NAME = 512
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_KNOWN_FLAGS = 0x0808  # sizes follow the data; names are UTF-8
_CRC_CHUNK = 2**24


@dataclass(frozen=True, slots=True)
class Member:
    """One stored file: `size` bytes from byte `start` of the archive on."""

    name: str
    start: int
    size: int
    checksum: int


def list_members(archive: memoryview) -> dict[str, Member]:
    """Reads the directory of an archive and checks every entry against the member it points to.

    Args:
        archive: The whole file.

    Returns:
        The members by name, in the order of the directory; folders are left out.

    Raises:
        CheckpointError: It is truncated, contradicts itself, is compressed or encrypted, or has names that lead out.
    """
    directory, count, directory_start = _directory(archive)
    members: dict[str, Member] = {}
    spans: list[tuple[int, int]] = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise damaged("The zip archive lists fewer members than it claims.")
        fields = _CENTRAL.unpack_from(directory, position)
        name_end = position + _CENTRAL.size + fields[10]
        extra_end = name_end + fields[11]
        if fields[0] != b"PK\x01\x02" or extra_end + fields[12] > len(directory):
            raise damaged("The zip archive's list of members is unreadable.")
        raw_name = bytes(directory[position + _CENTRAL.size : name_end])
        entry = _Entry(raw_name, bytes(directory[name_end:extra_end]), fields)
        position = extra_end + fields[12]
        member, header_start = _locate(archive, entry, directory_start)
        if member.name in members:
            raise damaged(f"The zip archive holds '{shown(member.name)}' twice.")
        spans.append((header_start, member.start + member.size))
        if not member.name.endswith("/"):
            members[member.name] = member
    if position != len(directory):
        raise damaged("The zip archive lists more members than it claims.")
    _refuse_overlap(spans)
    return members


def member_bytes(archive: memoryview, member: Member) -> memoryview:
    """Gives a member's bytes without copying them, after comparing them with its checksum.

    torch can be told to write no checksums; it then writes 0, and nothing is compared.
    """
    content = archive[member.start : member.start + member.size]
    if member.checksum:
        checksum = 0
        for begin in range(0, member.size, _CRC_CHUNK):
            checksum = zlib.crc32(content[begin : begin + _CRC_CHUNK], checksum)
        if checksum != member.checksum:
            raise damaged(f"The content of '{shown(member.name)}' does not match its checksum.")
    return content


def _directory(archive: memoryview) -> tuple[memoryview, int, int]:
    end_start = _find_end(archive)
    _, disk, first_disk, here, count, size, start, _ = _END.unpack_from(archive, end_start)
    limit = end_start
    locator_start = end_start - _LOCATOR64.size
    if locator_start >= 0 and bytes(archive[locator_start : locator_start + 4]) == b"PK\x06\x07":
        _, disk64, limit, _ = _LOCATOR64.unpack_from(archive, locator_start)
        if disk64 or limit + _END64.size > locator_start:
            raise damaged("The zip archive's end record points outside the file.")
        signature, _, _, _, disk, first_disk, here64, count64, size64, start64 = _END64.unpack_from(archive, limit)
        if signature != b"PK\x06\x06":
            raise damaged("The zip archive's end record is unreadable.")
        pairs = ((here, here64, 16), (count, count64, 16), (size, size64, 32), (start, start64, 32))
        if any(short not in (long, 2**bits - 1) for short, long, bits in pairs):
            raise damaged("The zip archive's two end records differ.")
        here, count, size, start = here64, count64, size64, start64
    if disk or first_disk or here != count or start + size != limit:
        raise damaged("The zip archive's list of members is not where its end record says.")
    if count > MAX_MEMBERS:
        raise damaged(f"The zip archive claims {count:,} members; {MAX_MEMBERS:,} at most were expected.")
    return archive[start : start + size], count, start


def _find_end(archive: memoryview) -> int:
    # A comment of up to 65,535 bytes may follow the end record, and must then reach exactly to the end of the file.
    tail_start = max(0, len(archive) - _END.size - 0xFFFF)
    tail = bytes(archive[tail_start:])
    found = tail.rfind(b"PK\x05\x06")
    while found >= 0:
        if found + _END.size <= len(tail):
            comment_length = int.from_bytes(tail[found + 20 : found + 22], "little")
            if found + _END.size + comment_length == len(tail):
                return tail_start + found
        found = tail.rfind(b"PK\x05\x06", 0, found)
    raise damaged("The zip archive has no end: it was cut off while being written, copied or downloaded.")


class _Entry:
    """One line of the directory, with the 64-bit numbers put in where the short fields could not hold them."""

    def __init__(self, raw_name: bytes, extra: bytes, fields: tuple[int, ...]) -> None:
        self.raw_name = raw_name
        self.name = _checked_name(raw_name)
        self.flags, self.method = fields[3], fields[4]
        self.checksum = fields[7]
        self.disk = fields[13]
        large = iter(_large_numbers(extra))
        self.packed, self.size, self.header_start = fields[8], fields[9], fields[16]
        try:
            self.size = next(large) if self.size == 0xFFFFFFFF else self.size
            self.packed = next(large) if self.packed == 0xFFFFFFFF else self.packed
            self.header_start = next(large) if self.header_start == 0xFFFFFFFF else self.header_start
        except StopIteration:
            raise damaged(f"The zip archive lacks the size or place of '{shown(self.name)}'.") from None


def _large_numbers(extra: bytes) -> list[int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            content = extra[position : position + length]
            return [int.from_bytes(content[i : i + 8], "little") for i in range(0, len(content) - 7, 8)]
        position += length
    return []


def _checked_name(raw_name: bytes) -> str:
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError:
        raise damaged("The zip archive has a member whose name is not text.") from None
    parts = name.removesuffix("/").split("/")
    # Nothing is ever unpacked to a name, but an archive that tries to leave its folder is not torch's.
    if len(raw_name) > _MAX_NAME or "\\" in name or "\0" in name or ":" in parts[0] or {"", ".", ".."} & set(parts):
        raise damaged(f"The zip archive has a member called '{shown(name)}', which torch does not write.")
    return name


def _locate(archive: memoryview, entry: _Entry, directory_start: int) -> tuple[Member, int]:
    shown_name = shown(entry.name)
    if entry.method != 0 or entry.packed != entry.size:
        raise CheckpointError(
            f"The zip archive's member '{shown_name}' is compressed; torch stores its members as they are. "
            "If you packed it yourself, unpack it and pack it again without compression (zip -0), or save it again."
        )
    if entry.flags & ~_KNOWN_FLAGS or entry.disk:
        raise damaged(f"The zip archive's member '{shown_name}' is encrypted, or of a kind torch does not write.")
    if entry.header_start + _LOCAL.size > directory_start:
        raise damaged(f"The zip archive's member '{shown_name}' lies outside the file.")
    fields = _LOCAL.unpack_from(archive, entry.header_start)
    name_start = entry.header_start + _LOCAL.size
    start = name_start + fields[9] + fields[10]
    if fields[0] != b"PK\x03\x04" or fields[3] != entry.method or fields[2] & ~_KNOWN_FLAGS:
        raise damaged(f"The zip archive's member '{shown_name}' does not begin where the list says.")
    if bytes(archive[name_start : name_start + fields[9]]) != entry.raw_name:
        raise damaged(f"The zip archive's member '{shown_name}' has another name in its own header.")
    if start + entry.size > directory_start:
        raise damaged(f"The zip archive's member '{shown_name}' claims {entry.size:,} bytes, more than the file holds.")
    return Member(entry.name, start, entry.size, entry.checksum), entry.header_start


def _refuse_overlap(spans: list[tuple[int, int]]) -> None:
    end = 0
    for start, stop in sorted(spans):
        if start < end:
            raise damaged("The zip archive has members that share bytes.")
        end = stop
