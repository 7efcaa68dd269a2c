"""Still images: sizes from headers, bounded decoding, encoding."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UnsafeFileError
from converter.geometry.crop import Crop
from converter.geometry.pixels import Size
from converter.media.files import read_bytes, read_head, scan_folder
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

_PNG_CHUNK = struct.Struct(">I4s")
_END_OF_JPEG = b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS = 16
"""Scans of a JPEG of ``limits.image_pixels``, in proportion more of a smaller one: a decoder goes
over all pixels for each, and thousands fit into some KB (libjpeg-turbo's audit, LJT-01-004)."""
_EXIF_ORIENTATION = 0x0112
_HEAD_BYTES = 1 << 16


def list_images(folder: Path) -> list[Path]:
    """PNG and JPEG files of a folder, in the order in which trackers read them (sorted)."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in scan_folder(folder))
    return [folder / n for n in names if os.path.splitext(n)[1].lower() in IMAGE_SUFFIXES]


def read_size(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> Size:
    """Size of a PNG or JPEG by its header, after the EXIF orientation that decoders apply.

    Raises
    ------
    FormatError
        If it is neither, or the header is damaged.
    UnsafeFileError
        If the header announces more than ``limits.image_pixels``.

    """
    try:
        return _header(read_head(path, _HEAD_BYTES), str(path), limits)[0]
    except FormatError:  # a JPEG may hold much before its size
        return _header(read_bytes(path, limits), str(path), limits)[0]


def _header(data: bytes, where: str, limits: Limits) -> tuple[Size, str]:
    from PIL import Image as Pillow

    try:
        with Pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            width, height = image.size
            kind = str(image.format)
            # Trackers read with cv2.imread, which turns JPEGs by their EXIF orientation.
            turned = kind == "JPEG" and image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except Pillow.DecompressionBombError as error:
        raise UnsafeFileError(where, "an image of ordinary size", str(error)) from None
    except Exception as error:  # Pillow's header parsers raise nearly anything on damaged input
        raise FormatError(
            where, "a PNG or JPEG image", f"{type(error).__name__}: {error}".split("<_io")[0]
        ) from None
    size = Size(height, width) if turned else Size(width, height)
    if size.n_pixels > limits.image_pixels:
        raise UnsafeFileError(
            where,
            f"at most {limits.image_pixels / 1e6:g} megapixels",
            f"{size} by its header",
            "If it is genuine, raise the limit.",
        )
    return size, kind


def decode_image(data: bytes, where: str, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Decode PNG or JPEG bytes to (H, W, 3) uint8, blue first, exactly as cv2.imread does.

    Raises
    ------
    FormatError
        If the data are damaged or end early.
    UnsafeFileError
        If the header announces more pixels than allowed.

    """
    import cv2

    size, kind = _whole(data, where, limits)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None or Size.of(image) != size:
        raise FormatError(where, f"a {size} {kind} image", "data that do not decode")
    return np.asarray(image, dtype=np.uint8)


def _whole(data: bytes, where: str, limits: Limits) -> tuple[Size, str]:
    """Return size and kind of an image after the checks that come before decoding."""
    size, kind = _header(data, where, limits)
    if kind == "PNG":
        _require_whole_png(data, where)
        return size, kind
    # Decoders fill the missing rows of a truncated file with grey and only warn.
    if _END_OF_JPEG not in data[-4096:]:
        raise FormatError(where, f"a whole {kind} file", "one that ends early")
    _require_few_scans(data, size, where, limits)
    return size, kind


def _require_whole_png(data: bytes, where: str) -> None:
    """Compare all chunks with their checksums, which decoders do late or not at all."""
    here, view = 8, memoryview(data)
    while here + 12 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, here)
        end = here + 8 + length
        if zlib.crc32(view[here + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            found = "one that is damaged or ends early"
            raise FormatError(where, "a whole PNG file", found, "Copy or write it again.")
        if kind == b"IEND":
            return
        here = end + 4
    raise FormatError(where, "a whole PNG file", "one that ends early")


def _require_few_scans(data: bytes, size: Size, where: str, limits: Limits) -> None:
    n_scans = data.count(_START_OF_SCAN)
    most = _MAX_SCANS * max(1, limits.image_pixels // size.n_pixels)
    if n_scans > most:
        raise UnsafeFileError(
            where, f"a {size} JPEG of at most {most} scans", f"{n_scans}", "Save it again."
        )


def read_image(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Read a PNG or JPEG file; see `decode_image`."""
    return decode_image(read_bytes(path, limits), str(path), limits)


def read_depth(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> NDArray[Any]:
    """Read a PNG with the channels and the bit depth that it has.

    Returns
    -------
    (H, W) or (H, W, C), uint8 or uint16.

    Raises
    ------
    FormatError, UnsafeFileError
        As `decode_image`.

    """
    import cv2

    data = read_bytes(path, limits)
    size, kind = _whole(data, str(path), limits)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or Size.of(image) != size:
        raise FormatError(path, f"a {size} {kind} image", "data that do not decode")
    return np.asarray(image)


def encode_image(image: Image, suffix: Literal[".jpg", ".png"], quality: int = 95) -> bytes:
    """Encode as JPEG of ``quality`` 1..100 or PNG; RGBA is given as (H, W, 4), blue first."""
    import cv2

    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, image, parameters)
    return bytes(data)


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """`converter.track.Frames` over image files."""

    paths: tuple[Path, ...]
    size: Size
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def of(cls, paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> ImageFiles:
        """Frames over ``paths`` (at least one); the size is read from the first header."""
        return cls(tuple(paths), read_size(paths[0], limits), limits)

    @property
    def origin(self) -> str:
        """Folder of the images."""
        return str(self.paths[0].parent)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """File name of one image."""
        return self.paths[index].name

    def read(self, index: int) -> Image:
        """Decode one image; raises FormatError if its size differs from the others'."""
        image = read_image(self.paths[index], self.limits)
        if Size.of(image) != self.size:
            raise FormatError(
                self.paths[index], f"{self.size} like the other images", f"{Size.of(image)}"
            )
        return image

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode images one after the other."""
        return (self.read(index) for index in indices)


def render_crop(source: Image, crop: Crop) -> Image:
    """Cut, zero-pad and resize as the tracker does (its image.py:45-57, INTER_CUBIC)."""
    import cv2

    box, padded = crop.bbox, crop.padded_size
    canvas = np.zeros((*padded.shape, 3), np.uint8)
    cut = source[box.y_min : box.y_max, box.x_min : box.x_max]
    canvas[crop.pad_y : crop.pad_y + cut.shape[0], crop.pad_x : crop.pad_x + cut.shape[1]] = cut
    if padded == crop.output:
        return canvas
    size = (crop.output.width, crop.output.height)
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_CUBIC), np.uint8)
