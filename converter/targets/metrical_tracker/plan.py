"""Everything that is decided before the first byte is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.bundle.contents import BundleMeshes, BundleVideo
from converter.dataset.depth import Depth, depth_on
from converter.dataset.frame_blocks import neutral_blocks, one_focal_length
from converter.errors import MissingInputError, TargetError
from converter.findings import Finding, counted
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.media.video import VideoFrames
from converter.targets.metrical_tracker.options import Options
from converter.track import Meshes, Track

TRACKER = "metrical-tracker"
_IMPORTED_SIDE = 512
_ROOM = 1.5
_HEAD_M = np.array([[x, y, z] for x in (-0.09, 0.09) for y in (-0.13, 0.1) for z in (-0.1, 0.1)])
_RESERVED = frozenset(
    ("images", "source", "kpt", "kpt_dense", "mesh", "depth", "video", "input_images")
)
"""Folder names in which nobody looks for a track."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Which image number every frame gets.

    Attributes
    ----------
    images
        (N,) number in the name of each frame's image: its source index + 1, as ffmpeg counts.
    blanks
        Numbers of the images that stand for frames that the track does not have.
    begin_frames
        The tracker's setting: frame i is ``sorted(images)[begin_frames + i]``.

    """

    images: NDArray[np.int64]
    blanks: tuple[int, ...]
    begin_frames: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written.

    Attributes
    ----------
    name
        Of the two folders and the yaml.
    original, track
        The track as it came; and with K, landmarks and crop of the images that are written.
    image_from_original
        Map from the image that the original K speaks of to the images that are written.
    drawn
        Where the pixels come from: the tracker's crops, the source frames cut as the tracker does,
        whole source frames, or nowhere.
    numbers
        None where nothing says which image a frame is.
    crop_image
        The tracker's setting: whether images are cut by a bbox.
    meshes
        Meshes of the frames, if the track has one for each.
    video
        Whether the source is a video that is copied.
    source_files
        Whether the source frames are written one by one.
    findings
        What was left out, filled in or doubted.

    """

    name: str
    original: Track
    track: Track
    image_from_original: PixelAffine
    drawn: Literal["crop", "cut", "source", "none"]
    numbers: Numbers | None
    crop_image: bool
    meshes: Meshes | None
    depth: Depth | None
    video: bool
    source_files: bool
    findings: tuple[Finding, ...]

    @property
    def size(self) -> Size:
        """Size of the images that are written."""
        return self.track.intrinsics.size


def make_plan(track: Track, options: Options) -> Plan:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    track.require_consistent()
    _require_in_front(track)
    findings: list[Finding] = []
    viewed, affine, findings_of_view = _view(track, options.size)
    findings += findings_of_view
    drawn = _drawn(track, viewed)
    if drawn == "none":
        fix = "Give --source DIR_OR_VIDEO and --bbox FILE, or --actor DIR."
        findings.append(_doubt("images-missing", track.name, "it has no images to write.", fix))
    numbers = _numbers(track, drawn != "none", findings)
    findings += _doubts(viewed)
    from_crop = affine
    if track.image_space == "source" and track.crop is not None:
        from_crop = affine @ track.crop.source_from_crop
    depth, doubts = depth_on(track, from_crop)
    findings += doubts
    source = track.source_frames
    is_video = isinstance(source, VideoFrames | BundleVideo)
    return Plan(
        name=track.name if track.name not in _RESERVED else f"{track.name}_track",
        original=track,
        track=viewed,
        image_from_original=affine,
        drawn=drawn,
        numbers=numbers,
        crop_image=viewed.crop is None or not viewed.crop.is_whole,
        meshes=_meshes(track, findings),
        depth=depth,
        video=is_video and options.with_source != "none",
        source_files=source is not None and not is_video and options.with_source == "all",
        findings=tuple(findings),
    )


def _require_in_front(track: Track) -> None:
    behind = np.flatnonzero(track.w2c.t[:, 2] <= 0)
    if len(behind):
        raise TargetError(
            f"{track.name}: frame {int(track.frame_ids[behind[0]]):05d}",
            "the head in front of the camera (t_z > 0)",
            f"t_z = {track.w2c.t[behind[0], 2]:.3f} m",
            "Readers of .frame files refuse such cameras.",
        )


# --- which images -----------------------------------------------------------------------------


