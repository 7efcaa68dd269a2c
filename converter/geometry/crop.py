"""How a tracker's crop, and a trainer's canvas, sit in the source frame.

The crop is metrical-tracker's ``crop_image_bbox`` followed by ``squarefiy`` and a resize
(https://github.com/Zielon/metrical-tracker, image.py:45-57, datasets/generate_dataset.py:70-76).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.errors import ConventionError
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import PixelAffine, Scalar, Size


@dataclass(frozen=True, slots=True)
class BBox:
    """Rectangle in source pixels, half-open: columns [x_min, x_max), rows [y_min, y_max)."""

    x_min: int
    x_max: int
    y_min: int
    y_max: int

    @property
    def size(self) -> Size:
        """Extent of the rectangle."""
        return Size(self.x_max - self.x_min, self.y_max - self.y_min)

    def clamped(self, source: Size | None) -> BBox:
        """Return the part that the tracker cuts: its slices end at W-1 and H-1, exclusive.

        Without a source only the lower borders are known.

        Raises
        ------
        ConventionError
            If nothing of the box lies inside the source.

        """
        cut = BBox(
            max(self.x_min, 0),
            min(self.x_max, source.width - 1) if source else self.x_max,
            max(self.y_min, 0),
            min(self.y_max, source.height - 1) if source else self.y_max,
        )
        if cut.x_min >= cut.x_max or cut.y_min >= cut.y_max:
            inside = f"the {source} source" if source else "the source"
            raise ConventionError(
                "bbox",
                f"x_min < x_max, y_min < y_max, inside {inside}",
                str(self),
                "Its order is x_min, x_max, y_min, y_max; is it from another video?",
            )
        return cut

    def __str__(self) -> str:
        return f"[{self.x_min}, {self.x_max}, {self.y_min}, {self.y_max}]"


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle cut from the source, zero-padded and resized to ``output``.

    Attributes
    ----------
    bbox
        The pixels that were cut, already limited to what the tracker cuts.
    pad_x, pad_y
        Zero border on each side, source pixels, before the resize.
    source
        Size of the source frame; None when no source frame is known.
    output
        Size of the crop image.

    """

    bbox: BBox
    pad_x: int
    pad_y: int
    source: Size | None
    output: Size

    def __post_init__(self) -> None:
        cut, output = self.bbox.size, self.output
        if min(cut.width, cut.height, output.width, output.height) <= 0:
            raise ConventionError("crop", "a cut and an output of one pixel or more", str(self))
        if self.pad_x < 0 or self.pad_y < 0:
            raise ConventionError("crop", "a pad of 0 or more", str(self))

    def __str__(self) -> str:
        return f"bbox {self.bbox}, pad {self.pad_x} and {self.pad_y}, resized to {self.output}"

    @classmethod
    def from_bbox(cls, bbox: BBox, source: Size | None, output: Size) -> Crop:
        """Return the tracker's own crop: cut, pad to a square, resize to ``output``.

        With an odd difference of the extents the padded image is one pixel short on one axis, and
        the two axes get different scales; the tracker does the same.

        Raises
        ------
        ConventionError
            If nothing of the box lies inside the source.

        """
        cut = bbox.clamped(source)
        width, height = cut.size.width, cut.size.height
        side = max(width, height)
        pad_x, pad_y = (side - width) // 2, (side - height) // 2
        return cls(cut, pad_x, pad_y, source, output)

    @classmethod
    def unpadded(cls, bbox: BBox, source: Size) -> Crop:
        """Return a crop that is only cut, as the tracker does for a non-square image_size."""
        cut = bbox.clamped(source)
        return cls(cut, 0, 0, source, cut.size)

    @classmethod
    def whole(cls, source: Size, output: Size) -> Crop:
        """Return the whole frame resized, as the tracker does with ``crop_image: false``."""
        return cls(BBox(0, source.width, 0, source.height), 0, 0, source, output)

    @property
    def is_whole(self) -> bool:
        """Whether it shows all of its source frame, as `whole` does."""
        return self.source is not None and self == Crop.whole(self.source, self.output)

    @property
    def padded_size(self) -> Size:
        """Size of the cut with its padding, source pixels."""
        cut = self.bbox.size
        return Size(cut.width + 2 * self.pad_x, cut.height + 2 * self.pad_y)

    @property
    def crop_from_source(self) -> PixelAffine:
        """Edge-origin map from source pixels to crop pixels."""
        padded = self.padded_size
        sx, sy = self.output.width / padded.width, self.output.height / padded.height
        return PixelAffine(
            sx, sy, (self.pad_x - self.bbox.x_min) * sx, (self.pad_y - self.bbox.y_min) * sy
        )

    @property
    def source_from_crop(self) -> PixelAffine:
        """Edge-origin map from crop pixels to source pixels."""
        return self.crop_from_source.inverse()

    def at_size(self, output: Size) -> Crop:
        """Return the same rectangle resized to another ``output``."""
        return Crop(self.bbox, self.pad_x, self.pad_y, self.source, output)


