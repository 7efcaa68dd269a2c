"""Zip archives, read from bytes under limits and written byte for byte the same every time.

Serves torch.save files and .npz. Source of the layout: PKWARE APPNOTE 6.3.9, sections 4.3-4.5.

What is accepted is narrower than zip, so that a file means one thing to every reader: the members
lie one after the other from byte 0, the local and the central headers agree, the directory follows
the last member and nothing follows the end record. That rules out prefixed and appended data,
overlapping members and members hidden from one of two readers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from converter.errors import FormatError, UncropError, UnsafeFileError
from converter.media.limits import DEFAULT_LIMITS, Limits

# Signatures included. Names of the fields: APPNOTE 4.3.7, 4.3.12, 4.3.14, 4.3.15, 4.3.16.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")

_ENCRYPTED = 0x2041  # bits 0, 6 and 13: traditional, strong, masked headers
_DESCRIPTOR = 0x0008  # the sizes follow the data
_UTF8 = 0x0800
_STORED, _DEFLATED = 0, 8
_ZIP64 = 0xFFFFFFFF  # "look in the zip64 extra field"

_RATIO_FLOOR = 8 * 2**20
"""Members up to this size may have any ratio: label maps and zeros compress 1000-fold."""

DAMAGED = "Copy or download it again: it is cut short or damaged."
_REPACKED = "Write it again with the program that made it; do not repack it."
_RAISE = "If it is genuine, raise the limit."


class Member(NamedTuple):
    """Where one member's bytes are, as the central directory states."""

    start: int
    """First byte of the stored data in the archive."""
    stored: int
    """Bytes in the archive."""
    size: int
    """Bytes once uncompressed."""
    crc: int
    method: int


@dataclass(frozen=True)
class Archive:
    """The members of a zip whose structure has been checked; their contents not yet."""

    data: bytes
    where: object
    members: dict[str, Member]
    total_bytes: int
    """Sum of the uncompressed sizes; at most ``limits.file_bytes``."""

    def read(self, name: str) -> bytes:
        """Contents of one member.

        Raises
        ------
        FormatError
            If there is no such member, or its data do not match its size and CRC-32.

        """
        member = self.members.get(name)
        if member is None:
            raise FormatError(f"{self.where}: {name}", "this member", "none", DAMAGED)
        content = self.data[member.start : member.start + member.stored]
        if member.method == _DEFLATED:
            content = self._inflate(name, content, member.size)
        if zlib.crc32(content) != member.crc:
            raise FormatError(
                f"{self.where}: {name}",
                f"CRC-32 {member.crc:08x}",
                f"{zlib.crc32(content):08x}",
                DAMAGED,
            )
        return content

    def _inflate(self, name: str, content: bytes, size: int) -> bytes:
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than declared shows a longer stream without inflating it.
            inflated = engine.decompress(content, size + 1)
        except zlib.error:
            raise FormatError(
                f"{self.where}: {name}", "deflated data", "something else", DAMAGED
            ) from None
        if len(inflated) != size or not engine.eof or engine.unused_data:
            found = "another length"
            raise FormatError(f"{self.where}: {name}", f"{size} bytes", found, DAMAGED)
        return inflated


def open_archive(data: bytes, where: object, limits: Limits = DEFAULT_LIMITS) -> Archive:
    """Check the structure of a zip and list its members, in file order; read no member.

    Raises
    ------
    UnsafeFileError
        If it is encrypted, exceeds a limit, repeats a name, has a name that leads out of a folder,
        holds data outside its members, or its two sets of headers disagree.
    FormatError
        If it is no zip or is damaged, uses zip64 sizes (over 4 GiB), or a compression other than
        deflate.

    """
    try:
        n_members, directory, end = _directory_of(data, where)
        if n_members > limits.members:
            raise UnsafeFileError(
                where, f"at most {limits.members} members", f"{n_members}", _RAISE
            )
        return _open(data, where, limits, n_members, directory, end)
    except struct.error:
        raise FormatError(where, "a whole zip archive", "a header cut short", DAMAGED) from None


