"""Evidence that K, the meshes, the landmarks, the crop and the source belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converter.errors import ConventionError
from converter.findings import Finding
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats
from converter.media.images import render_crop
from converter.track import Image, Track

_N_FRAMES = 8
# Genuine tracks reach 100 %, naive or source-space K 0 % (metrical-tracker spec, 3.11).
_MIN_SHARE = 0.9
_HULL_MARGIN = 15 / 512
_SAME_GREY_LEVELS = 3.0
_N_SOURCE_FRAMES = 3


def settle_image_space(track: Track) -> tuple[Track, list[Finding]]:
    """Hold K against the landmarks, and the crop against the source frames.

    Raises
    ------
    ConventionError
        If the landmarks lie off the projected mesh for every known meaning of K, or the crops
        were not cut from these source frames by this bbox.

    """
    track, findings = _settle_K(track)
    return track, findings + _check_crop_pixels(track)


def _settle_K(track: Track) -> tuple[Track, list[Finding]]:
    share = landmark_share(track)
    if share is None or share >= _MIN_SHARE:
        return track, []
    meanings = _other_meanings(track)
    fitting = [(what, t) for what, t in meanings if (landmark_share(t) or 0) >= _MIN_SHARE]
    if len(fitting) == 1:
        what, repaired = fitting[0]
        finding = Finding(
            "K-rewritten",
            "warning",
            "opencv.K",
            f"puts {share:.0%} of the landmarks on the projected mesh; {what}, "
            f"it puts {landmark_share(repaired):.0%} there.",
            measured=share,
            limit=_MIN_SHARE,
            fix="It is read that way.",
        )
        return repaired, [finding]
    expected = f"at least {_MIN_SHARE:.0%} of the landmarks on the projected mesh"
    if fitting:
        causes = " or ".join(what for what, _ in fitting)
        raise ConventionError(
            f"{track.name}: opencv.K",
            expected,
            f"{share:.0%}, and {len(fitting)} explanations that fit: {causes}",
            "Use the .frame files as the tracker wrote them; their camera block decides.",
        )
    raise ConventionError(
        f"{track.name}: opencv.K",
        expected,
        f"{share:.0%}",
        "K, R, t, mesh/ and kpt/ do not belong together; are they from one run of the tracker?",
    )


def _other_meanings(track: Track) -> list[tuple[str, Track]]:
    """Known ways in which scripts rewrite K, undone."""
    crop = track.crop
    if crop is None or track.image_space != "crop":
        return []
    size = crop.source or crop.padded_size
    k = track.intrinsics
    moved = Intrinsics(k.fx, k.fy, k.cx - crop.bbox.x_min, k.cy - crop.bbox.y_min, k.size)
    return [
        (
            f"read as K of the source frame (bbox {crop.bbox})",
            replace(
                track,
                intrinsics=Intrinsics(k.fx, k.fy, k.cx, k.cy, size),
                image_space="source",
            ),
        ),
        (
            f"with bbox {crop.bbox} taken off the principal point again (it was added without "
            "rescaling)",
            replace(track, intrinsics=moved),
        ),
    ]


def landmark_share(track: Track) -> float | None:
    """Share of landmarks inside the projected mesh's convex hull, grown by 15 px per 512.

    None where there are no meshes, no landmarks or no crop to compare in.
    """
    if track.landmarks is None or track.meshes is None:
        return None
    if track.image_space == "source" and track.crop is None:
        return None
    in_crop = track.in_crop()
    usable = np.flatnonzero(np.isfinite(track.landmarks).all(axis=(1, 2)))
    if not len(usable):
        return None
    picks = usable[np.unique(np.linspace(0, len(usable) - 1, _N_FRAMES).round().astype(int))]
    margin = _HULL_MARGIN * in_crop.intrinsics.size.width
    shares = []
    for index in picks:
        points = in_crop.project(int(index), track.meshes.vertices(int(index)).astype(np.float64))
        shares.append(_share_inside(points, track.landmarks[index], margin))
    return float(np.mean(shares))


def _share_inside(points: Floats, landmarks: Floats, margin: float) -> float:
    import cv2

    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        return 0.0
    hull = cv2.convexHull(points.astype(np.float32))
    inside = [
        cv2.pointPolygonTest(hull, (float(x), float(y)), measureDist=True) >= -margin
        for x, y in landmarks
    ]
    return float(np.mean(inside))


def _check_crop_pixels(track: Track) -> list[Finding]:
    """Compare the tracker's images with crops re-rendered from the first source frames."""
    crop, source, images = track.crop, track.source_frames, track.crop_frames
    if crop is None or source is None or images is None:
        return []
    n = min(_N_SOURCE_FRAMES, len(track))
    pairs = [
        (render_crop(frame, crop), images.read(index))
        for index, frame in enumerate(source.stream(range(n)))
    ]
    whole = max(_difference(a, b) for a, b in pairs)
    if whole <= _SAME_GREY_LEVELS:
        return []
    height, width = crop.output.height, crop.output.width
    middle = np.s_[height // 4 : -height // 4, width // 4 : -width // 4]
    centre = max(_difference(a[middle], b[middle]) for a, b in pairs)
    if centre <= _SAME_GREY_LEVELS:
        return [
            Finding(
                "crop-altered",
                "warning",
                images.origin,
                "the tracker's images equal the source in the middle and differ outside it, as "
                "with a replaced background.",
                measured=whole,
                limit=_SAME_GREY_LEVELS,
                unit="grey levels",
            )
        ]
    raise ConventionError(
        f"{track.name}: bbox {crop.bbox}",
        f"crops of {source.origin} equal to the tracker's images "
        f"(mean difference <= {_SAME_GREY_LEVELS:g} grey levels)",
        f"{whole:.1f}",
        "Is it another video, another frame rate (--fps), or a bbox.pt of another run?",
    )


def _difference(a: Image, b: Image) -> float:
    """Mean absolute difference, grey levels."""
    return float(np.mean(np.abs(a.astype(np.int16) - b)))
