"""Drawing an image on a canvas: exact in position, bicubic in colour, and fast."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.track import Image

_BAND_ROWS = 32
_ONE_THREAD = 1 << 18
"""Products of more multiplications are spread over threads by OpenBLAS; frames already are."""

_WHOLE = 1e-9
"""Shifts nearer to whole pixels copy them."""

_scratch = threading.local()


def resample(
    image: Image, canvas_from_image: PixelAffine, size: Size, out: Image | None = None
) -> Image:
    """Draw ``image`` on a canvas; outside the image its border pixels are repeated.

    Bicubic with a = -1/2, which reproduces linear ramps exactly and so moves nothing (OpenCV's
    a = -3/4 moves edges by up to 0.05 px); when shrinking, the kernel is widened against aliasing.
    A whole-pixel shift copies pixels unchanged.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    canvas_from_image
        Edge-origin map, one frame's.
    size
        Size of the canvas.
    out
        Array for the result; None: a new one. Fresh memory for every frame of a video costs as much
        as the arithmetic.

    Returns
    -------
    (size.height, size.width, 3) uint8.

    """
    a = canvas_from_image
    canvas = np.empty((*size.shape, 3), np.uint8) if out is None else out
    if a.sx == 1 and a.sy == 1:
        _shift(image, float(a.tx), float(a.ty), canvas)
    else:
        _rescale(image, a, canvas)
    return canvas


def resample_nearest(
    image: Image, canvas_from_image: PixelAffine, size: Size, outside: tuple[int, int, int]
) -> Image:
    """Draw ``image`` by nearest neighbour (labels keep their exact colours)."""
    back = canvas_from_image.inverse()
    x = np.floor((np.arange(size.width) + 0.5) * back.sx + back.tx).astype(np.int64)
    y = np.floor((np.arange(size.height) + 0.5) * back.sy + back.ty).astype(np.int64)
    height, width = image.shape[:2]
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    canvas = np.empty((*size.shape, 3), np.uint8)
    canvas[:] = outside
    picked = image[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)[None, :]]
    inside = inside_y[:, None] & inside_x[None, :]
    canvas[inside] = picked[inside]
    return canvas


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array that this thread uses again and again; its content is anybody's."""
    kept: dict[str, NDArray[Any]] = _scratch.__dict__
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in kept or kept[name].nbytes < n_bytes:
        kept[name] = np.empty(n_bytes, np.uint8)
    return kept[name][:n_bytes].view(dtype).reshape(shape)


# --- scale 1: a copy, or one separable filter with constant taps ------------------------------


def _shift(image: Image, tx: float, ty: float, canvas: Image) -> None:
    x, y = math.floor(-tx + _WHOLE), math.floor(-ty + _WHOLE)
    fraction_x, fraction_y = max(-tx - x, 0.0), max(-ty - y, 0.0)
    whole = fraction_x < _WHOLE and fraction_y < _WHOLE
    margin = 0 if whole else 2
    columns = _reach(x, image.shape[1], canvas.shape[1], margin)
    rows = _reach(y, image.shape[0], canvas.shape[0], margin)
    inner = canvas[rows, columns]
    size = Size.of(inner)
    if whole:
        inner[:] = _cut(image, x + columns.start, y + rows.start, size)
    else:
        taps = _bicubic_taps(fraction_x), _bicubic_taps(fraction_y)
        _filter(image, x + columns.start, y + rows.start, taps, inner)
    _repeat_borders(canvas, rows, columns)


def _reach(first: int, n_image: int, n_canvas: int, margin: int) -> slice:
    """Columns (or rows) of a canvas, whose own begin at ``first`` of the image, that show it.

    With ``margin`` px more on both sides, beyond which a filter sees border pixels only; and at
    least one, to repeat.
    """
    begin = min(max(-margin - first, 0), n_canvas - 1)
    return slice(begin, max(min(n_image + margin - first, n_canvas), begin + 1))


def _repeat_borders(canvas: Image, rows: slice, columns: slice) -> None:
    """Fill a canvas around what was drawn with the outermost pixels of it."""
    canvas[rows, : columns.start] = canvas[rows, columns.start : columns.start + 1]
    canvas[rows, columns.stop :] = canvas[rows, columns.stop - 1 : columns.stop]
    canvas[: rows.start] = canvas[rows.start]
    canvas[rows.stop :] = canvas[rows.stop - 1]


def _filter(image: Image, x: int, y: int, taps: tuple[Floats, Floats], out: Image) -> None:
    """Filter the pixels from column x, row y on; taps are those of pixels -1, 0, 1, 2.

    OpenCV filters uint8 to uint8 without vector instructions, to float32 with them; bands of rows
    keep the float32 inside the processor's cache.
    """
    import cv2

    height, width = out.shape[:2]
    for top in range(0, height, _BAND_ROWS):
        n = min(_BAND_ROWS, height - top)
        region = _cut(image, x - 1, y + top - 1, Size(width + 3, n + 3))
        band = scratch("band", region.shape, np.float32)
        cv2.sepFilter2D(region, cv2.CV_32F, *taps, dst=band, anchor=(1, 1))
        cv2.threshold(band, 0, 0, cv2.THRESH_TOZERO, dst=band)
        # Rounds, and saturates at 255; negative numbers would lose their sign.
        cv2.convertScaleAbs(band[1 : 1 + n, 1 : 1 + width], dst=out[top : top + n])


