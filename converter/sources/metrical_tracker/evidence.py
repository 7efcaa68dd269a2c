"""Evidence that K, the meshes, the landmarks, the crop and the source belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converter.errors import ConventionError
from converter.findings import Finding
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.media.images import render_crop
from converter.track import Frames, Image, Track

_N_FRAMES = 8
# Genuine tracks reach 100 %, naive or source-space K 0 % (metrical-tracker spec, 3.11).
MIN_SHARE = 0.9
_HULL_MARGIN = 15 / 512
SAME_GREY_LEVELS = 3.0
_FAR_PX = 1e6
_N_LAG_FRAMES = 40
_CLEARLY = 0.5
_MIN_LAG_FRAMES = 8
_LAGS = tuple(range(-2, 4))


def settle_image_space(
    track: Track, *, spread: bool, hold_intrinsics: bool = True
) -> tuple[Track, list[Finding]]:
    """Hold K against the landmarks, and the crop against the source frames.

    ``spread``: look at source frames all over the track, not only at its first ones (a video has
    to be decoded up to the last one looked at). ``hold_intrinsics``: False takes K as it is.

    Raises
    ------
    ConventionError
        If the landmarks lie off the projected mesh for every known meaning of K, or the crops
        were not cut from these source frames by this bbox.

    """
    track, findings = _settle_K(track) if hold_intrinsics else (track, [])
    return track, findings + _check_crop_pixels(track, spread)


def _settle_K(track: Track) -> tuple[Track, list[Finding]]:
    share = landmark_share(track)
    if share is None or share >= MIN_SHARE:
        return track, []
    fitting = fitting_meanings(track)
    if len(fitting) == 1:
        what, repaired = fitting[0]
        finding = Finding(
            "K-rewritten",
            "warning",
            "opencv.K",
            f"puts {share:.0%} of the landmarks on the projected mesh; {what}, "
            f"it puts {landmark_share(repaired):.0%} there.",
            measured=share,
            limit=MIN_SHARE,
            fix="It is read that way.",
        )
        return repaired, [finding]
    expected = f"at least {MIN_SHARE:.0%} of the landmarks on the projected mesh"
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


def fitting_meanings(track: Track, n_frames: int = _N_FRAMES) -> list[tuple[str, Track]]:
    """Known rewrites of K that put the landmarks on the mesh once they are undone.

    More than one only where the landmarks fit all of them about equally well.
    """
    fitting = [
        (what, t) for what, t in other_meanings(track)
        if (landmark_share(t, n_frames) or 0) >= MIN_SHARE
    ]  # fmt: skip
    if len(fitting) < 2 or _same_cameras([t for _, t in fitting]):
        return fitting[:1]
    points = track.landmarks

    def own(index: int, lag: int) -> Floats | None:
        here = None if points is None else points[index]
        return here if here is not None and np.isfinite(here).all() else None

    # A mesh drawn a quarter too large may cover the face as well, but its vertices do not keep to
    # the landmarks: 13.6 px against 1.5 px on a real track.
    off = [landmark_residuals(t, own).get(0, 0.0) for _, t in fitting]
    best = int(np.argmin(off))
    others = [o for i, o in enumerate(off) if i != best]
    return [fitting[best]] if off[best] < _CLEARLY * min(others) else fitting


def _same_cameras(tracks: list[Track]) -> bool:
    """Whether all K say the same, as where a crop was not resized: adding the bbox maps K then."""
    first, *others = (t.in_crop().intrinsics.matrix for t in tracks)
    return all(np.allclose(first, other, rtol=0, atol=1e-3) for other in others)


def other_meanings(track: Track) -> list[tuple[str, Track]]:
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


def landmark_share(track: Track, n_frames: int = _N_FRAMES) -> float | None:
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
    picks = usable[np.unique(np.linspace(0, len(usable) - 1, n_frames).round().astype(int))]
    size = in_crop.intrinsics.size
    margin = _HULL_MARGIN * max(size.width, size.height)
    shares = []
    for index in picks:
        points = in_crop.project(int(index), track.meshes.vertices(int(index)).astype(np.float64))
        shares.append(_share_inside(points, track.landmarks[index], margin))
    return float(np.mean(shares))


def landmark_residuals(
    track: Track,
    landmarks_at: Callable[[int, int], Floats | None],
    among: Sequence[int] | None = None,
) -> dict[int, float]:
    """How well the meshes fit the landmarks of other images, by lag in images.

    Every landmark's mesh vertex is chosen on a quarter of the frames, and held against the rest.
    One frame off costs about half of the fit where the head moves 0.7 px per frame
    (metrical-tracker spec, 3.10).

    Parameters
    ----------
    track
        With meshes.
    landmarks_at
        ``landmarks_at(index, lag)``: landmarks (68, 2), px of the crop, of the image that lies
        ``lag`` images after the one of track frame ``index``; None where there are none.
    among
        Track frames to choose from; all if None.

    Returns
    -------
    Lag -> root mean square residual, px of the crop; empty where too little is there.

    """
    if track.meshes is None or (track.image_space == "source" and track.crop is None):
        return {}
    in_crop = track.in_crop()
    known = np.arange(len(track)) if among is None else np.asarray(among, np.int64)
    picks = known[np.unique(np.linspace(0, len(known) - 1, _N_LAG_FRAMES).round().astype(int))]
    landmarks = {i: [landmarks_at(i, lag) for lag in _LAGS] for i in picks.tolist()}
    complete = {i: [p for p in ps if p is not None] for i, ps in landmarks.items()}
    frames = [i for i, ps in complete.items() if len(ps) == len(_LAGS)]
    if len(frames) < _MIN_LAG_FRAMES:
        return {}
    meshes = {i: in_crop.project(i, track.meshes.vertices(i).astype(np.float64)) for i in frames}
    if not all(np.isfinite(points).all() for points in meshes.values()):
        return {}
    chosen, held = frames[::4], [i for k, i in enumerate(frames) if k % 4]
    residuals = {}
    for column, lag in enumerate(_LAGS):
        costs = sum(_distances(meshes[i], complete[i][column]) for i in chosen)
        vertex = np.argmin(costs, axis=0)
        off = np.stack([meshes[i][vertex] - complete[i][column] for i in held])
        residuals[lag] = float(np.sqrt(np.mean((off**2).sum(axis=-1))))
    return residuals


def _distances(points: Floats, landmarks: Floats) -> Floats:
    """Distance of every point (V, 2) to every landmark (L, 2): (V, L)."""
    x = points[:, None, 0] - landmarks[None, :, 0]
    y = points[:, None, 1] - landmarks[None, :, 1]
    # Not hypot, which guards against overflow: these are pixels, and it takes four times as long.
    distances: Floats = np.sqrt(x * x + y * y)
    return distances


def _share_inside(points: Floats, landmarks: Floats, margin: float) -> float:
    import cv2

    with np.errstate(invalid="ignore"):
        points = points[(np.abs(points) < _FAR_PX).all(axis=1)]
    if len(points) < 3:
        return 0.0
    hull = cv2.convexHull(points.astype(np.float32))
    inside = [
        cv2.pointPolygonTest(hull, (float(x), float(y)), measureDist=True) >= -margin
        for x, y in landmarks
    ]
    return float(np.mean(inside))


@dataclass(frozen=True, slots=True)
class CropDifferences:
    """How far the tracker's images are from crops re-rendered from the source frames.

    Attributes
    ----------
    worst, centre
        Largest mean difference of an image, grey levels: whole, and its middle half.
    n_frames
        Number of images compared.
    nearer
        Where images are nearer to a neighbour's source frame: (index, distance to their own,
        distance to the neighbour's); None if they are not.

    """

    worst: float
    centre: float
    n_frames: int
    nearer: tuple[int, float, float] | None


def crop_differences(
    crop: Crop, source: Frames, images: Frames, groups: Sequence[range]
) -> CropDifferences:
    """Compare the tracker's images with crops re-rendered from the source frames.

    Three frames in a row at a time: an image has to be closer to its own source frame than to the
    neighbours', for people often move by less than a grey level per frame.

    Raises
    ------
    UncropError
        If an image cannot be decoded.

    """
    middle = _middle_of(crop.output)
    worst = centre = 0.0
    nearer = None
    indices = sorted({i for group in groups for i in group})
    stream = source.stream(indices)
    rendered: dict[int, Image] = {}
    stored: dict[int, Image] = {}
    n_compared = 0
    for group in groups:
        for i in [i for i in group if i not in rendered]:
            drawn, kept = render_crop(next(stream), crop), images.read(i)
            worst = max(worst, _difference(drawn, kept))
            rendered[i], stored[i] = drawn[middle], kept[middle]
            centre = max(centre, _difference(rendered[i], stored[i]))
            n_compared += 1
        nearer = nearer or _nearer_neighbour(group, rendered, stored)
        # Groups ascend: what lies before this one is not needed again.
        rendered = {i: r for i, r in rendered.items() if i in group}
        stored = {i: s for i, s in stored.items() if i in group}
    return CropDifferences(worst, centre, n_compared, nearer)


def _check_crop_pixels(track: Track, spread: bool) -> list[Finding]:
    """Hold the tracker's images against crops of the source frames."""
    crop, source, images = track.crop, track.source_frames, track.crop_frames
    if crop is None or source is None or images is None:
        return []
    if images.size != crop.output:
        raise ConventionError(
            images.origin, f"images of {crop.output}", f"{images.size}",
            "Use the images the tracker was run on.",
        )  # fmt: skip
    found = crop_differences(crop, source, images, frame_groups(len(track), spread))
    if found.centre > SAME_GREY_LEVELS:
        what = ("whole frames", "frames") if crop.is_whole else (f"bbox {crop.bbox}", "crops")
        raise ConventionError(
            f"{track.name}: {what[0]}",
            f"{what[1]} of {source.origin} equal to the tracker's images "
            f"(mean difference <= {SAME_GREY_LEVELS:g} grey levels)",
            f"{found.centre:.1f}",
            _other_pictures(crop, source.size),
        )
    if found.nearer is not None:
        index, here, there = found.nearer
        raise ConventionError(
            f"{track.name}: {source.origin}",
            f"the source frame of image {int(track.frame_ids[index]):05d}",
            f"a neighbouring one ({here:.2f} grey levels away, the right one {there:.2f})",
            "Is it another frame rate (--fps), or another --begin-frames?",
        )
    return [] if found.worst <= SAME_GREY_LEVELS else [_altered(images, found)]


