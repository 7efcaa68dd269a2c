"""bbox.pt, and whether the images were cut by it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial

from converter.errors import UncropError
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import read_size, render_crop
from converter.media.video import VideoFrames
from converter.sources.metrical_tracker.evidence import (
    SAME_GREY_LEVELS,
    CropDifferences,
    crop_differences,
)
from converter.sources.metrical_tracker.numbering import video_places
from converter.sources.metrical_tracker.reader import box_of_corners
from converter.track import Frames
from converter.validation.checking import check
from converter.validation.evidence import CheckSkipped, KeptFrames, Outcome, finding, spread
from converter.validation.tracked import Tracked

_EXACT_GREY_LEVELS = 0.25
"""For PNG crops of PNG source frames: the same pixels, but for the build of OpenCV."""
_VIDEO_GROUPS = (0, 12)
"""Where to look in a video, which is decoded from its start: another rate shows by then."""
_N_TRIED = 3
_N_PAIRS = 5


@check("bbox-missing")
def bbox_missing(track: Tracked) -> Outcome:
    """There is a bbox.pt where images were cut."""
    if track.folders.bbox is not None or track.is_whole:
        return Outcome((), 1)
    found = finding("warning", track.folders.inputs,
                    "there is no bbox.pt: the cameras cannot leave the tracker's crops.",
                    fix=f"`{_recover(track)}` finds it again; or give --actor or --bbox if there "
                    "is one.")  # fmt: skip
    return Outcome((found,), 1)


def _recover(track: Tracked) -> str:
    """The command that finds the box again, from crops and source frames."""
    words = ["uncrop", "recover-bbox", str(track.path)]
    if track.folders.source is None:
        words += ["--source", "VIDEO"]
    return " ".join(map(shlex.quote, words))


def _bbox(track: Tracked) -> BBox:
    if track.bbox is None:
        raise CheckSkipped(track.crop_reason)
    return track.bbox


@check("bbox-damaged")
def bbox_damaged(track: Tracked) -> Outcome:
    """bbox.pt holds four whole numbers."""
    if track.folders.bbox is None:
        raise CheckSkipped("there is no bbox.pt")
    if track.bbox is not None or track.bbox_error is None:
        return Outcome((), 1)
    error = track.bbox_error
    fix = f"`{_recover(track)}` finds it again."
    found = finding("error", error.where, error.statement, fix=fix)
    return Outcome((found,), 1)


@check("bbox-order")
def bbox_order(track: Tracked) -> Outcome:
    """The numbers are in the order x_min, x_max, y_min, y_max."""
    bbox, path = _bbox(track), track.folders.bbox
    corners = box_of_corners(bbox)
    if bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max:
        meant = f"; as corners x_min, y_min, x_max, y_max it would be {corners}" if corners else ""
        found = finding("error", path, f"{bbox} is not in the order x_min, x_max, y_min, y_max"
                        f"{meant}.", fix="Write it in the tracker's order, or run "
                        f"`{_recover(track)}`.")  # fmt: skip
        return Outcome((found,), 1)
    if corners is None or corners == bbox or not _fits_better(track, corners):
        return Outcome((), 1)
    found = finding("error", path, f"{bbox} is in the order x_min, y_min, x_max, y_max: the images "
                    f"were cut by {corners}.", fix="Write it in the tracker's order.")  # fmt: skip
    return Outcome((found,), 1)


def _fits_better(track: Tracked, other: BBox) -> bool:
    """Whether one image is a crop by ``other``, and not by the box that is stored."""
    crop, size = track.crop, track.image_size
    if size is None or size.width != size.height or track.is_whole:
        return False
    try:
        source, images, _ = _sequences(track)
        candidate = Crop.from_bbox(other, track.source_size, size)
        groups = [range(1)]
        there = crop_differences(candidate, source, images, groups).centre
        if there > SAME_GREY_LEVELS:
            return False
        return crop is None or there < crop_differences(crop, source, images, groups).centre
    except (CheckSkipped, UncropError):
        return False


@check("bbox-outside")
def bbox_outside(track: Tracked) -> Outcome:
    """The box lies inside the source frames, as the tracker computes it."""
    bbox, source = _bbox(track), track.source_size
    if track.is_whole:
        raise CheckSkipped(f"it is not applied: {track.is_whole}")
    if source is None:
        raise CheckSkipped("the size of the source frames is not known")
    if bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max:
        raise CheckSkipped("its numbers are in another order")
    beyond = max(-bbox.x_min, -bbox.y_min, bbox.x_max - source.width + 1,
                 bbox.y_max - source.height + 1)  # fmt: skip
    if beyond <= 0:
        return Outcome((), 1)
    outside = (
        min(bbox.x_max, bbox.y_max) <= 0
        or bbox.x_min >= source.width - 1
        or bbox.y_min >= source.height - 1
    )
    found = finding(
        "error" if outside else "warning", track.folders.bbox, f"{bbox} reaches {beyond} px beyond "
        f"what the tracker uses of {source} source frames, as a box of another resolution does.",
        beyond, 0, "px", "The tracker silently uses an old bbox.pt for a new video; uncrop cuts "
        "what lies inside, as it did. Compare crop-pixels.",
    )  # fmt: skip
    return Outcome((found,), 1)


@check("bbox-odd")
def bbox_odd(track: Tracked) -> Outcome:
    """Both extents are even, as the tracker always writes them."""
    bbox = _bbox(track)
    if bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max:
        raise CheckSkipped("its numbers are in another order")
    size = bbox.size
    if size.width % 2 == 0 and size.height % 2 == 0:
        return Outcome((), 1)
    found = finding("warning", track.folders.bbox, f"{bbox} is {size}; the tracker only writes "
                    "even extents, so another program made it.", size.width % 2 + size.height % 2,
                    0, "odd extents", f"Compare crop-pixels; `{_recover(track)}` finds the "
                    "tracker's own.")  # fmt: skip
    return Outcome((found,), 1)


@check("bbox-unused")
def bbox_unused(track: Tracked) -> Outcome:
    """A bbox.pt is there only where images were cut."""
    if track.folders.bbox is None or not track.is_whole:
        return Outcome((), 1)
    found = finding("warning", track.folders.bbox, f"is not applied: {track.is_whole}.",
                    fix="Remove it, so that no program applies it.")  # fmt: skip
    return Outcome((found,), 1)


@check("source-cropped")
def source_cropped(track: Tracked) -> Outcome:
    """The source frames are not themselves crops of the tracker's size."""
    source, size = track.source_size, track.image_size
    if source is None or size is None:
        raise CheckSkipped("there are no source frames" if source is None else "no images")
    pairs = _sizes_of_pairs(track) or [(source, size)]
    is_cut = track.bbox is None and not track.is_whole  # by a box that is lost
    if is_cut or any(a != b for a, b in pairs):
        return Outcome((), len(pairs))
    source, size = pairs[-1]
    again = "" if track.is_whole or track.bbox is None else ", and were cropped again"
    found = finding("warning", track.folders.source, f"the source frames are {source}, as the "
                    f"images are{again}: the track knows nothing of the original video.",
                    fix="For native resolution, track the original video.")  # fmt: skip
    return Outcome((found,), len(pairs))