@dataclass(frozen=True, slots=True)
class Window:
    """A canvas whose centre is the principal point and whose two focal lengths are equal.

    Trainers that hold no principal point and one focal length still get exact cameras this way:
    the pose is untouched, the image is scaled and shifted (``canvas_from_image``).

    Attributes
    ----------
    canvas_from_image
        Edge-origin map; one per frame when the intrinsics vary over frames.
    intrinsics
        Central intrinsics of the canvas; one for all frames.

    """

    canvas_from_image: PixelAffine
    intrinsics: Intrinsics

    @property
    def size(self) -> Size:
        """Size of the canvas."""
        return self.intrinsics.size

    @classmethod
    def centred(cls, image: Intrinsics, size: Size, focal: float) -> Window:
        """Return the canvas of ``size`` and ``focal`` px centred on the principal point.

        ``x' = focal/fx (x - cx) + W/2`` and likewise for y: ``A = K' K^-1``.

        Raises
        ------
        ConventionError
            If ``focal`` is not positive.

        """
        _require_focal(focal)
        sx, sy = focal / image.fx, focal / image.fy
        width, height = size.width / 2, size.height / 2
        affine = PixelAffine(sx, sy, width - sx * image.cx, height - sy * image.cy)
        return cls(affine, Intrinsics(focal, focal, width, height, size))

    @classmethod
    def inside(cls, image: Intrinsics, focal: float) -> Window:
        """Return the largest canvas of even size that samples nothing outside the image.

        Raises
        ------
        ConventionError
            If the principal point lies outside the image, or within a canvas pixel of its border,
            or if ``focal`` is not positive.

        """
        size = cls._even_size(image, focal, np.minimum, np.floor)
        if size.width <= 0 or size.height <= 0:
            raise ConventionError(
                "K",
                f"a principal point inside the {image.size} image in every frame",
                f"cx {np.min(image.cx):.1f} to {np.max(image.cx):.1f}, "
                f"cy {np.min(image.cy):.1f} to {np.max(image.cy):.1f}",
                "No canvas centred on it lies inside the image.",
            )
        return cls.centred(image, size, focal)

    @classmethod
    def around(cls, image: Intrinsics, focal: float) -> Window:
        """Return the smallest canvas of even size that keeps the whole image.

        Raises
        ------
        ConventionError
            If ``focal`` is not positive.

        """
        return cls.centred(image, cls._even_size(image, focal, np.maximum, np.ceil), focal)

    @staticmethod
    def _even_size(image: Intrinsics, focal: float, nearer: np.ufunc, rounded: np.ufunc) -> Size:
        """Twice the distance from the principal point to the nearer (or farther) border."""
        _require_focal(focal)
        if not np.isfinite(image.matrix).all():
            raise ConventionError("K", "finite numbers", "NaN or infinity")

        def extent(scale: Scalar, centre: Scalar, side: int) -> int:
            half = nearer.reduce(np.ravel(scale * nearer(centre, side - centre)))
            return 2 * int(rounded(round(float(half), 6)))  # 1e-6 px: rounding, not pixels

        return Size(
            extent(focal / image.fx, image.cx, image.size.width),
            extent(focal / image.fy, image.cy, image.size.height),
        )


def _require_focal(focal: float) -> None:
    if not 0 < focal < np.inf:
        raise ConventionError("canvas", "a positive focal length", f"{focal} px")
