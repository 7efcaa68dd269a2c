"""The integers behind a crop: which rectangle of the source plane the crop's square shows.

The tracker cuts a box, pads it with zeros on both sides of the shorter axis and resizes the result.
What decides the cameras is only the padded rectangle (`Mapping`): boxes that differ by how much of
it was cut and how much padded share one mapping. So the mapping is searched first, on pixels, and
the padding is settled afterwards.

Source: metrical-tracker, image.py:22-57; see `converter.geometry.crop.Crop`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, Size

Grey = NDArray[np.uint8]
"""(H, W) uint8."""

MIN_EXTENT = 2
"""Columns and rows that a cut has at the least, source px."""


@dataclass(frozen=True, slots=True, order=True)
class Mapping:
    """The padded rectangle that the crop shows: columns [x_min, x_max), rows [y_min, y_max).

    Source pixels, edge origin; it may reach outside the source, where the tracker pads.
    """

    x_min: int
    x_max: int
    y_min: int
    y_max: int

    @classmethod
    def of_crop(cls, crop: Crop) -> Mapping:
        """Return the mapping of a crop."""
        box = crop.bbox
        return cls(
            box.x_min - crop.pad_x,
            box.x_max + crop.pad_x,
            box.y_min - crop.pad_y,
            box.y_max + crop.pad_y,
        )

    @classmethod
    def rounded(cls, edges: Floats) -> Mapping:
        """Return the mapping nearest to four edges."""
        return cls(*(int(e) for e in np.rint(edges)))

    @property
    def edges(self) -> Floats:
        """The four edges: x_min, x_max, y_min, y_max."""
        return np.array([self.x_min, self.x_max, self.y_min, self.y_max], np.float64)

    @property
    def size(self) -> Size:
        """Extent of the padded rectangle."""
        return Size(self.x_max - self.x_min, self.y_max - self.y_min)

    def __add__(self, step: tuple[int, int, int, int]) -> Mapping:
        a, b, c, d = step
        return Mapping(self.x_min + a, self.x_max + b, self.y_min + c, self.y_max + d)

    def pad_needed(self, source: Size) -> tuple[int, int]:
        """Smallest padding (x, y) that keeps the cut inside the columns and rows ever used.

        The tracker never cuts the last column and row: its slices end at W-1 and H-1.
        """
        return (
            max(0, -self.x_min, self.x_max - (source.width - 1)),
            max(0, -self.y_min, self.y_max - (source.height - 1)),
        )

    def crops(self, source: Size, output: Size, max_extra: int = 0) -> Iterator[Crop]:
        """Yield the crops of a square output with this mapping, least padding first.

        Parameters
        ----------
        source, output
            Sizes of the source frame and of the crop image.
        max_extra
            How much more padding than needed to consider, source px per side.

        """
        side = max(self.size.width, self.size.height)
        if side - min(self.size.width, self.size.height) > 1:
            return
        need_x, need_y = self.pad_needed(source)
        for extra in range(max_extra + 1):
            for pad_x, pad_y in {(0, need_y + extra), (need_x + extra, 0)}:
                if pad_x < need_x or pad_y < need_y:
                    continue
                box = BBox(
                    self.x_min + pad_x, self.x_max - pad_x, self.y_min + pad_y, self.y_max - pad_y
                )
                if min(box.size.width, box.size.height) < MIN_EXTENT:
                    continue
                crop = Crop.from_bbox(box, source, output)
                if Mapping.of_crop(crop) == self:
                    yield crop

    def is_possible(self, source: Size) -> bool:
        """Whether the tracker can make it: one axis unpadded, sides equal up to an odd pixel."""
        return bool(_are_possible(self.edges[None], source)[0])

    def neighbours(self, source: Size, reach: int = 1) -> list[Mapping]:
        """Return the possible mappings whose edges differ by up to ``reach``, without itself."""
        steps = np.array(np.meshgrid(*[np.arange(-reach, reach + 1)] * 4)).reshape(4, -1).T
        edges = (self.edges + steps)[steps.any(axis=1)]
        found = edges[_are_possible(edges, source)].astype(int).tolist()
        return [Mapping(*values) for values in found]


def _are_possible(edges: Floats, source: Size) -> NDArray[np.bool_]:
    """Which mappings of ``edges``, (n, 4), have a crop with no more padding than needed.

    `Mapping.crops` makes it; this says the same of many at once.
    """
    width, height = (edges[:, [1, 3]] - edges[:, [0, 2]]).T
    over_x, over_y = (
        np.maximum(0, np.maximum(-edges[:, i], edges[:, i + 1] - (length - 1)))
        for i, length in ((0, source.width), (2, source.height))
    )
    wider = width - height
    fits_x = (over_y == 0) & (((wider == 0) | (wider == -1)) | ((over_x == 0) & (wider == 1)))
    fits_y = (over_x == 0) & (((wider == 0) | (wider == 1)) | ((over_y == 0) & (wider == -1)))
    is_something = np.minimum(width - 2 * over_x, height - 2 * over_y) >= MIN_EXTENT
    return np.asarray((fits_x | fits_y) & is_something, np.bool_)


def render_grey(source: Grey, mapping: Mapping, output: Size, cut_box: BBox | None = None) -> Grey:
    """Cut, zero-pad and resize as the tracker does.

    Parameters
    ----------
    source
        Source frame.
    mapping
        The padded rectangle.
    output
        Size of the crop.
    cut_box
        What is cut of it; as much as the tracker ever could if None.

    """
    import cv2

    height, width = source.shape
    size = mapping.size
    box = cut_box or BBox(0, width - 1, 0, height - 1)
    x0, x1 = max(mapping.x_min, box.x_min), min(mapping.x_max, box.x_max)
    y0, y1 = max(mapping.y_min, box.y_min), min(mapping.y_max, box.y_max)
    cut = source[y0 : max(y1, y0), x0 : max(x1, x0)]
    if cut.shape != size.shape:
        canvas = np.zeros(size.shape, np.uint8)
        top, left = max(y0 - mapping.y_min, 0), max(x0 - mapping.x_min, 0)
        if cut.size:
            canvas[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
        cut = canvas
    if size == output:
        return cut
    shape = (output.width, output.height)
    return np.asarray(cv2.resize(cut, shape, interpolation=cv2.INTER_CUBIC), np.uint8)