def _directory_of(data: bytes, where: object) -> tuple[int, int, int]:
    """Number of members, and first and last + 1 byte of the central directory."""
    end = len(data) - _END.size
    if end < 0 or not data.startswith(b"PK\x05\x06", end):
        raise FormatError(where, "a whole zip archive", "one that ends early, or late", DAMAGED)
    _, disk, first_disk, here, n_members, size, start, comment = _END.unpack_from(data, end)
    if disk or first_disk or here != n_members or comment:
        raise FormatError(where, "one zip archive", "a part of one, or a comment", _REPACKED)
    if size == _ZIP64 or start == _ZIP64 or n_members == 0xFFFF:
        raise FormatError(where, "an archive below 4 GiB", "a zip64 archive", _REPACKED)
    if start + size == end:
        return n_members, start, end
    # torch always adds the two zip64 end records, even though it does not need them.
    end64 = start + size
    if end64 + _END64.size + _LOCATOR64.size != end:
        raise FormatError(where, "the zip directory before its end record", "a gap", DAMAGED)
    record = _END64.unpack_from(data, end64)
    locator = _LOCATOR64.unpack_from(data, end64 + _END64.size)
    told = (b"PK\x06\x06", _END64.size - 12, 0, 0, n_members, n_members, size, start)
    if (*record[:2], *record[4:]) != told or locator != (b"PK\x06\x07", 0, end64, 1):
        raise UnsafeFileError(where, "zip64 end records that agree", "others", _REPACKED)
    return n_members, start, end64


def _open(
    data: bytes, where: object, limits: Limits, n_members: int, directory: int, end: int
) -> Archive:
    members: dict[str, Member] = {}
    total = 0
    here = directory
    expected = 0  # where the next member has to begin
    for _ in range(n_members):
        entry = _CENTRAL.unpack_from(data, here)
        signature, _, _, flags, method, _, _, crc, stored, size = entry[:10]
        n_name, n_extra, n_comment, disk, _, _, offset = entry[10:]
        raw_name = data[here + 46 : here + 46 + n_name]
        here += 46 + n_name + n_extra + n_comment
        if signature != b"PK\x01\x02" or here > end or disk:
            raise FormatError(where, "a zip directory entry", "something else", DAMAGED)
        name = _name_of(raw_name, flags, where)
        if name in members:
            raise UnsafeFileError(f"{where}: {name}", "one member", "two of this name", _REPACKED)
        fault = _fault_of(flags, method, stored, size, limits)
        if fault is not None:
            kind, wanted, found, remedy = fault
            raise kind(f"{where}: {name}", wanted, found, remedy)
        total += size
        if total > limits.file_bytes:
            raise UnsafeFileError(
                where, f"at most {limits.file_bytes} bytes in all members", "more", _RAISE
            )
        if offset != expected:
            found = f"one at byte {offset}"
            raise UnsafeFileError(
                f"{where}: {name}", f"a member at byte {expected}", found, _REPACKED
            )
        told = (flags, method, crc, stored, size)
        start, expected = _extent_of(data, offset, raw_name, told)
        if start < 0:
            found = "others in front of and after the data"
            raise UnsafeFileError(
                f"{where}: {name}", "the sizes and the name of the zip directory", found, _REPACKED
            )
        members[name] = Member(start, stored, size, crc, method)
    if here != end or expected != directory:
        found = "bytes that belong to no member"
        raise UnsafeFileError(where, "members, then the zip directory", found, _REPACKED)
    return Archive(data, where, members, total)


def _name_of(raw: bytes, flags: int, where: object) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise FormatError(where, "a member name in UTF-8", "other bytes", DAMAGED) from None
    if "\\" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        found = repr(name[:100])
        raise UnsafeFileError(where, "member names of the form folder/name", found, _REPACKED)
    return name


