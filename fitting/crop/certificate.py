"""The proof of a recovered crop: re-render it and compare every pixel.

A png must be equal. A jpg is re-encoded from the re-render with the file's own quantisation tables
and sampling, and must decode to the same pixels; the same tables of the same rounded coefficients
leave no room for another box. OpenCV builds differ by one grey level in cubic resizing (Intel IPP
or not), so both paths of this build are tried before that one level is allowed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from converter.errors import RecoveryError
from converter.findings import counted
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import render_crop
from converter.track import Image

Verdict: TypeAlias = Literal[
    "exact", "exact-up-to-build", "consistent", "ambiguous", "approximate", "refused"
]

_JPEG_MAGIC = b"\xff\xd8"
_MOST_OF_BUILD = 96
"""Grey levels by which builds cannot differ after compression: pure noise at quality 20 came to 72,
pictures at quality 5 to 43."""
_BAND_ROWS, _BAND_RIM = 64, 16
"""Rows of a jpg, whole blocks of it, that can be compressed without the others; and how many at
both ends come out differently alone."""


@dataclass(frozen=True, slots=True)
class FramePair:
    """Two images that belong together, by name.

    ``offset`` says by how many frames the source lies after the one expected by name or order.
    """

    crop: str
    source: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class CropCertificate:
    """What was recovered, and what proves it.

    Attributes
    ----------
    verdict
        "exact": every pixel of every frame checked is equal (jpg: after re-encoding);
        "exact-up-to-build": within the one grey level by which OpenCV builds differ;
        "consistent": the pixels were altered, but one box alone fits, on whole pixels;
        "ambiguous": several boxes give the same images, hence the same cameras; `bbox` is the one
        that the tracker's get_bbox can make; "approximate": from landmarks, good to `error_px`;
        "refused": no box, see `reason`.
    bbox
        The box; None if refused.
    crop
        The box with its padding and the sizes of the images; None if refused.
    candidates
        All boxes that give the same images, `bbox` first; several only if ambiguous.
    reason
        Why it was refused or is ambiguous, as a sentence; empty otherwise.
    cause
        Stable id of the reason, e.g. "mirrored"; empty where there is none.
    frames_checked
        Number of frames compared.
    frames_still
        Number of further crops of which only what stands still was compared, with a source frame of
        those: it lies where the same box puts it.
    max_abs_diff
        Largest difference between a crop and its re-render, grey levels; None if refused.
    differing_px
        Share of pixels that differ at all; None if refused.
    runner_up_gap
        Disagreement of the next box over that of this one; infinity where this one is perfect.
    certainty
        How many standard errors lie between the two; infinity where every pixel is equal.
    agreement
        Share of textured blocks that agree with the re-render.
    pairs
        The frames compared, in the order of the crops.
    n_crops
        Number of crops there are.
    error_px
        How far an edge of the padded rectangle may lie off, source px; 0 unless approximate.

    """

    verdict: Verdict
    bbox: BBox | None = None
    crop: Crop | None = None
    candidates: tuple[BBox, ...] = ()
    reason: str = ""
    cause: str = ""
    frames_checked: int = 0
    frames_still: int = 0
    max_abs_diff: int | None = None
    differing_px: float | None = None
    runner_up_gap: float = float("nan")
    certainty: float = float("nan")
    agreement: float = float("nan")
    pairs: tuple[FramePair, ...] = ()
    n_crops: int = 0
    error_px: float = 0.0

    @property
    def is_recovered(self) -> bool:
        """Whether there is a box."""
        return self.verdict != "refused"

    def require(self, where: object) -> Crop:
        """Return the crop.

        Raises
        ------
        RecoveryError
            If it was refused.

        """
        if self.crop is None:
            raise RecoveryError(
                where, "crops cut from these source frames by one box", self.reason,
                "Nothing was written.", self.cause,
            )  # fmt: skip
        return self.crop

    def __str__(self) -> str:
        if self.bbox is None:
            return f"refused: {self.reason}"
        return f"bbox {self.bbox}, verdict {self.verdict}, {self.evidence}"

    @property
    def frame_offset(self) -> int | None:
        """By how many frames all crops lie beside the expected source frames; None if it varies."""
        offsets = {pair.offset for pair in self.pairs}
        return offsets.pop() if len(offsets) == 1 else None

    @property
    def numbering(self) -> str:
        """Which frames are not those that names or order say; empty if all are."""
        odd = next((pair for pair in self.pairs if pair.offset), None)
        if odd is None:
            return ""
        offset = self.frame_offset
        if offset is None:
            shown = ", ".join(f"{p.crop} shows {p.source} ({p.offset:+d})" for p in self.pairs[:4])
            return f"the crops are not cut from the frames expected, and not evenly: {shown}"
        frames = counted(abs(offset), "frame")
        return (
            f"the crops show the source {frames} {'after' if offset > 0 else 'before'} those "
            f"expected ({odd.crop} shows {odd.source})"
        )

    @property
    def evidence(self) -> str:
        """The numbers behind the verdict, in a few words."""
        n, n_all = self.frames_checked, max(self.frames_checked, self.n_crops)
        frames = f"{n} of {n_all} frames" if n < n_all else counted(n, "frame")
        if self.verdict == "approximate":
            return f"from landmarks of {frames}, edges within {self.error_px:.0f} px"
        if self.max_abs_diff == 0:
            text = f"every pixel of {frames} equal"
        elif self.verdict == "exact-up-to-build" or self.max_abs_diff == 1:
            text = f"{frames} within 1 grey level, {self.differing_px or 0:.1%} of pixels"
        else:
            text = (
                f"{frames}, {self.agreement:.0%} of the texture agrees, next box "
                f"{self.runner_up_gap:.2f} times worse ({self.certainty:.0f} standard errors)"
            )
        if self.frames_still:
            verb = "shows" if self.frames_still == 1 else "show"
            text += f"; {self.frames_still} more {verb} the same room in the same place"
        if len(self.candidates) > 1:
            others = ", ".join(str(b) for b in self.candidates[1:4])
            text += f"; same images and cameras: {others}"
            text += f" and {len(self.candidates) - 4} more" if len(self.candidates) > 4 else ""
        return f"{text}; {self.numbering}" if self.numbering else text


# --- comparing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CropImage:
    """A crop as read: its pixels, and its bytes if it is a jpg."""

    pixels: Image
    jpeg: bytes | None = None

    @classmethod
    def of(cls, pixels: Image, data: bytes | None) -> CropImage:
        """Keep the bytes only where they matter."""
        return cls(pixels, data if data is not None and data[:2] == _JPEG_MAGIC else None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A crop against its re-render: largest difference, and share of pixels that differ."""

    max_abs_diff: int
    differing_px: float

    @property
    def is_equal(self) -> bool:
        """Whether every pixel is."""
        return self.max_abs_diff == 0


