"""What is left to recover a box from when the crops are gone too: landmarks in both spaces.

The tracker's kpt/ (68 points) or kpt_dense/ (478) hold them in the pixels of the crop. Those of the
source frames come from files or from a detector. Accepted, for one source frame or for many::

    LANDMARKS/00001.npy      (68, 2) or (478, 2) numbers, named like the source frame
    LANDMARKS/00001.lms      68 lines "x y"
    LANDMARKS.npy            (F, 68, 2): frame by frame from source frame 00001 on
    LANDMARKS.npz            the same, as its only array

68 points count pixel centres from 0, as detectors and .lms files do; 478 count from the image's
edge, as the tracker writes MediaPipe's. Frames of zeros or NaN have no face.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, MissingInputError, RecoveryError
from converter.findings import counted
from converter.geometry.crop import BBox
from converter.geometry.pixels import Floats, Size, index_from_pixels, pixels_from_index
from converter.media.arrays import read_npy, read_npz
from converter.media.files import read_bytes, scan_folder
from converter.media.images import ImageFiles
from converter.media.limits import Limits
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.cameras import stated_size
from converter.sources.metrical_tracker.files import (
    LARGEST_EDGE,
    N_DENSE_LANDMARKS,
    N_LANDMARKS,
    FrameFiles,
)
from converter.sources.metrical_tracker.folders import TrackFolders, looks_like_track
from converter.sources.metrical_tracker.lost_bbox import lost_folders, source_frames
from converter.sources.metrical_tracker.payload import read_frame
from converter.track import Frames, Image
from fitting.crop.certificate import CropCertificate
from fitting.crop.landmarks import LandmarkPair, box_from_landmarks, box_from_rule, rule_box
from fitting.crop.sequences import spread
from fitting.detectors import LandmarkDetector

_DEFAULT_SIZE = Size(512, 512)
"""The tracker's image_size unless its yaml says otherwise."""
_N_DETECTED = 9
_FOLDERS = {N_LANDMARKS: "kpt", N_DENSE_LANDMARKS: "kpt_dense"}


@dataclass(frozen=True, slots=True)
class SourceLandmarks:
    """Landmarks of source frames: by name of the frame, (N, 2) edge-origin px.

    ``whole`` says that all are whole numbers, as face_alignment, the tracker's detector, gives
    them.
    """

    points: Mapping[str, Floats]
    n_points: int
    whole: bool


@dataclass(frozen=True, slots=True)
class LostCrops:
    """What is left of a track without crops and bbox.

    Attributes
    ----------
    name
        Name of the track.
    folders
        Where its files are.
    sources
        Source frames.
    output
        Size of the crops.
    path
        Where the tracker would have written bbox.pt.

    """

    name: str
    folders: TrackFolders
    sources: Frames
    output: Size
    path: Path


def find_lost_crops(path: Path, options: ReadOptions) -> LostCrops:
    """Find what is left of a track whose crops are gone.

    Raises
    ------
    MissingInputError
        If there are no source frames.

    """
    folders = lost_folders(path, options)
    sources = source_frames(folders, options)
    output = _DEFAULT_SIZE
    if looks_like_track(path):
        frames = FrameFiles.of(folders.checkpoint).paths
        stated = stated_size(read_frame(frames[0], options.limits)) if frames else None
        output = stated or output
    actor = folders.inputs
    return LostCrops(folders.name, folders, sources, output, actor / "bbox.pt")


def landmarks_left(lost: LostCrops) -> str:
    """Say which landmarks of the crops there are, e.g. "kpt/ of 76 frames"; empty if none."""
    actor = lost.folders.actor
    for folder in _FOLDERS.values():
        n_files = len(_names(actor / folder, (".npy",))) if actor is not None else 0
        if n_files:
            return f"{folder}/ of {counted(n_files, 'frame')}"
    return ""


def approximate_box(
    lost: LostCrops, landmarks: SourceLandmarks, where: object, limits: Limits
) -> CropCertificate:
    """Estimate the box from landmarks in crops and sources, or by the tracker's rule alone.

    ``where`` names the landmarks of the source frames in messages.

    Raises
    ------
    RecoveryError
        If they are those of the crops.
    FormatError
        If a landmark file cannot be read.
    MissingInputError
        If nothing fits together.

    """
    source = lost.sources.size
    by_rule = _by_rule(landmarks, source)
    crops = _crop_landmarks(lost.folders, landmarks.n_points, limits)
    both = sorted(crops.keys() & landmarks.points.keys())
    if both and all(np.array_equal(crops[n], landmarks.points[n]) for n in both):
        as_in = f"{counted(len(both), 'frame')} as in {_FOLDERS[landmarks.n_points]}/"
        raise RecoveryError(
            where,
            "landmarks of source frames",
            f"those of the crops: {as_in}",
            "Find the same points in source frames, with the detector that made these.",
        )
    if both:
        pairs = [LandmarkPair(n, crops[n], landmarks.points[n]) for n in both]
        return box_from_landmarks(pairs, source, lost.output, by_rule and by_rule[1])
    if by_rule is not None:
        name, _ = by_rule
        return box_from_rule(landmarks.points[name], name, source, lost.output)
    raise MissingInputError(
        lost.folders.inputs,
        f"{_FOLDERS[landmarks.n_points]}/ of frames that have source landmarks, or 68 landmarks of "
        "the first source frame",
        "neither",
        "Name landmark files like their frames, 00001.npy.",
    )


