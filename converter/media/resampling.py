"""Drawing an image on a canvas: exact in position, bicubic in colour, and fast."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.track import Image

_BAND_ROWS = 128
_SUMMED_ROWS = 128
"""Rows of an image that are summed at once, roughly; their float32 stays in the cache."""

_ONE_THREAD = 1 << 18
"""Products of more multiplications are spread over threads by OpenBLAS; frames already are."""

_WHOLE = 1e-9
"""Shifts nearer to whole pixels copy them."""

_scratch = threading.local()
_Pixel = TypeVar("_Pixel", np.uint8, np.uint16)


def resample(
    image: Image, canvas_from_image: PixelAffine, size: Size, out: Image | None = None
) -> Image:
    """Draw ``image`` on a canvas; outside the image its border pixels are repeated.

    Bicubic with a = -1/2, which reproduces linear ramps exactly and so moves nothing (OpenCV's
    a = -3/4 moves edges by up to 0.05 px); when shrinking, the kernel is widened against aliasing.
    A whole-pixel shift copies pixels unchanged. Other maps round to 8 bits twice, between the axes.

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
    image: NDArray[_Pixel],
    canvas_from_image: PixelAffine,
    size: Size,
    outside: tuple[int, ...] | int,
) -> NDArray[_Pixel]:
    """Draw ``image`` (H, W) or (H, W, C) by nearest neighbour: labels keep their exact values."""
    back = canvas_from_image.inverse()
    x = np.floor((np.arange(size.width) + 0.5) * back.sx + back.tx).astype(np.int64)
    y = np.floor((np.arange(size.height) + 0.5) * back.sy + back.ty).astype(np.int64)
    height, width = image.shape[:2]
    inside_x, inside_y = (x >= 0) & (x < width), (y >= 0) & (y < height)
    canvas = np.empty((*size.shape, *image.shape[2:]), image.dtype)
    canvas[:] = outside
    picked = image[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)[None, :]]
    inside = inside_y[:, None] & inside_x[None, :]
    canvas[inside] = picked[inside]
    return canvas


def reach(*scales: float) -> float:
    """How far around its place `resample` reads the image, px, at the smallest of the scales."""
    return 2 * max(1.0, 1 / min(scales)) + 1


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
    columns = _span(x, image.shape[1], canvas.shape[1], margin)
    rows = _span(y, image.shape[0], canvas.shape[0], margin)
    inner = canvas[rows, columns]
    size = Size.of(inner)
    if whole:
        inner[:] = _cut(image, x + columns.start, y + rows.start, size)
    else:
        taps = _bicubic_taps(fraction_x), _bicubic_taps(fraction_y)
        _filter(image, x + columns.start, y + rows.start, taps, inner)
    _repeat_borders(canvas, rows, columns)