def _sizes_of_pairs(track: Tracked) -> list[tuple[Size, Size]]:
    """Sizes, by their headers, of source frames and of the images that are named alike."""
    places = {p.stem: p for p in track.files.source_files}
    named_alike = [(places[p.stem], p) for p in track.files.images if p.stem in places]
    found = []
    for pair in spread(named_alike, _N_PAIRS):
        sizes = [track.attempt(partial(read_size, p, track.options.limits)) for p in pair]
        if sizes[0] is not None and sizes[1] is not None:
            found.append((sizes[0], sizes[1]))
    return found


def _sequences(track: Tracked) -> tuple[Frames, Frames, list[range]]:
    """Source frames and images by position in the image sequence, and which to compare."""
    images = track.files.images
    size = track.image_size
    if not images or size is None:
        raise CheckSkipped("there are no images to compare")
    kept = KeptFrames(tuple(images), size, track.pictures)
    if track.files.source_files:
        places = {p.stem: p for p in track.files.source_files}
        names = track.files.image_names
        lost = [name for name in names if name not in places]
        if lost:
            raise CheckSkipped(f"no source frame is named like image {lost[0]}")
        paths = tuple(places[name] for name in names)
        source = KeptFrames(paths, track.source_size or size, track.pictures)
        n = len(images)
        return source, kept, [range(n)] if track.thorough else _groups(n)
    video = track.files.video
    if video is None:
        raise CheckSkipped("there are neither source frames nor a video")
    shown = [place for place in video_places(images) if place < len(video)]
    if not shown:
        raise CheckSkipped(f"the video is over before image {images[0].stem}")
    n = len(shown)
    if shown != list(range(n)):  # images of frames that nobody tracked are gone
        video = VideoFrames(video.path, track.files.fps, shown)
    if track.thorough:
        return video, kept, [range(n)]
    return video, kept, [range(s, s + 3) for s in _VIDEO_GROUPS if s + 3 <= n] or [range(n)]


