"""Sizes by header are those that OpenCV decodes, however a JPEG's segments lie."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from converter.errors import FormatError, UnsafeFileError
from converter.geometry import Size
from converter.media.image_headers import read_header, require_whole
from converter.media.limits import DEFAULT_LIMITS
from fixtures.hostile.files import black, png_chunk

JPEG = bytes(cv2.imencode(".jpg", np.zeros((32, 64, 3), np.uint8))[1])
SCAN = JPEG.index(b"\xff\xda")


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def exif(orientation: int, kind: int = 3, order: str = "<", name: bytes = b"Exif\0\0") -> bytes:
    value = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", *[orientation, 0][: 5 - kind])
    directory = struct.pack(f"{order}IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)
    return segment(0xE1, name + (b"II*\0" if order == "<" else b"MM\0*") + directory)


XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
TURNED = {
    "little-endian": JPEG[:2] + exif(6) + JPEG[2:],
    "big-endian": JPEG[:2] + exif(6, order=">") + JPEG[2:],
    "as a long": JPEG[:2] + exif(6, kind=4) + JPEG[2:],
    "as a long, big-endian": JPEG[:2] + exif(6, kind=4, order=">") + JPEG[2:],
    "upside down": JPEG[:2] + exif(3) + JPEG[2:],
    "after XMP": JPEG[:2] + XMP + exif(8) + JPEG[2:],
    "twice, the first counts": JPEG[:2] + exif(1) + exif(6) + JPEG[2:],
    "twice, the first turns": JPEG[:2] + exif(6) + exif(1) + JPEG[2:],
    "after the frame header": JPEG[:SCAN] + exif(6) + JPEG[SCAN:],
    "after the scan": JPEG[:-2] + exif(6) + JPEG[-2:],
    "another name": JPEG[:2] + exif(6, name=b"Exif\0x") + JPEG[2:],
    "behind fill bytes": JPEG[:2] + b"\xff" * 100 + exif(6) + JPEG[2:],
    "none": JPEG,
}


@pytest.mark.parametrize("name", TURNED)
def test_the_size_is_that_of_opencv(name: str) -> None:
    data = TURNED[name]
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert read_header(data, "a.jpg", DEFAULT_LIMITS).size == Size.of(decoded)


@pytest.mark.parametrize("data", [JPEG, TURNED["after XMP"], black(30, 20)])
def test_a_header_that_ends_early_is_never_a_size(data: bytes) -> None:
    """Up to where it is whole; from there on always the same size."""
    whole, found = read_header(data, "a", DEFAULT_LIMITS), []
    for end in range(len(data)):
        try:
            found.append(read_header(data[:end], "a", DEFAULT_LIMITS) == whole)
        except FormatError:
            found.append(False)
    assert found == sorted(found)
    assert not any(found[:20])


@pytest.mark.parametrize(("n", "refused"), [(998, False), (1001, True)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_parts_before_the_pixels_are_counted(kind: str, n: int, refused: bool) -> None:
    data, part, at = {
        "PNG": (black(30, 20), png_chunk(b"abCd", b""), 33),
        "JPEG": (JPEG, segment(0xFE, b""), 2),
    }[kind]
    n -= data[at:].count(b"\xff", 0, SCAN - at) if kind == "JPEG" else 0
    many = data[:at] + part * n + data[at:]
    if refused:
        with pytest.raises(UnsafeFileError, match="at most 1,000"):
            read_header(many, "a", DEFAULT_LIMITS)
    else:
        assert require_whole(many, "a", DEFAULT_LIMITS).kind == kind


def test_an_animation_is_no_frame() -> None:
    still = black(30, 20)
    moving = still[:33] + png_chunk(b"acTL", struct.pack(">II", 1, 0)) + still[33:]
    with pytest.raises(FormatError, match="an animation"):
        read_header(moving, "a.png", DEFAULT_LIMITS)