def _view(track: Track, side: int | None) -> tuple[Track, PixelAffine, list[Finding]]:
    """The track with K of the images that are written, and the map from its own K's image."""
    if _is_imported(track):
        return _boxed(track, side or _IMPORTED_SIDE)
    if track.crop is None:
        if side is not None:
            raise MissingInputError(
                track.name, "the crop (bbox.pt) for --size", "none",
                "Give --bbox FILE, or --actor DIR if it lies in the actor folder.",
            )  # fmt: skip
        what = "its crop is not known; there is no bbox.pt."
        fix = "Give --bbox FILE, or recover it: uncrop recover-bbox TRACK."
        doubt = _doubt("bbox-missing", track.name, what, fix)
        return track, PixelAffine.identity(), [doubt]
    _require_cut_like_the_tracker(track, track.crop)
    in_crop = track.in_crop()
    from_own = (
        PixelAffine.identity() if track.image_space == "crop" else track.crop.crop_from_source
    )
    if side is None or Size(side, side) == track.crop.output:
        return in_crop, from_own, []
    if track.crop.is_whole or track.crop.output.width != track.crop.output.height:
        raise TargetError(
            "--size", "a track of square crops", f"images of {track.crop.output}",
            "Leave --size out.",
        )  # fmt: skip
    if track.source_frames is None:
        raise MissingInputError(
            track.name, "source frames for --size: other sizes are cut from them", "none",
            "Give --source DIR_OR_VIDEO.",
        )  # fmt: skip
    resized = PixelAffine.resize(track.crop.output, Size(side, side))
    return _mapped(in_crop, resized, track.crop.at_size(Size(side, side))), resized @ from_own, []


def _mapped(in_crop: Track, new_from_crop: PixelAffine, crop: Crop) -> Track:
    """The track with K and landmarks of another crop; the pose does not change."""

    def moved(points: Floats | None) -> Floats | None:
        return None if points is None else new_from_crop(points)

    return replace(
        in_crop,
        intrinsics=in_crop.intrinsics.map(new_from_crop, crop.output),
        crop=crop,
        image_space="crop",
        landmarks=moved(in_crop.landmarks),
        dense_landmarks=moved(in_crop.dense_landmarks),
        crop_frames=None,
    )


def _is_imported(track: Track) -> bool:
    """Whether the track never had a constant crop, as those of other trackers."""
    if track.crop is None:
        return track.image_space == "source"
    other = track.provenance.tracker != TRACKER
    return other and track.crop.is_whole and track.crop.output == track.crop.source


def _require_cut_like_the_tracker(track: Track, crop: Crop) -> None:
    """Raise TargetError unless a bbox.pt and the image size say the whole crop."""
    square = crop.output.width == crop.output.height
    expressed = crop.is_whole or (
        crop == Crop.from_bbox(crop.bbox, crop.source, crop.output)
        if square
        else crop.bbox.size == crop.output and crop.pad_x == crop.pad_y == 0
    )
    if not expressed:
        raise TargetError(
            f"{track.name}: crop", "a crop that the tracker makes from a bbox", f"{crop}",
            "Its layout has no place for another one.",
        )  # fmt: skip


def _boxed(track: Track, side: int) -> tuple[Track, PixelAffine, list[Finding]]:
    """A constant square round the head, for tracks that have none."""
    source = track.intrinsics.size
    if track.source_frames is None:
        raise MissingInputError(
            track.name, "source frames, to cut the head from", "none",
            "Give --source DIR_OR_VIDEO.",
        )  # fmt: skip
    bbox = _head_box(track, source)
    crop = Crop.from_bbox(bbox, source, Size(side, side))
    located = replace(track, crop=Crop.whole(source, source)) if track.crop is None else track
    mapped = _mapped(located, crop.crop_from_source, crop)
    said = Finding(
        "bbox-chosen", "info", track.name,
        f"it has no bbox; {bbox} round the head in all frames is used.",
    )  # fmt: skip
    return mapped, crop.crop_from_source, [said]


def _head_box(track: Track, source: Size) -> BBox:
    """Square of even extents that holds the head in every frame, cut off at the frame's border."""
    seen = np.stack([track.project(i, _HEAD_M) for i in range(len(track))])
    low, high = np.nanmin(seen, axis=1), np.nanmax(seen, axis=1)
    extent = float(np.median(np.max(high - low, axis=1)))
    union = np.stack([np.min(low, axis=0), np.max(high, axis=0)])
    half = (float(np.max(union[1] - union[0])) + (_ROOM - 1) * extent) / 2
    centre = union.mean(axis=0)
    borders = []
    for middle, length in zip(centre, (source.width, source.height), strict=True):
        first = int(np.clip(np.floor(middle - half), 0, length - 2))
        last = int(np.clip(np.ceil(middle + half), first + 1, length - 1))
        # The tracker's boxes have even extents, which keep the pixels of the crop square.
        borders += [first, last - (last - first) % 2 if last - first > 1 else last]
    return BBox(*borders)