def _other_pictures(crop: Crop, source: Size) -> str:
    """Ask what most likely is another than it should be."""
    if crop.is_whole:
        return (
            "That images are whole frames is taken from the yaml (crop_image: false), or from a "
            "bbox.pt of that size: if the tracker cut them, correct it; else it is another video "
            "or another --fps."
        )
    if crop.bbox.x_max == source.width - 1 or crop.bbox.y_max == source.height - 1:
        return (
            f"The box of bbox.pt ends where the {source} source does: is it a smaller copy of the "
            "video? Else it is another video, another --fps, or a bbox.pt of another run."
        )
    return "Is it another video, another frame rate (--fps), or a bbox.pt of another run?"


def _altered(images: Frames, found: CropDifferences) -> Finding:
    return Finding(
        "crop-altered",
        "warning",
        images.origin,
        "the tracker's images equal the source in the middle and differ outside it, as "
        "with a replaced background.",
        measured=found.worst,
        limit=SAME_GREY_LEVELS,
        unit="grey levels",
    )


def frame_groups(n: int, spread: bool) -> list[range]:
    """Runs of up to three track frames: the first, and if ``spread`` middle and last ones."""
    starts = [0, (n - 3) // 2, n - 3] if spread else [0]
    return [range(s, min(s + 3, n)) for s in sorted({max(s, 0) for s in starts})]


def _middle_of(size: Size) -> tuple[slice, slice]:
    """The middle half of an image in both directions: the face."""
    height, width = size.height, size.width
    return np.s_[height // 4 : height - height // 4, width // 4 : width - width // 4]


def _nearer_neighbour(
    group: range, rendered: dict[int, Image], stored: dict[int, Image]
) -> tuple[int, float, float] | None:
    """Where images are nearer to the neighbours' source frames; see `CropDifferences.nearer`."""
    own = sum(_difference(rendered[i], stored[i]) for i in group)
    for step in (-1, 1):
        pairs = [(i, i + step) for i in group if i + step in group]
        here = sum(_difference(rendered[i], stored[i]) for i, _ in pairs)
        there = sum(_difference(rendered[j], stored[i]) for i, j in pairs)
        if pairs and own > 0 and there < 0.7 * here:
            return pairs[0][0], here / len(pairs), there / len(pairs)
    return None


def _difference(a: Image, b: Image) -> float:
    """Mean absolute difference, grey levels."""
    return float(np.mean(np.abs(a.astype(np.int16) - b)))