def compare(image: CropImage, source: Image, crop: Crop) -> Comparison:
    """Re-render and compare; a jpg after the same compression, and by the build's other path."""
    first = _difference(image, _rendered(source, crop, ipp=True))
    most = 1 if image.jpeg is None else _MOST_OF_BUILD
    if first.is_equal or first.max_abs_diff > most:
        return first
    second = _difference(image, _rendered(source, crop, ipp=False))
    return min(first, second, key=lambda c: (c.max_abs_diff, c.differing_px))


def is_within(image: CropImage, source: Image, crop: Crop, limit: int) -> bool:
    """Whether no pixel differs by more than ``limit``, by either path of this build.

    As `compare`, without the numbers: a few rows of a jpg are compared first, which mostly settles
    it at a fraction of the cost.
    """
    if image.jpeg is not None and all(
        _band_differs(image, _rendered(source, crop, ipp=on), limit) for on in (True, False)
    ):
        return False
    return compare(image, source, crop).max_abs_diff <= limit


def _band_differs(image: CropImage, rendered: Image, limit: int) -> bool:
    """Whether rows in the middle of a jpg differ by more than ``limit`` from a re-render."""
    import cv2

    top = (len(rendered) - _BAND_ROWS) // 2 // _BAND_RIM * _BAND_RIM
    if image.jpeg is None or top < 0 or rendered.shape != image.pixels.shape:
        return False
    inner = slice(_BAND_RIM, _BAND_ROWS - _BAND_RIM)
    band = recompressed(rendered[top : top + _BAND_ROWS], image.jpeg)[inner]
    shown = image.pixels[top : top + _BAND_ROWS][inner]
    return bool(cv2.absdiff(band, shown).max() > limit)


def _difference(image: CropImage, rendered: Image) -> Comparison:
    import cv2

    if image.jpeg is not None:
        rendered = recompressed(rendered, image.jpeg)
    if rendered.shape != image.pixels.shape:
        return Comparison(255, 1.0)
    if np.array_equal(rendered, image.pixels):
        return Comparison(0, 0.0)
    difference = cv2.absdiff(rendered, image.pixels)
    blue, green, red = cv2.split(difference)
    differing = cv2.countNonZero(cv2.bitwise_or(cv2.bitwise_or(blue, green), red))
    return Comparison(int(difference.max()), differing / blue.size)


def _rendered(source: Image, crop: Crop, *, ipp: bool) -> Image:
    """Re-render with OpenCV's use of Intel IPP, where this build has it, or without."""
    import cv2

    before = bool(cv2.ipp.useIPP())
    cv2.ipp.setUseIPP(ipp and before)
    try:
        return render_crop(source, crop)
    finally:
        cv2.ipp.setUseIPP(before)


def recompressed(image: Image, jpeg: bytes) -> Image:
    """Compress ``image`` with the quantisation tables and sampling of ``jpeg``, and decode it."""
    import cv2
    from PIL import Image as Pillow
    from PIL import JpegImagePlugin

    try:
        with Pillow.open(io.BytesIO(jpeg), formats=("JPEG",)) as given:
            tables = dict(given.quantization)
            sampling = JpegImagePlugin.get_sampling(given)
    except (OSError, ValueError, SyntaxError):
        return image
    stream = io.BytesIO()
    options: dict[str, Any] = {"qtables": tables}
    if sampling >= 0:
        options["subsampling"] = sampling
    Pillow.fromarray(np.ascontiguousarray(image[..., ::-1])).save(stream, "JPEG", **options)
    decoded = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return image if decoded is None else np.asarray(decoded, np.uint8)


# --- legality ---------------------------------------------------------------------------------


def is_legal(bbox: BBox, source: Size) -> bool:
    """Whether the tracker's get_bbox can make this box (image.py:22-42, bb_scale 2.5).

    Extents are even; a box clear of the borders is a square whose side ends in 0 or 4; a clipped
    edge lies at 0 or 1, or at W-1 or W-2.
    """
    width, height = bbox.size.width, bbox.size.height
    if width % 2 or height % 2:
        return False
    clipped_x = bbox.x_min <= 1 or bbox.x_max >= source.width - 2
    clipped_y = bbox.y_min <= 1 or bbox.y_max >= source.height - 2
    if not clipped_x and not clipped_y:
        return width == height and width % 10 in (0, 4)
    if width < height:
        return clipped_x
    return clipped_y if height < width else True
