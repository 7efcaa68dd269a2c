"""The upper rows of a png, without the work of decoding the rest.

Its rows follow each other in one deflate stream, each filtered by itself or against the row above
(https://www.w3.org/TR/png-3/, 7 and 9). Decoders give whole images only. So the stream is inflated
as far as wanted, and a decoder gets what came out as a png of fewer rows.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from converter.errors import FormatError
from converter.media.files import open_regular
from converter.media.image_headers import MAX_CHUNKS, PNG_CHUNK, read_header
from converter.media.images import decode_image
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import Image

_HEAD_BYTES, _MOST_AT_ONCE = 1 << 16, 1 << 24
_HEADER = struct.Struct(">II5B")
_SIGNATURE_BYTES, _CHECKSUM_BYTES = 8, 4
_CHANNELS = {0: 1, 2: 3, 6: 4}
"""By colour type: grey, RGB, RGBA."""
_USUAL_RATIO = 2
"""By how much rows are compressed at the least, as a rule."""


def read_upper_rows(path: Path | str, n_rows: int, limits: Limits = DEFAULT_LIMITS) -> Image | None:
    """Read the first rows of a png of 8 bits; checksums are not compared.

    Returns
    -------
    (n_rows, W, 3) uint8, blue first, as `converter.media.images.read_image` gives them; None where
    it is a file of another kind, or of fewer rows.

    Raises
    ------
    MissingInputError, UnsafeFileError
        As `converter.media.images.read_image`.
    FormatError
        If it is no image, or is damaged above the last of the rows.

    """
    with os.fdopen(open_regular(path), "rb", buffering=_HEAD_BYTES) as stream:
        head = stream.read(_HEAD_BYTES)
        if read_header(head, str(path), limits).kind != "PNG":
            return None
        header = _HEADER.unpack_from(head, _SIGNATURE_BYTES + PNG_CHUNK.size)
        width, height, depth, colour, *_, interlaced = header
        if depth != 8 or colour not in _CHANNELS or interlaced or n_rows > height:
            return None
        n_bytes = n_rows * (1 + width * _CHANNELS[colour])
        try:
            rows = _inflated(stream, n_bytes)
        except (OSError, struct.error, zlib.error):
            rows = b""
    if len(rows) < n_bytes:
        raise FormatError(path, "a whole PNG file", "one that is damaged or ends early")
    shorter = _HEADER.pack(width, n_rows, *header[2:])
    chunks = ((b"IHDR", shorter), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    data = head[:_SIGNATURE_BYTES] + b"".join(_chunk(kind, body) for kind, body in chunks)
    return decode_image(data, str(path), limits)


def _inflated(stream: BinaryIO, n_bytes: int) -> bytes:
    """The first bytes of what the IDAT chunks hold."""
    inflate, parts, waiting = zlib.decompressobj(), [], b""
    for body in _packed(stream):
        waiting += body
        # Chunks are small, and threads run beside each other only while something is inflated.
        if len(waiting) > n_bytes // _USUAL_RATIO:
            parts.append(inflate.decompress(waiting, n_bytes))
            n_bytes, waiting = n_bytes - len(parts[-1]), b""
            if not n_bytes:
                break
    if waiting:
        parts.append(inflate.decompress(waiting, n_bytes))
    return b"".join(parts)


def _packed(stream: BinaryIO) -> Iterator[bytes]:
    """What the IDAT chunks hold, one after the other."""
    stream.seek(_SIGNATURE_BYTES)
    for _ in range(MAX_CHUNKS):
        length, kind = PNG_CHUNK.unpack(stream.read(PNG_CHUNK.size))
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            yield stream.read(min(length, _MOST_AT_ONCE))
            length -= min(length, _MOST_AT_ONCE)
        stream.seek(length + _CHECKSUM_BYTES, os.SEEK_CUR)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return PNG_CHUNK.pack(len(body), kind) + body + checksum.to_bytes(_CHECKSUM_BYTES, "big")