def _bicubic_taps(fraction: float) -> Floats:
    """Weights of pixels -1, 0, 1, 2 at ``fraction`` between pixels 0 and 1 (a = -1/2)."""
    return _bicubic(np.array([-1.0, 0.0, 1.0, 2.0]) - fraction)


def _bicubic(x: Floats) -> Floats:
    """Keys' kernel, a = -1/2."""
    d = np.abs(x)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def _cut(image: Image, x: int, y: int, size: Size) -> Image:
    """Cut the ``size`` pixels from column x, row y on; outside, border pixels are repeated."""
    import cv2

    height, width = image.shape[:2]
    right, bottom = x + size.width, y + size.height
    inner = image[
        min(max(y, 0), height - 1) : max(min(bottom, height), 1),
        min(max(x, 0), width - 1) : max(min(right, width), 1),
    ]
    if inner.shape[:2] == size.shape:
        return inner
    left, top = min(max(-x, 0), size.width - 1), min(max(-y, 0), size.height - 1)
    return np.asarray(
        cv2.copyMakeBorder(
            inner,
            top,
            size.height - top - inner.shape[0],
            left,
            size.width - left - inner.shape[1],
            cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


# --- any scale: every row and column has its own taps -----------------------------------------


@dataclass(frozen=True, slots=True)
class _Sums:
    """How the pixels along one axis of a canvas are summed from those of the image.

    Attributes
    ----------
    first, n
        The pixels of the image that take part, first one and number.
    parts
        (first pixel of the canvas, first of the image after `first`, weights (canvas, image)).

    """

    first: int
    n: int
    parts: tuple[tuple[int, int, NDArray[np.float32]], ...]


@lru_cache(maxsize=64)
def _sums(n_canvas: int, scale: float, shift: float) -> _Sums:
    """Sums for ``canvas = scale image + shift``, edge origin."""
    widened = max(1.0, 1 / scale)
    centres = (np.arange(n_canvas) + 0.5 - shift) / scale
    firsts = np.floor(centres - 2 * widened + 0.5).astype(np.int64)
    n_taps = 2 * math.ceil(2 * widened) + 1
    places = firsts[:, None] + np.arange(n_taps)
    taps = _bicubic((places + 0.5 - centres[:, None]) / widened)
    taps /= taps.sum(axis=1, keepdims=True)
    parts = []
    # As many at once as make the fewest zeros for the fewest products.
    step = 8 if scale < 1 else 16 if scale < 2 else 32
    for begin in range(0, n_canvas, step):
        part = slice(begin, begin + step)
        low, n = firsts[begin], places[part][-1, -1] + 1 - firsts[begin]
        weights = np.zeros((len(taps[part]), n), np.float32)
        np.put_along_axis(weights, places[part] - low, taps[part].astype(np.float32), axis=1)
        parts.append((begin, int(low - firsts[0]), weights))
    return _Sums(int(firsts[0]), int(places[-1, -1] + 1 - firsts[0]), tuple(parts))


def _rescale(image: Image, a: PixelAffine, canvas: Image) -> None:
    """Sum rows, then columns, one channel after the other: as small matrix products."""
    import cv2

    height, width = canvas.shape[:2]
    across, down = _sums(width, float(a.sx), float(a.tx)), _sums(height, float(a.sy), float(a.ty))
    region = _cut(image, across.first, down.first, Size(across.n, down.n))
    halfway = scratch("halfway", (height, across.n), np.float32)
    whole = scratch("whole", (height, width), np.float32)
    drawn = scratch("drawn", (3, height, width), np.uint8)
    planes = scratch("planes", (3, *region.shape[:2]), np.uint8)
    cv2.split(region, list(planes))
    plane = scratch("plane", region.shape[:2], np.float32)
    for channel in range(3):
        np.copyto(plane, planes[channel])
        for begin, first, weights in down.parts:
            for columns in _pieces(across.n, weights.size):
                source = plane[first : first + weights.shape[1], columns]
                np.matmul(weights, source, out=halfway[begin : begin + len(weights), columns])
        for begin, first, weights in across.parts:
            source = halfway[:, first : first + weights.shape[1]]
            for rows in _pieces(height, weights.size):
                np.matmul(source[rows], weights.T, out=whole[rows, begin : begin + len(weights)])
        cv2.threshold(whole, 0, 0, cv2.THRESH_TOZERO, dst=whole)
        cv2.convertScaleAbs(whole, dst=drawn[channel])
    cv2.merge(list(drawn), dst=canvas)


def _pieces(n: int, n_weights: int) -> Iterator[slice]:
    """Cut n rows so that products with so many weights stay in this thread."""
    step = max(1, _ONE_THREAD // n_weights - 1)
    return (slice(begin, min(begin + step, n)) for begin in range(0, n, step))