def _span(first: int, n_image: int, n_canvas: int, margin: int) -> slice:
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

    OpenCV filters uint8 to uint8 with vector instructions in filter2D, not in sepFilter2D: rows,
    then columns, take 60 % of the time of float32 between them.
    """
    import cv2

    along_row, along_column = taps[0].reshape(1, 4), taps[1].reshape(4, 1)
    height, width = out.shape[:2]
    for top in range(0, height, _BAND_ROWS):
        n = min(_BAND_ROWS, height - top)
        region = _cut(image, x - 1, y + top - 1, Size(width + 3, n + 3))
        halfway = scratch("halfway", region.shape, np.uint8)
        filtered = scratch("filtered", region.shape, np.uint8)
        cv2.filter2D(region, cv2.CV_8U, along_row, dst=halfway, anchor=(1, 0))
        cv2.filter2D(halfway, cv2.CV_8U, along_column, dst=filtered, anchor=(0, 1))
        out[top : top + n] = filtered[1 : 1 + n, 1 : 1 + width]


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
class _Band:
    """Some rows of a canvas, and the rows of an image that they are summed from.

    Attributes
    ----------
    rows, source
        The rows of the canvas; the rows of the image, counted from the first that takes part.
    products
        (rows within ``rows``, rows within ``source``, weights (canvas rows, image rows)).

    """

    rows: slice
    source: slice
    products: tuple[tuple[slice, slice, NDArray[np.float32]], ...]


@dataclass(frozen=True, slots=True)
class _Sums:
    """How the rows (or columns) of a canvas are summed from those of an image.

    Attributes
    ----------
    first, n
        The rows of the image that take part, first one and number.
    bands
        All rows of the canvas, in order.

    """

    first: int
    n: int
    bands: tuple[_Band, ...]


@lru_cache(maxsize=64)
def _sums(n_canvas: int, scale: float, shift: float) -> _Sums:
    """Sums for ``canvas = scale image + shift``, edge origin."""
    widened = max(1.0, 1 / scale)
    centres = (np.arange(n_canvas) + 0.5 - shift) / scale
    firsts = np.floor(centres - 2 * widened + 0.5).astype(np.int64)
    places = firsts[:, None] + np.arange(2 * math.ceil(2 * widened) + 1)
    taps = _bicubic((places + 0.5 - centres[:, None]) / widened)
    taps /= taps.sum(axis=1, keepdims=True)
    places -= firsts[0]
    # As many rows at once as make the fewest zeros for the fewest products.
    step = 4 if scale < 1 else 8 if scale < 2 else 16
    n_band = step * max(1, round(_SUMMED_ROWS * min(scale, 1.0)) // step)
    bands = []
    for begin in range(0, n_canvas, n_band):
        rows = slice(begin, min(begin + n_band, n_canvas))
        source = slice(int(places[rows].min()), int(places[rows].max()) + 1)
        products = [
            _product(places[part] - source.start, taps[part], part.start - begin)
            for part in _pieces(rows, step)
        ]
        bands.append(_Band(rows, source, tuple(products)))
    return _Sums(int(firsts[0]), int(places.max()) + 1, tuple(bands))


def _product(
    places: NDArray[np.int64], taps: Floats, first_row: int
) -> tuple[slice, slice, NDArray[np.float32]]:
    """Write the taps of some rows (n, taps) at their places as one dense matrix."""
    weights = np.zeros((len(taps), places.max() + 1), np.float32)
    np.put_along_axis(weights, places, taps.astype(np.float32), axis=1)
    used = np.flatnonzero(weights.any(axis=0))
    source = slice(int(used[0]), int(used[-1]) + 1)
    return slice(first_row, first_row + len(taps)), source, weights[:, source].copy()


def _rescale(image: Image, a: PixelAffine, canvas: Image) -> None:
    """Sum rows, then columns, which are the rows of the transposed picture."""
    import cv2

    height, width = canvas.shape[:2]
    across, down = _sums(width, float(a.sx), float(a.tx)), _sums(height, float(a.sy), float(a.ty))
    region = _cut(image, across.first, down.first, Size(across.n, down.n))
    upright = scratch("upright", (height, across.n, 3), np.uint8)
    turned = scratch("turned", (across.n, height, 3), np.uint8)
    drawn = scratch("drawn", (width, height, 3), np.uint8)
    _sum_rows(region, down, upright)
    cv2.transpose(upright, dst=turned)
    _sum_rows(turned, across, drawn)
    cv2.transpose(drawn, dst=canvas)


def _sum_rows(image: Image, sums: _Sums, out: Image) -> None:
    """Sum the rows of ``image`` as small matrix products, in bands that the caches hold."""
    import cv2

    n = out.shape[1] * 3
    flat = out.reshape(-1, n)
    for band in sums.bands:
        source = scratch(
            "source", (band.source.stop - band.source.start, *out.shape[1:]), np.float32
        )
        np.copyto(source, image[band.source])
        source = source.reshape(-1, n)
        summed = scratch("summed", (band.rows.stop - band.rows.start, n), np.float32)
        for rows, part, weights in band.products:
            for columns in _pieces(slice(0, n), _ONE_THREAD // weights.size):
                np.matmul(weights, source[part, columns], out=summed[rows, columns])
        cv2.threshold(summed, 0, 0, cv2.THRESH_TOZERO, dst=summed)
        cv2.convertScaleAbs(summed, dst=flat[band.rows])


def _pieces(whole: slice, step: int) -> Iterator[slice]:
    """Cut a slice into pieces of ``step``, the last one shorter."""
    starts = range(whole.start, whole.stop, max(1, step))
    return (slice(begin, min(begin + starts.step, whole.stop)) for begin in starts)