def _fault_of(
    flags: int, method: int, stored: int, size: int, limits: Limits
) -> tuple[type[UncropError], str, str, str] | None:
    """Why a member must not be read, judged by the directory alone."""
    if flags & _ENCRYPTED:
        return UnsafeFileError, "plain data", "an encrypted member", _REPACKED
    if stored == _ZIP64 or size == _ZIP64:
        return FormatError, "a member below 4 GiB", "a zip64 member", _REPACKED
    if method not in (_STORED, _DEFLATED):
        return FormatError, "a stored or deflated member", f"method {method}", _REPACKED
    if size > limits.member_bytes:
        return UnsafeFileError, f"at most {limits.member_bytes} bytes", f"{size}", _RAISE
    if method == _STORED:
        if size != stored:
            return FormatError, f"{size} stored bytes", f"{stored}", DAMAGED
    elif size > max(limits.member_ratio * stored, _RATIO_FLOOR):
        found = f"{stored} bytes that grow to {size}"
        return UnsafeFileError, f"at most {limits.member_ratio}-fold compression", found, _RAISE
    return None


def _extent_of(
    data: bytes, offset: int, raw_name: bytes, told: tuple[int, int, int, int, int]
) -> tuple[int, int]:
    """First byte of a member's data and of what follows it; (-1, -1) if its headers disagree.

    ``told`` is what the directory says: flags, method, CRC-32, stored and uncompressed size.
    """
    local = _LOCAL.unpack_from(data, offset)
    flags, method, crc, stored, size = told
    n_name, n_extra = local[9:]
    name_at = offset + _LOCAL.size
    start = name_at + n_name + n_extra
    after = start + stored
    agrees = (
        local[0] == b"PK\x03\x04"
        and local[2:4] == told[:2]
        and n_name == len(raw_name)
        and data.startswith(raw_name, name_at)
    )
    sizes = local[6:9]
    if flags & _DESCRIPTOR:
        n_descriptor = _descriptor_bytes(data, after, told[2:])
        left_open = ((0, 0, 0), (0, _ZIP64, _ZIP64))
        agrees = agrees and n_descriptor > 0 and (sizes in left_open or sizes == told[2:])
        after += n_descriptor
    elif sizes == (crc, _ZIP64, _ZIP64):
        # numpy.savez announces zip64 in front of the data, whatever the size.
        agrees = agrees and n_extra >= 20
        agrees = agrees and data.startswith(
            struct.pack("<2H2Q", 1, 16, size, stored), start - n_extra
        )
    else:
        agrees = agrees and sizes == told[2:]
    return (start, after) if agrees and after <= len(data) else (-1, -1)


def _descriptor_bytes(data: bytes, here: int, sizes: tuple[int, int, int]) -> int:
    """Length of the data descriptor that repeats ``sizes``; 0 if there is none (APPNOTE 4.3.9)."""
    plain, wide = struct.pack("<3I", *sizes), struct.pack("<I2Q", *sizes)
    # The wide forms first: those of an empty member begin like the plain ones.
    for descriptor in (b"PK\x07\x08" + wide, b"PK\x07\x08" + plain, wide, plain):
        if data.startswith(descriptor, here):
            return len(descriptor)
    return 0


def zip_bytes(members: Iterable[tuple[str, bytes]], alignment: int = 64) -> bytes:
    """A zip of stored members whose data begin at multiples of ``alignment``, dated 1980-01-01.

    The padding is an extra field with the id "FB", as in torch.save files.
    """
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, content in members:
        raw = name.encode()
        padding = -(offset + _LOCAL.size + len(raw) + 4) % alignment
        extra = struct.pack("<2s1H", b"FB", padding) + b"Z" * padding
        crc, size = zlib.crc32(content), len(content)
        # Version 1.0 suffices to read it; 0x21 is the first of January 1980.
        common = (10, _UTF8, _STORED, 0, 0x21, crc, size, size, len(raw))
        parts += [_LOCAL.pack(b"PK\x03\x04", *common, len(extra)), raw, extra, content]
        directory += [
            _CENTRAL.pack(b"PK\x01\x02", 10, *common, 0, 0, 0, 0, 0, offset),
            raw,
        ]
        offset += _LOCAL.size + len(raw) + len(extra) + size
    n_members, n_bytes = len(directory) // 2, sum(map(len, directory))
    end = _END.pack(b"PK\x05\x06", 0, 0, n_members, n_members, n_bytes, offset, 0)
    return b"".join([*parts, *directory, end])