def _drawn(original: Track, viewed: Track) -> Literal["crop", "cut", "source", "none"]:
    crops = viewed.crop_frames
    if crops is not None and crops.size == viewed.intrinsics.size:
        return "crop"
    if original.source_frames is None:
        return "none"
    if viewed.crop is not None:
        return "cut"
    return "source" if original.image_space == "source" else "none"


# --- numbers ----------------------------------------------------------------------------------


def _numbers(track: Track, has_images: bool, findings: list[Finding]) -> Numbers | None:
    ids, indices = track.frame_ids, track.source_indices
    if indices is None:
        if track.landmarks is None and track.dense_landmarks is None:
            return None
        indices = ids
        what = "it does not say which source frame a frame is; frame 0 is taken as the first."
        findings.append(_doubt("numbering-assumed", track.name, what))
    numbers = indices + 1
    if not has_images:
        begin = int(indices[0] - ids[0])
        if begin < 0 or np.any(indices - ids != begin):
            raise _out_of_step(track)
        return Numbers(numbers, (), begin)
    before = np.concatenate([[0], numbers[:-1]])
    n_blank = np.diff(ids, prepend=-1) - 1
    if np.any(before + n_blank >= numbers):
        raise _out_of_step(track)
    # The blanks before a frame get the numbers just below its own.
    blanks = [int(s - k) for s, n in zip(numbers, n_blank, strict=True) for k in range(n, 0, -1)]
    if blanks:
        findings.append(_doubt(
            "images-blank", track.name,
            f"a black image stands for {counted(len(blanks), 'frame')} that the track lacks, so "
            "that the others keep their numbers."))  # fmt: skip
    return Numbers(numbers, tuple(blanks), 0)


def _out_of_step(track: Track) -> TargetError:
    return TargetError(
        f"{track.name}: frame ids", "ids that count no faster than the source frames",
        "others", "Frame i is the i-th image in this layout; number the frames by their images.",
    )  # fmt: skip


# --- what is doubtful -------------------------------------------------------------------------


def _meshes(track: Track, findings: list[Finding]) -> Meshes | None:
    meshes = track.meshes
    mean_only = isinstance(meshes, BundleMeshes) and meshes.every is None and len(track) > 1
    if meshes is not None and not mean_only:
        return meshes
    found = "only the mean of its meshes is there" if mean_only else "it has no meshes"
    findings.append(_doubt("meshes-missing", track.name, f"{found}; mesh/ is left out.",
                           "INSTA needs them: export them from FLAME."))  # fmt: skip
    return None


def _doubts(track: Track) -> list[Finding]:
    """What readers of .frame files will stumble over although every number is right."""
    findings = []
    ids, k = track.frame_ids, track.intrinsics
    if not np.array_equal(ids, np.arange(len(ids))):
        findings.append(_doubt(
            "frames-gaps", track.name,
            f"it has {counted(len(ids), 'frame')}, numbered {ids[0]} to {ids[-1]}; INSTA and "
            "FlashAvatar need 0, 1, 2 ... without gaps."))  # fmt: skip
    if not one_focal_length(k):
        findings.append(_doubt(
            "camera-block", track.name,
            "fx and fy differ; the camera block holds one focal length and is left out.",
            "GaussianBlendshapes cannot read these files; INSTA can."))  # fmt: skip
    if k.n_frames is not None and np.ptp(k.matrix, axis=0).max() > 1e-6 * float(np.max(k.fx)):
        findings.append(_doubt(
            "K-varies", track.name, "K differs between frames; INSTA and FlashAvatar take the "
            "first frame's for all."))  # fmt: skip
    flame = track.flame
    if flame.expression is None or flame.shape is None:
        what = "it has no FLAME shape or expression; FlashAvatar needs both."
        findings.append(_doubt("flame-missing", track.name, what))
    return findings + neutral_blocks(track)


def _doubt(check: str, where: str, message: str, fix: str = "") -> Finding:
    return Finding(check, "warning", where, message, fix=fix)
