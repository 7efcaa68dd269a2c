"""How much of a mapping was cut, and how much padded, in images whose pixels were altered.

The cameras do not depend on it, the four integers do. Black rows alone prove nothing (they may be a
black background), and altered images compare to no render exactly. So the rows and columns that two
paddings render differently are looked at: do they show the source, or what the padding became?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, Size
from fitting.crop.mapping import MIN_EXTENT, Grey, Mapping, render_grey
from fitting.crop.pair import Pair
from fitting.crop.pixelwise import BLURS, Levels, Look, find_look

_MIN_CONTRAST = 12
_MIN_PIXELS = 20
_NEAR = 0.35
_SHOWN, _HIDDEN, _COVERED = 0.25, 0.05, 0.75
_FOLLOWS = 0.5
_STEPS = 6
_BORDER_LEVELS = 24
_STRAY = 0.02
"""Share of a row's pixels that may have another level than the row."""
_LEVELS_OF_CONTRAST = 8
"""A dark crop shows as much in fewer levels."""
_MATTE_SHARE = 0.02
_MAX_AMBIGUOUS = 8
_MIN_LEAD, _CLEARLY = 3.0, 0.5
_SEGMENT = 16
_CUBIC_PX = 3
"""How far, source px, cubic resizing carries the edge of the padding."""
_BLUR_PX = 4 * round(max(BLURS)) + 1
"""How far, crop px, the widest blur of a `Look` reaches."""
_BATCH = 8
_CLEAN, _MIN_CLEAN = 0.95, 12
"""Correlation of blocks that show nothing but the source, and how many are enough."""


def padded(mapping: Mapping, source: Size, output: Size, axis: int, pad: int) -> Crop | None:
    """Return the crop of a mapping with a given padding on one axis, if there is one.

    Parameters
    ----------
    mapping, source, output
        The padded rectangle, and the sizes of the source frame and of the crop.
    axis
        0: padded left and right, 1: above and below.
    pad
        Padding per side, source px.

    """
    pads = [0, 0]
    pads[axis] = pad
    need = mapping.pad_needed(source)
    if pad < 0 or any(p < n for p, n in zip(pads, need, strict=True)):
        return None
    box = BBox(
        mapping.x_min + pads[0],
        mapping.x_max - pads[0],
        mapping.y_min + pads[1],
        mapping.y_max - pads[1],
    )
    if min(box.size.width, box.size.height) < MIN_EXTENT:
        return None
    crop = Crop.from_bbox(box, source, output)
    return crop if Mapping.of_crop(crop) == mapping else None


def border(crop: Grey, level: float, tolerance: float) -> tuple[int, int]:
    """Columns left and right, rows above and below, of one level: the smaller count of each."""
    return _run_of(crop.T, level, tolerance), _run_of(crop, level, tolerance)


