"""One crop held against its source frame, pixel by pixel, under a mapping that is known.

What was cut and what padded is settled on the way: by equality, or by `fitting.crop.padding`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.geometry.crop import BBox, Crop
from fitting.crop.certificate import Comparison, compare, is_legal, is_within
from fitting.crop.mapping import Mapping, render_grey
from fitting.crop.padding import PaddingSearch, border, padded
from fitting.crop.pair import Agreement, Pair
from fitting.crop.sequences import Crops, Sources

_DARK = 24
_MAX_TWINS = 64


@dataclass(frozen=True, slots=True)
class Checked:
    """One frame whose crop was compared with its re-render.

    Attributes
    ----------
    pair
        Crop and source frame.
    comparison
        What differs.
    crops
        Crops that give the compared image, the best first.
    agreement
        How the textured blocks compare.

    """

    pair: Pair
    comparison: Comparison
    crops: tuple[Crop, ...]
    agreement: Agreement


class Checker:
    """Compares the crops of one track with re-renders of its source frames; what it found is kept.

    Parameters
    ----------
    crops, sources
        The two sequences.

    """

    def __init__(self, crops: Crops, sources: Sources) -> None:
        self._crops, self._sources = crops, sources
        self._size, self._output = sources.frames.size, crops.frames.size
        self._checked: dict[tuple[int, int, int, Mapping], Checked] = {}
        self._compared: dict[tuple[int, int, Crop], Comparison] = {}
        self._within: dict[tuple[int, int, Crop, int], bool] = {}

    def check(self, pair: Pair, mapping: Mapping) -> Checked:
        """Settle the padding under a mapping, and compare every pixel; kept."""
        key = pair.index, pair.source_index, pair.shrink, mapping
        if key not in self._checked:
            self._checked[key] = self._settled(pair, mapping)
        return self._checked[key]

    def _settled(self, pair: Pair, mapping: Mapping) -> Checked:
        """Settle what was cut and what padded; the mapping, hence the cameras, is the same for all.

        Every padding that the border of the crop suggests is compared whole; where none is equal,
        the rows in question decide (`fitting.crop.padding`).
        """
        agreement, found = pair.agreement(mapping), self.equal(pair, mapping)
        if found is not None:
            return Checked(pair, found[1], self.twins(pair, mapping, *found), agreement)
        crops = PaddingSearch(pair, mapping).settle()
        crops = tuple(sorted(crops, key=lambda c: self._preference(c.bbox)))
        return Checked(pair, self.compare(pair, crops[0]), crops, agreement)

    def equal(self, pair: Pair, mapping: Mapping) -> tuple[Crop, Comparison] | None:
        """Return a crop of the mapping whose image is equal, or off by the one level allowed."""
        least = next(mapping.crops(self._size, self._output))
        best, best_crop = self.compare(pair, least), least
        if best.max_abs_diff > 1:
            for crop in self._suggested(pair, mapping, least):
                comparison = self.compare(pair, crop)
                if comparison.max_abs_diff < best.max_abs_diff:
                    best, best_crop = comparison, crop
        return (best_crop, best) if best.max_abs_diff <= 1 else None

    def _suggested(self, pair: Pair, mapping: Mapping, least: Crop) -> list[Crop]:
        """Crops with more padding than needed, as the black border of an unaltered crop shows."""
        found = []
        extents = mapping.size.width / self._output.width, mapping.size.height / self._output.height
        needed = (least.pad_x, least.pad_y)
        for axis, dark in enumerate(border(pair.crop, 0, _DARK)):
            rows = round(dark * extents[axis])
            near = range(max(rows - 3, needed[axis] + 1), rows + 5)
            found += [padded(mapping, self._size, self._output, axis, p) for p in near if dark]
        return [c for c in found if c is not None]

    def twins(
        self, pair: Pair, mapping: Mapping, crop: Crop, comparison: Comparison
    ) -> tuple[Crop, ...]:
        """All crops of the mapping with the very same image, a legal one first."""
        twins = [crop]
        reference = render_grey(pair.source, mapping, self._output, crop.bbox)
        for axis in (0, 1):
            for direction in (-1, 1):
                pad, here = (crop.pad_x, crop.pad_y)[axis], crop
                for _ in range(_MAX_TWINS):
                    pad += direction
                    other = padded(mapping, self._size, self._output, axis, pad)
                    if other is None:
                        break
                    if not self._cut_alike(pair, here, other):
                        rendered = render_grey(pair.source, mapping, self._output, other.bbox)
                        if not np.array_equal(rendered, reference):
                            break
                        if self.compare(pair, other) != comparison:
                            break
                    twins.append(other)
                    here = other
        return tuple(sorted(dict.fromkeys(twins), key=lambda c: self._preference(c.bbox)))

    def _cut_alike(self, pair: Pair, one: Crop, other: Crop) -> bool:
        """Whether what one box cuts and the other pads is as black as padding: the same image."""
        image = self._sources.image(pair.source_index)
        a, b = one.bbox, other.bbox
        x = [*range(*sorted((a.x_min, b.x_min))), *range(*sorted((a.x_max, b.x_max)))]
        y = [*range(*sorted((a.y_min, b.y_min))), *range(*sorted((a.y_max, b.y_max)))]
        return not image[:, x].any() and not image[y].any()

    def _preference(self, bbox: BBox) -> tuple[bool, int]:
        return not is_legal(bbox, self._size), -bbox.size.n_pixels

    def compare(self, pair: Pair, crop: Crop) -> Comparison:
        """Compare every pixel, all channels."""
        key = pair.index, pair.source_index, crop
        if key not in self._compared:
            image = self._crops.image(pair.index)
            self._compared[key] = compare(image, self._sources.image(pair.source_index), crop)
        return self._compared[key]

    def is_within(self, pair: Pair, crop: Crop, limit: int) -> bool:
        """Whether no pixel differs by more than ``limit``; kept."""
        known = self._compared.get((pair.index, pair.source_index, crop))
        if known is not None:
            return known.max_abs_diff <= limit
        key = pair.index, pair.source_index, crop, limit
        if key not in self._within:
            image, source = self._crops.image(pair.index), self._sources.image(pair.source_index)
            self._within[key] = is_within(image, source, crop, limit)
        return self._within[key]

    def is_equal(self, pair: Pair, mapping: Mapping) -> bool:
        """Whether a crop of the mapping has the very image of the pair's."""
        found = self.equal(pair, mapping)
        return found is not None and found[1].is_equal