def _groups(n: int) -> list[range]:
    """The first image, the middle one, and the last three: what is out of step is so at the end."""
    starts = sorted({0, (n - 1) // 2, max(n - 3, 0)})
    return [range(s, n if s == starts[-1] else s + 1) for s in starts]


def _compared(track: Tracked) -> tuple[Crop, CropDifferences, float]:
    """Crop, differences of images and re-rendered crops, and the limit for equality."""
    crop = track.crop
    if crop is None:
        raise CheckSkipped(track.crop_reason)
    if crop.source is None:
        raise CheckSkipped("there are neither source frames nor a video")
    known = track.crop_differences
    if known is None:
        source, images, groups = _sequences(track)
        known = _differences(crop, source, images, groups)
        track.crop_differences = known
    files = track.files.source_files
    exact = files and {p.suffix.lower() for p in (files[0], track.files.images[0])} == {".png"}
    return crop, known, _EXACT_GREY_LEVELS if exact else SAME_GREY_LEVELS


def _differences(
    crop: Crop, source: Frames, images: Frames, groups: Sequence[range]
) -> CropDifferences:
    """`crop_differences`, in pieces that overlap by one frame, so that memory stays bounded."""
    if len(groups) == 1 and len(groups[0]) > 3:
        n = len(groups[0])
        groups = [range(s, min(s + 8, n)) for s in range(0, max(n - 1, 1), 7)]
    return crop_differences(crop, source, images, groups)


@check("crop-pixels")
def crop_pixels(track: Tracked) -> Outcome:
    """Crops re-rendered from the source frames equal the tracker's images."""
    crop, found, limit = _compared(track)
    if found.nearer is not None and found.centre <= SAME_GREY_LEVELS:
        index, here, there = found.nearer
        one = finding(
            "error", track.folders.source, f"image {track.files.images[index].stem} is nearer to "
            f"the crop of a neighbouring source frame ({there:.2f} grey levels) than to its own "
            f"({here:.2f}).", here / max(there, 1e-3), 1 / 0.7, "times",
            "Is it another frame rate (--fps), or another video?",
        )  # fmt: skip
        return Outcome((one,), found.n_frames)
    if found.centre <= limit:
        return Outcome((), found.n_frames)
    better = _better_box(track, crop, found.centre)
    hint = f" {better} fits: was bbox.pt computed anew?" if better else ""
    one = finding(
        "error", track.folders.bbox or track.folders.source, "crops of the source frames by "
        f"{crop.bbox} differ from the tracker's images by {found.centre:.1f} grey levels.{hint}",
        found.centre, limit, "grey levels",
        "Is bbox.pt of another run, or is it another video or frame rate (--fps)? "
        f"`{_recover(track)}` finds the box of these images.",
    )  # fmt: skip
    return Outcome((one,), found.n_frames)


def _better_box(track: Tracked, crop: Crop, centre: float) -> BBox | None:
    """A box a little beside that explains one image; a far one is for recover-bbox."""
    if track.is_whole or crop.output.width != crop.output.height:
        return None
    try:
        source, images, _ = _sequences(track)
        frame, image = next(source.stream([0])), images.read(0)
    except (CheckSkipped, UncropError, StopIteration):
        return None
    best, best_centre = None, centre
    bbox = crop.bbox
    for dx in range(-_N_TRIED, _N_TRIED + 1):
        for dy in range(-_N_TRIED, _N_TRIED + 1):
            moved = BBox(bbox.x_min + dx, bbox.x_max + dx, bbox.y_min + dy, bbox.y_max + dy)
            try:
                tried = Crop.from_bbox(moved, crop.source, crop.output)
            except UncropError:
                continue
            off = _centre_difference(render_crop(frame, tried), image)
            if off < best_centre:
                best, best_centre = moved, off
    return best if best_centre < 0.5 * centre and best_centre <= SAME_GREY_LEVELS else None


def _centre_difference(a: object, b: object) -> float:
    import numpy as np

    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape:
        return float("inf")
    h, w = x.shape[0] // 4, x.shape[1] // 4
    return float(np.mean(np.abs(x[h:-h, w:-w].astype(np.int16) - y[h:-h, w:-w])))


@check("crop-altered")
def crop_altered(track: Tracked) -> Outcome:
    """The tracker's images equal the source outside the middle, too."""
    crop, found, limit = _compared(track)
    if found.centre > limit:
        raise CheckSkipped("the crops differ in the middle already; see crop-pixels")
    if found.worst <= SAME_GREY_LEVELS:
        return Outcome((), found.n_frames)
    one = finding(
        "warning", track.files.images[0].parent, "the tracker's images equal the source in the "
        "middle and differ outside it, as with a replaced background.", found.worst,
        SAME_GREY_LEVELS, "grey levels", "If you replaced it yourself, all is well.",
    )  # fmt: skip
    return Outcome((one,), found.n_frames)
