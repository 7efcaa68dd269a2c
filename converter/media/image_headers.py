"""Size and kind of a PNG or JPEG by its header, and what must hold before a decoder sees it.

Formats: https://www.w3.org/TR/png-3/ (5 and 11.2.1), ITU-T T.81 (annex B) for JPEG, Exif 2.32 (4.6)
for the orientation. Only what is asked for is parsed. Work is bounded by the number of parts, not
only by bytes: a file of 16 MB can hold a million empty segments, and a general parser keeps each.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from converter.errors import FormatError, UnsafeFileError
from converter.geometry.pixels import Size
from converter.media.limits import Limits

Kind = Literal["PNG", "JPEG"]

_PNG = b"\x89PNG\r\n\x1a\n"
PNG_CHUNK = struct.Struct(">I4s")
_PNG_HEADER = struct.Struct(">I4sII")
_JPEG = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff+([^\xff\x00])", re.DOTALL)
_END_OF_JPEG = b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
"""Markers without a segment."""
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112

_MAX_PARTS_BEFORE_PIXELS = 1000
_MAX_BYTES_BEFORE_PIXELS = 16 << 20
"""Of a JPEG: colour profiles and depth maps of telephones are some MB, in segments of 64 KB."""
MAX_CHUNKS = 200_000
"""Of a whole PNG. 64 megapixels in libpng's chunks of 8 KiB are 24,000."""
_MAX_SCANS = 16
"""Scans of a JPEG of ``limits.image_pixels``, in proportion more of a smaller one: a decoder goes
over all pixels for each, and thousands fit into some KB (libjpeg-turbo's audit, LJT-01-004)."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an image announces.

    Attributes
    ----------
    kind
        Its format, by its first bytes.
    size
        As decoders give it: a JPEG is turned by its EXIF orientation.

    """

    kind: Kind
    size: Size


def read_header(data: bytes, where: str, limits: Limits) -> Header:
    """Read the header of ``data``, which may end after it.

    Raises
    ------
    FormatError
        If it is neither PNG nor JPEG, or the header is damaged or ends early.
    UnsafeFileError
        If it announces more than ``limits.image_pixels``, or has thousands of parts.

    """
    if data.startswith(_PNG):
        header = Header("PNG", _png_size(data, where))
    elif data.startswith(_JPEG):
        header = Header("JPEG", _jpeg_size(data, where))
    else:
        found = "an empty file" if not data else f"one that begins with {data[:8]!r}"
        raise FormatError(where, "a PNG or JPEG image", found)
    if header.size.n_pixels > limits.image_pixels:
        raise UnsafeFileError(
            where,
            f"at most {limits.image_pixels / 1e6:g} megapixels",
            f"{header.size} by its header",
            "If it is genuine, raise the limit.",
        )
    return header


def require_whole(data: bytes, where: str, limits: Limits) -> Header:
    """Read the header, and check what decoders check late or not at all.

    PNG: every chunk has its checksum, up to the end. JPEG: it ends, and has few scans.

    Raises
    ------
    FormatError, UnsafeFileError
        As `read_header`, and if the file is damaged or ends early.

    """
    header = read_header(data, where, limits)
    if header.kind == "PNG":
        _require_whole_png(data, where)
        return header
    # Decoders fill the missing rows of a truncated file with grey and only warn.
    if _END_OF_JPEG not in data[-4096:]:
        raise FormatError(where, "a whole JPEG file", "one that ends early")
    n_scans = data.count(_START_OF_SCAN)
    most = _MAX_SCANS * max(1, limits.image_pixels // header.size.n_pixels)
    if n_scans > most:
        raise UnsafeFileError(
            where, f"a {header.size} JPEG of at most {most} scans", f"{n_scans}", "Save it again."
        )
    return header


def _size(width: int, height: int, where: str) -> Size:
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise FormatError(where, "an image with a size", f"{width}x{height}")
    return Size(width, height)


def _too_many(where: str, what: str, most: int) -> UnsafeFileError:
    return UnsafeFileError(where, f"at most {most:,} {what}", "more of them", "Save it again.")


# --- PNG ------------------------------------------------------------------------------------------


def _png_size(data: bytes, where: str) -> Size:
    """Size by IHDR; refuses animations, and crowds of chunks before the pixels."""
    if len(data) < 33 or data[8:16] != b"\0\0\0\rIHDR":
        raise FormatError(where, "a PNG image", "one whose header is damaged or ends early")
    _, _, width, height = _PNG_HEADER.unpack_from(data, 8)
    here = 8
    for _ in range(_MAX_PARTS_BEFORE_PIXELS):
        if here + 8 > len(data):
            break
        length, kind = PNG_CHUNK.unpack_from(data, here)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"acTL":  # what its first picture is depends on the decoder
            raise FormatError(where, "a still PNG image", "an animation")
        here += 12 + length
    else:
        raise _too_many(where, "chunks before the pixels", _MAX_PARTS_BEFORE_PIXELS)
    return _size(width, height, where)


def _require_whole_png(data: bytes, where: str) -> None:
    """Compare all chunks with their checksums, which decoders do late or not at all."""
    here, view, n_chunks = 8, memoryview(data), 0
    while here + 12 <= len(data):
        length, kind = PNG_CHUNK.unpack_from(data, here)
        end = here + 8 + length
        if zlib.crc32(view[here + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            found = "one that is damaged or ends early"
            raise FormatError(where, "a whole PNG file", found, "Copy or write it again.")
        if kind == b"IEND":
            return
        here, n_chunks = end + 4, n_chunks + 1
        if n_chunks > MAX_CHUNKS:
            raise _too_many(where, "chunks", MAX_CHUNKS)
    raise FormatError(where, "a whole PNG file", "one that ends early")


# --- JPEG -----------------------------------------------------------------------------------------


def _jpeg_size(data: bytes, where: str) -> Size:
    """Size by the frame header, turned by the first Exif segment, as cv2.imread does."""
    size, orientation, here = None, None, 2
    for _ in range(_MAX_PARTS_BEFORE_PIXELS):
        found = _MARKER.search(data, here)
        if found is None or here > _MAX_BYTES_BEFORE_PIXELS:
            break
        marker, here = found[1][0], found.end()
        if marker in _ALONE:
            continue
        if marker == _SCAN:
            if size is None:
                break
            return Size(size.height, size.width) if orientation in (5, 6, 7, 8) else size
        length = int.from_bytes(data[here : here + 2], "big")
        segment = data[here + 2 : here + length]
        if marker == _END or length < 2 or len(segment) < length - 2:
            break
        if marker in _FRAMES and len(segment) >= 6:
            height, width = struct.unpack_from(">HH", segment, 1)
            size = _size(width, height, where)
        elif marker == _APP1 and orientation is None and segment.startswith(_EXIF):
            orientation = _exif_orientation(segment[len(_EXIF) :])
        here += length
    else:
        raise _too_many(where, "segments before the pixels", _MAX_PARTS_BEFORE_PIXELS)
    raise FormatError(where, "a JPEG image", "one whose header is damaged or ends early")


def _exif_orientation(tiff: bytes) -> int:
    """Orientation 1..8 by the first directory; 0 where it says nothing that a decoder obeys."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 0
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    if at + 2 > len(tiff):
        return 0
    (n_entries,) = struct.unpack_from(f"{order}H", tiff, at)
    for entry in range(at + 2, min(at + 2 + 12 * n_entries, len(tiff) - 11), 12):
        tag, value = struct.unpack_from(f"{order}H6xH", tiff, entry)
        if tag == _ORIENTATION:
            return int(value)
    return 0
