"""Still images: sizes from headers, bounded decoding, encoding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError
from converter.geometry.crop import Crop
from converter.geometry.pixels import Size
from converter.media import chatter
from converter.media.files import read_bytes, read_head, scan_folder
from converter.media.image_headers import read_header, require_whole
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

_HEAD_BYTES = 1 << 16
_LOST_PIXELS = re.compile(
    r"[Pp]remature end[\w ]*|bad (?:Huffman|arithmetic) code|found marker 0x\w+ instead of RST\d"
)
"""Warnings of libjpeg (its jerror.h) after which it makes pixels up."""


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
        return read_header(read_head(path, _HEAD_BYTES), str(path), limits).size
    except FormatError:  # a JPEG may hold much before its size
        return read_header(read_bytes(path, limits), str(path), limits).size


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

    return np.asarray(_decode(data, where, limits, cv2.IMREAD_COLOR), dtype=np.uint8)


def _decode(data: bytes, where: str, limits: Limits, flag: int) -> NDArray[Any]:
    """Check, decode with OpenCV, and hold the size against the header's."""
    import cv2

    header = require_whole(data, where, limits)
    call = partial(cv2.imdecode, np.frombuffer(data, np.uint8), flag)
    if header.kind == "JPEG":
        image, said = chatter.listen(call)
        lost = _LOST_PIXELS.search(said)
        if lost:
            raise FormatError(
                where, "a whole JPEG file", f"pixels that are lost (libjpeg: {lost[0]})",
                "Copy or save it again.",
            )  # fmt: skip
    else:
        image = call()
        chatter.forget()
    if image is None or Size.of(image) != header.size:
        raise FormatError(where, f"a {header.size} {header.kind} image", "data that do not decode")
    return np.asarray(image)


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

    return _decode(read_bytes(path, limits), str(path), limits, cv2.IMREAD_UNCHANGED)


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
        return self.decode(index, read_bytes(self.paths[index], self.limits))

    def decode(self, index: int, data: bytes) -> Image:
        """Decode one image from its bytes; raises as `read`."""
        image = decode_image(data, str(self.paths[index]), self.limits)
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