def _by_rule(landmarks: SourceLandmarks, source: Size) -> tuple[str, BBox] | None:
    """Return the first frame and its box by get_bbox, if its detector may be the tracker's own."""
    if landmarks.n_points != N_LANDMARKS or not landmarks.whole:
        return None
    first = min(landmarks.points)
    is_first = not re.fullmatch(r"\d+", first, re.ASCII) or int(first) <= 1
    return (first, rule_box(landmarks.points[first], source)) if is_first else None


def _crop_landmarks(folders: TrackFolders, n_points: int, limits: Limits) -> dict[str, Floats]:
    """Landmarks of the crops by name; frames without a face are left out."""
    if folders.actor is None:
        return {}
    folder = folders.actor / _FOLDERS[n_points]
    found = {}
    for name in _names(folder, (".npy",)):
        points = _points(read_npy(folder / name, limits), folder / name)
        if points is not None and len(points) == n_points:
            found[Path(name).stem] = _edge_origin(points)
    return found


def redetect(
    lost: LostCrops, detect: Callable[[Image], Floats | None] | None = None
) -> SourceLandmarks:
    """Find 68 landmarks in the first source frame and in others spread over the track.

    Parameters
    ----------
    lost
        What is left.
    detect
        Landmarks (68, 2) of an image, edge-origin px, or None. Default: face_alignment, looking
        once at each face, as the tracker does.

    Raises
    ------
    MissingInputError
        If face_alignment or its weights are not there, or no frame shows a face.

    """
    detect = detect or LandmarkDetector(mirrored=False).detect
    sources = lost.sources
    indices = spread(len(sources), _N_DETECTED)
    found = {}
    for index, image in zip(indices, sources.stream(indices), strict=True):
        points = detect(image)
        if points is not None:
            is_file = isinstance(sources, ImageFiles)
            found[Path(sources.name(index)).stem if is_file else f"{index + 1:05d}"] = points
    if not found:
        raise MissingInputError(sources.origin, "a face in some source frame", "none")
    whole = all(not np.any(index_from_pixels(points) % 1) for points in found.values())
    return SourceLandmarks(found, N_LANDMARKS, whole)


# --- files ------------------------------------------------------------------------------------


def read_source_landmarks(path: Path, limits: Limits) -> SourceLandmarks:
    """Read landmarks of source frames; the formats are those of the module's docstring.

    Raises
    ------
    MissingInputError
        If there are none.
    FormatError, UnsafeFileError
        If a file is damaged or holds something else.

    """
    raw = dict(_stacked(path, limits) if path.is_file() else _in_folder(path, limits))
    if not raw:
        raise MissingInputError(
            path, "landmarks: NAME.npy or NAME.lms of source frames, or one .npy of all", "none"
        )
    counts = {len(points) for points in raw.values()}
    if len(counts) > 1:
        listed = " and ".join(map(str, sorted(counts)))
        raise FormatError(path, "as many landmarks in every frame", listed)
    whole = all(not np.any(points % 1) for points in raw.values())
    return SourceLandmarks({n: _edge_origin(p) for n, p in raw.items()}, counts.pop(), whole)


def _in_folder(path: Path, limits: Limits) -> Iterable[tuple[str, Floats]]:
    for name in _names(path, (".npy", ".lms")):
        file = path / name
        array = read_npy(file, limits) if name.endswith(".npy") else _read_lms(file, limits)
        points = _points(array, file)
        if points is not None:
            yield file.stem, points


def _stacked(path: Path, limits: Limits) -> Iterable[tuple[str, Floats]]:
    """Landmarks of all frames in one file; ffmpeg counts frames from 00001."""
    if path.suffix == ".npz":
        arrays = read_npz(path, limits)
        if len(arrays) != 1:
            raise FormatError(path, "one array", f"{len(arrays)}")
        (stack,) = arrays.values()
    else:
        stack = read_npy(path, limits)
    if stack.ndim != 3:
        raise FormatError(path, "an array (frames, 68, 2)", f"shape {stack.shape}")
    for number, array in enumerate(stack, 1):
        points = _points(array, path)
        if points is not None:
            yield f"{number:05d}", points


def _read_lms(path: Path, limits: Limits) -> NDArray[np.float64]:
    lines = read_bytes(path, limits).decode("ascii", "replace").split("\n")[: N_LANDMARKS + 1]
    try:
        return np.array([[float(v) for v in line.split()] for line in lines if line.strip()])
    except ValueError:
        raise FormatError(path, "68 lines 'x y'", "something else") from None


def _points(array: NDArray[np.generic], where: Path) -> Floats | None:
    """Check landmarks of one frame, in the file's own pixels; None where there is no face."""
    if array.ndim != 2 or array.shape[1] != 2 or array.shape[0] not in _FOLDERS \
            or array.dtype.kind not in "fiu":  # fmt: skip
        found = f"{'x'.join(map(str, array.shape))} {array.dtype}"
        raise FormatError(where, "68x2 or 478x2 numbers", found, "Are they face landmarks?")
    points: Floats = array.astype(np.float64)
    if not points.any() or not np.all(np.abs(points) < LARGEST_EDGE):  # NaN is not below either
        return None
    return points


def _edge_origin(points: Floats) -> Floats:
    return pixels_from_index(points) if len(points) == N_LANDMARKS else points


def _names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(e.name for e in scan_folder(folder) if e.name.endswith(suffixes))