def _run_of(rows: Grey, level: float, tolerance: float) -> int:
    """Rows of one level at both ends, the fewer of the two; 0 where all rows have it."""
    n_rows = len(rows)
    for first in range(0, (n_rows + 1) // 2, _BATCH):
        here = np.arange(first, min(first + _BATCH, n_rows))
        ends = np.stack([rows[here], rows[n_rows - 1 - here]])
        off = np.mean(np.abs(ends - np.float32(level)) > tolerance, axis=2) > _STRAY
        other = np.flatnonzero(off.any(axis=0))
        if len(other):
            return first + int(other[0])
    return 0


class _Rim:
    """The pixels near the edges of a crop: all that padding can change, blurred or not.

    Parameters
    ----------
    crop
        The whole of it.
    across, down
        How far it reaches in from left and right, and from above and below, crop px.

    Attributes
    ----------
    shown
        (P,) levels of the crop there.
    segments
        (P,) which part of the border a pixel lies in: pixels beside each other err alike.

    """

    def __init__(self, crop: Grey, across: int, down: int) -> None:
        height, width = crop.shape
        self._shape = height, width
        self._strips = [(0, height, 0, width)]
        if 2 * (down + _BLUR_PX) < height and 2 * (across + _BLUR_PX) < width:
            self._strips = [(0, down, 0, width), (height - down, height, 0, width),
                            (down, height - down, 0, across),
                            (down, height - down, width - across, width)]  # fmt: skip
        places = [np.mgrid[top:end, left:right].reshape(2, -1)
                  for top, end, left, right in self._strips]  # fmt: skip
        rows, columns = np.concatenate(places, axis=1)
        self.shown = crop[rows, columns].astype(np.float32)
        self.segments = rows // _SEGMENT * (width // _SEGMENT + 1) + columns // _SEGMENT

    def seen(self, view: Callable[[Grey], Levels], image: Grey) -> Levels:
        """What ``view``, which looks at no more than `_BLUR_PX` around, makes of its pixels."""
        height, width = self._shape
        found = []
        for top, end, left, right in self._strips:
            y, x = max(top - _BLUR_PX, 0), max(left - _BLUR_PX, 0)
            around = image[y : min(end + _BLUR_PX, height), x : min(right + _BLUR_PX, width)]
            found.append(view(around)[top - y : end - y, left - x : right - x].ravel())
        return np.concatenate(found)


@dataclass(frozen=True)
class PaddingSearch:
    """Settles the padding of one frame.

    Attributes
    ----------
    pair
        Crop and source.
    mapping
        What the crop shows; known.

    """

    pair: Pair
    mapping: Mapping
    _rendered: dict[Crop, Grey] = field(init=False, default_factory=dict)

    def settle(self) -> tuple[Crop, ...]:
        """Return the crops that no pixel rules out, least padding first."""
        size, output = Size.of(self.pair.source), self.pair.output
        least = next(self.mapping.crops(size, output))
        tones = self._tones(least)
        matte = self._is_matte(least, tones)
        along = [self._along(axis, least, tones, matte=matte) for axis in (0, 1)]
        # Only one axis is padded more than needed: the one on which the least is ruled out.
        sure = [crops for crops in along if least not in crops]
        crops = sure[0] if len(sure) == 1 else [least, *along[0], *along[1]]
        crops = list(dict.fromkeys(crops))
        crops = self._with_rivals(crops, tones, matte=matte)
        return tuple(crops)[:_MAX_AMBIGUOUS]

    def _with_rivals(self, crops: list[Crop], tones: Floats, *, matte: bool) -> list[Crop]:
        """Hold crops against those with a little less or more padding, and against each other.

        Blur carries the padding into the picture, so the re-render gets the look of the crop first.
        A replaced background tells nothing: there only what stands alone is doubted.
        """
        if matte and len(crops) > 1:
            return crops
        look = None if matte else find_look(self.pair, self.mapping)
        view: Callable[[Grey], Levels] = partial(_seen, tones if look is None else look)
        every = [*crops, *(near for crop in crops for near in self._near(crop))]
        pool = list(dict.fromkeys(every))
        rim = self._rim(pool)
        images = {crop: rim.seen(view, self._render(crop)) for crop in pool}
        best = crops[0]
        for crop, image in images.items():
            if _lead(rim, image, images[best]) > 0:
                best = crop
        rivals = [c for c, i in images.items() if _lead(rim, images[best], i) < _MIN_LEAD]
        if best in crops and not matte:
            return list(dict.fromkeys([best, *rivals]))
        return list(dict.fromkeys([*crops, best, *rivals]))

    def _near(self, crop: Crop) -> list[Crop]:
        found = [
            self._padded(axis, pad + step)
            for axis, pad in enumerate((crop.pad_x, crop.pad_y))
            for step in (-3, -2, -1, 1, 2, 3)
        ]
        return [c for c in found if c is not None]

    def _rim(self, pool: Sequence[Crop]) -> _Rim:
        """Where images of crops may differ that are padded by more or less."""
        crop = self.pair.crop
        extents = self.mapping.size.width, self.mapping.size.height
        pads = max(c.pad_x for c in pool), max(c.pad_y for c in pool)
        depths = [
            (pad + _CUBIC_PX) * length / extent + 1 + _BLUR_PX
            for pad, length, extent in zip(pads, crop.shape[::-1], extents, strict=True)
        ]
        return _Rim(crop, int(np.ceil(depths[0])), int(np.ceil(depths[1])))

    def _along(self, axis: int, least: Crop, tones: Floats, *, matte: bool) -> list[Crop]:
        """Crops with padding on one axis that the pixels allow.

        Where the background was replaced by the padding's level, nothing looks like padding alone.
        """
        pad = (least.pad_x, least.pad_y)[axis]
        allowed: list[Crop] = []
        here: Crop | None = least
        for _ in range(_STEPS):
            more = self._padded(axis, pad + 1)
            if here is None or more is None:
                return [*allowed, here] if here is not None else allowed
            seen = self._between(here, more, tones)
            if seen != "padding" or matte:
                allowed.append(here)
            if seen == "source":
                return allowed
            pad, here = pad + 1, more
        return allowed or self._wide(axis, least, tones)

    def _wide(self, axis: int, least: Crop, tones: Floats) -> list[Crop]:
        """Choose among crops with more padding than a few rows: a box drawn by hand."""
        extent = (self.mapping.size.width, self.mapping.size.height)[axis]
        length = (self.pair.output.width, self.pair.output.height)[axis]
        rows = border(self.pair.crop, tones[0], _BORDER_LEVELS)[axis] * extent / length
        wide = [self._padded(axis, p) for p in range(max(round(rows) - 4, 1), round(rows) + 5)]
        crops = [c for c in wide if c is not None]
        if not crops:
            return [least]
        errors = np.array([self._error(c, tones) for c in crops])
        best = crops[int(np.argmin(errors))]
        equal = [c for c, e in zip(crops, errors, strict=True) if e <= errors.min() + 0.02]
        return [best, *(c for c in equal if c != best)]

    def _padded(self, axis: int, pad: int) -> Crop | None:
        return padded(self.mapping, Size.of(self.pair.source), self.pair.output, axis, pad)

    def _render(self, crop: Crop) -> Grey:
        if crop not in self._rendered:
            image = render_grey(self.pair.source, self.mapping, crop.output, crop.bbox)
            self._rendered[crop] = image
        return self._rendered[crop]

    def _tones(self, least: Crop) -> Floats:
        """What became of each of the 256 grey levels, by the blocks that agree; gaps bridged."""
        rendered, crop = self._render(least), self.pair.crop
        chosen = self.pair.choose(self.mapping, agrees=_CLEAN)
        if len(chosen) < _MIN_CLEAN:
            chosen = self.pair.choose(self.mapping)
        used = self.pair.covered(chosen)
        levels = rendered[used]
        counts = np.bincount(levels, minlength=256)
        sums = np.bincount(levels, weights=crop[used], minlength=256)
        known = np.flatnonzero(counts >= _MIN_PIXELS)
        if len(known) < 2:
            return np.arange(256, dtype=np.float64)
        values = sums[known] / counts[known]
        tones: Floats = np.interp(np.arange(256), known, values)
        black = self._padding_level(least)
        if black is None:
            low = known[: max(len(known) // 2, 2)]
            slope, offset = np.polyfit(low, values[: len(low)], 1)
            black = float(np.clip(offset, 0, values[0])) if slope > 0 else 0.0
        tones[: known[0]] = np.linspace(black, values[0], known[0], endpoint=False)
        tones[0] = black
        return tones

    def _padding_level(self, least: Crop) -> float | None:
        """Median level of the crop where every possible box pads; None where none has to."""
        outside = np.zeros(self.pair.crop.shape, bool)
        for axis, pad in enumerate((least.pad_x, least.pad_y)):
            extent = (self.mapping.size.width, self.mapping.size.height)[axis]
            rows = int((pad - 2) * self.pair.crop.shape[1 - axis] / extent)
            if rows > 0:
                edge = outside if axis else outside.T
                edge[:rows] = edge[-rows:] = True
        return float(np.median(self.pair.crop[outside])) if outside.any() else None

    def _between(
        self, less: Crop, more: Crop, tones: Floats
    ) -> Literal["source", "padding", "unknown"]:
        """Say what is seen where two paddings differ."""
        one, other = self._render(less), self._render(more)
        changed = np.flatnonzero(one != other)
        a, b, crop = (*(tones[image.take(changed)] for image in (one, other)),
                      self.pair.crop.take(changed))  # fmt: skip
        differs = np.abs(a - b) > _MIN_CONTRAST
        if int(differs.sum()) < _MIN_PIXELS:
            return "unknown"
        a, b, crop = a[differs], b[differs], crop[differs]
        towards: NDArray[np.float64] = (crop - a) / (b - a)
        shown = float(np.mean(np.abs(towards) < _NEAR))
        covered = float(np.mean(np.abs(towards - 1) < _NEAR))
        if shown > _SHOWN and shown > covered / 2:
            return "source" if self._varies_with(a, crop) else "unknown"
        return "padding" if shown < _HIDDEN and covered > _COVERED else "unknown"

    @staticmethod
    def _varies_with(source: Floats, crop: NDArray[np.uint8]) -> bool:
        """Whether pixels follow the source, and are not one colour that happens to be near it."""
        if min(float(np.std(source)), float(np.std(crop))) < 1:
            return False
        return float(np.corrcoef(source, crop)[0, 1]) > _FOLLOWS

    def _error(self, crop: Crop, tones: Floats) -> float:
        return float(np.mean(np.abs(tones[self._render(crop)] - self.pair.crop)))

    def _is_matte(self, least: Crop, tones: Floats) -> bool:
        """Whether the crop has the padding's level where the source has not, inside its border."""
        contrast = float(np.percentile(np.abs(self.pair.crop - np.float32(tones[0])), 99))
        levels = min(_BORDER_LEVELS, contrast / _LEVELS_OF_CONTRAST)
        across, down = border(self.pair.crop, tones[0], levels)
        height, width = self.pair.crop.shape
        inner = np.s_[down + 1 : max(height - down - 1, 0), across + 1 : max(width - across - 1, 0)]
        expected, crop = tones[self._render(least)][inner], self.pair.crop[inner]
        lit = np.abs(expected - tones[0]) > 2 * levels
        if not lit.any():
            return True
        return float(np.mean(np.abs(crop[lit] - tones[0]) < levels)) > _MATTE_SHARE


def _seen(look: Look | Floats, rendered: Grey) -> Levels:
    """The re-render as the crop shows it: by its look, or by its tones alone."""
    return np.asarray(look(rendered) if isinstance(look, Look) else look[rendered], np.float32)


def _lead(rim: _Rim, a: Levels, b: Levels) -> float:
    """By how many standard errors one expected rim fits better, where the two differ.

    Segments of the border are counted, not pixels. None leads where the crop is nearly as far from
    the one as from the other: sharpening, say, was then not understood well enough to tell them
    apart.
    """
    apart = np.abs(a - b)
    differs = np.flatnonzero(apart > _MIN_CONTRAST / 2)
    if len(differs) < _MIN_PIXELS:
        return 0.0
    here, limit = rim.shown[differs], np.float32(4 * _MIN_CONTRAST)
    worse = np.minimum(np.abs(b[differs] - here), limit)
    gain = worse - np.minimum(np.abs(a[differs] - here), limit)
    segments = rim.segments[differs]
    sums = np.bincount(segments, weights=gain)[np.bincount(segments) > 0]
    most = float(np.minimum(apart[differs], limit).sum())
    if len(sums) < 2 or abs(float(gain.sum())) < _CLEARLY * most:
        return 0.0
    spread = float(np.std(sums)) * float(np.sqrt(len(sums)))
    return float(sums.sum()) / max(spread, 1e-9)
