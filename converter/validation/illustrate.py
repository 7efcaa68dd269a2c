"""What a report shows beside its findings: facts, numbers per frame, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from converter.errors import UncropError
from converter.geometry.crop import Crop
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.geometry.pose import rotation_vector_from_matrix
from converter.media.contact_sheet import ProofFrame, proof_tile
from converter.media.images import encode_image
from converter.media.resampling import resample
from converter.track import Image, Track
from converter.validation.evidence import CheckSkipped, Evidence, spread
from converter.validation.report import CheckResult, Picture, Series
from converter.validation.tracked import Tracked

_WIDTH = 640
_N_ERRORS = 160
"""Frames whose reprojection error is plotted: each needs its mesh."""
_FAR_PX = 1e5
_BOX_COLOUR = (60, 220, 240)
_MARKING: dict[str, tuple[str, ...]] = {
    "focal length": ("K-naive", "K-source", "K-scaled", "K-swapped", "K-malformed", "K-differs",
                     "camera-varies", "frames-leftover", "fov-range"),
    "principal point": ("K-naive", "K-source", "K-scaled", "K-swapped", "K-transposed",
                        "K-differs", "camera-varies", "frames-leftover"),
    "rotation": ("rotation-invalid", "rotation-transposed", "pose-axes", "pose-differs",
                 "frames-leftover", "frames-renamed", "jitter"),
    "translation": ("pose-axes", "pose-differs", "head-behind", "frames-leftover",
                    "frames-renamed", "jitter"),
    "reprojection error": ("landmarks-missing", "frames-leftover", "frames-renamed"),
}  # fmt: skip


def facts_of(evidence: Evidence) -> dict[str, str]:
    """What a reader wants to know at a glance."""
    facts = {}
    if isinstance(evidence, Tracked):
        facts["frames"] = _frames_text(evidence.numbers)
        sizes = (("images", evidence.image_size), ("source", evidence.source_size))
        facts |= {name: str(size) for name, size in sizes if size is not None}
    try:
        with np.errstate(all="ignore"):
            facts |= _track_facts(evidence)
    except (CheckSkipped, UncropError) as error:
        facts["cameras"] = f"none: {error}"
    return facts


def _frames_text(numbers: Sequence[int]) -> str:
    if not numbers:
        return "0"
    lost = numbers[-1] + 1 - len(numbers)
    return f"{len(numbers)}, {numbers[0]:05d} to {numbers[-1]:05d}" + (
        f", {lost} missing" if lost else ""
    )


def _track_facts(evidence: Evidence) -> dict[str, str]:
    track = evidence.track
    facts = (
        {} if isinstance(evidence, Tracked) else {"frames": _frames_text(track.frame_ids.tolist())}
    )
    k = track.intrinsics[0]
    dx, dy = k.cx - k.size.width / 2, k.cy - k.size.height / 2
    facts["K"] = (
        f"f {k.fx:.2f} px, principal point ({dx:+.1f}, {dy:+.1f}) px from the centre of the "
        f"{k.size} {track.image_space}"
    )
    facts["fov"] = f"{k.fov_x_deg:.1f} x {k.fov_y_deg:.1f} degrees"
    if track.crop is not None:
        facts["crop"] = str(track.crop)
    facts["moves"] = ", ".join(_moving(track)) or "nothing"
    if isinstance(evidence, Tracked) and evidence.numbering is not None:
        first = evidence.numbers[0]
        image = evidence.files.image_name(first + evidence.numbering.offset)
        facts["numbering"] = evidence.numbering.sentence(first, image)
    return facts


def _moving(track: Track) -> list[str]:
    flame = track.flame
    blocks = (("expression", flame.expression), ("jaw", flame.jaw), ("eyelids", flame.eyelids))
    return [n for n, b in blocks if b is not None and bool(np.any(b != b[0]))]


# --- series -----------------------------------------------------------------------------------


def series_of(evidence: Evidence, results: Iterable[CheckResult]) -> tuple[Series, ...]:
    """Focal length, principal point, rotation, translation and reprojection error per frame."""
    try:
        with np.errstate(all="ignore"):
            return _all_series(evidence, list(results))
    except (CheckSkipped, UncropError):
        return ()


def _all_series(evidence: Evidence, results: list[CheckResult]) -> tuple[Series, ...]:
    track = evidence.track
    ids, n = track.frame_ids, len(track)
    if isinstance(evidence, Tracked):  # as stored: what is wrong must be seen
        stored = evidence.cameras
        K, pose = stored.K, stored.pose
    else:
        K, pose = np.broadcast_to(track.intrinsics.matrix, (n, 3, 3)), track.w2c
    marks = {r.check: r.frame_ids for r in results if r.status == "found" and len(r.frame_ids) < n}

    def series(name: str, unit: str, values: Floats, labels: tuple[str, ...] = ()) -> Series:
        marked = sorted((i, c) for c in _MARKING[name] for i in marks.get(c, ()))
        return Series(name, unit, ids, values, labels, tuple(marked))

    rotation = np.full((n, 3), np.nan)
    sound = pose.rotation_defect() < 0.5
    if sound.any():
        mean = pose.R[np.flatnonzero(sound)[0]]
        rotation[sound] = np.degrees(rotation_vector_from_matrix(pose.R[sound] @ mean.T))
    found = [
        series("focal length", "px", np.stack([K[:, 0, 0], K[:, 1, 1]], axis=1), ("fx", "fy")),
        series("principal point", "px", K[:, :2, 2], ("cx", "cy")),
        series("rotation", "degrees from the first frame", rotation, ("x", "y", "z")),
        series("translation", "m", pose.t, ("x", "y", "z")),
    ]
    errors = _reprojection_errors(evidence)
    if errors is not None and np.isfinite(errors).any():
        found.append(series("reprojection error", "px, landmarks to their mesh vertices", errors))
    return tuple(found)


def _reprojection_errors(evidence: Evidence) -> Floats | None:
    """Root mean square distance of landmarks and the mesh vertices that follow them, (N,), px.

    The vertices are chosen on a quarter of the frames (metrical-tracker spec, 3.10).
    """
    points = evidence.track.landmarks
    if points is None or evidence.track.meshes is None:
        return None
    if isinstance(evidence, Tracked):
        evidence.all_landmarks()
    track = evidence.in_crop
    there = evidence.with_landmarks
    meshes = set(evidence.with_mesh_files)
    there = [i for i in there if i in meshes]
    if isinstance(evidence, Tracked):
        cameras = evidence.cameras
        stored = evidence.track_with(cameras.K, cameras.pose)
        track = stored if stored.image_space == "crop" else track
    projected = {}
    for i in spread(there, _N_ERRORS):
        vertices = evidence.vertices(i)
        if vertices is not None:
            projected[i] = track.project(i, vertices)
    frames = list(projected)
    if len(frames) < 4:
        return None
    costs = np.zeros((projected[frames[0]].shape[0], points.shape[1]))
    for i in spread(frames, 12):
        x = projected[i][:, None, 0] - points[i][None, :, 0]
        y = projected[i][:, None, 1] - points[i][None, :, 1]
        costs += np.nan_to_num(np.hypot(x, y), nan=1e9)
    vertex = np.argmin(costs, axis=0)
    errors = np.full(len(track), np.nan)
    for i in frames:
        off = projected[i][vertex] - points[i]
        errors[i] = np.sqrt(np.mean((off**2).sum(axis=-1)))
    return errors


# --- pictures ---------------------------------------------------------------------------------


def pictures_of(evidence: Evidence) -> tuple[Picture, ...]:
    """The crop on a source frame, and mesh and landmarks over a crop."""
    found = []
    for make in (_crop_picture, _mesh_picture):
        try:
            with np.errstate(all="ignore"):
                picture = make(evidence)
        except (CheckSkipped, UncropError):
            picture = None
        if picture is not None:
            found.append(picture)
    return tuple(found)


def _middle(evidence: Evidence) -> int:
    """A frame with landmarks near the middle; of a video the first, which costs no decoding."""
    there = evidence.with_landmarks or list(range(len(evidence.ids)))
    return there[len(there) // 2]


def _source_image(evidence: Evidence) -> tuple[Image, str] | None:
    if isinstance(evidence, Tracked):
        files = evidence.files
        if files.source_files:
            path = files.source_files[min(len(files.source_files) - 1, evidence.offset or 0)]
            return evidence.pictures(path), path.name
        if files.video is not None:
            return next(files.video.stream([0])), "frame 0 of the video"
        return None
    frames = evidence.track.source_frames
    return None if frames is None else (frames.read(0), frames.name(0))


def _crop_picture(evidence: Evidence) -> Picture | None:
    crop = evidence.crop if isinstance(evidence, Tracked) else evidence.track.crop
    source = _source_image(evidence)
    if crop is None or source is None:
        return None
    image, name = source
    return Picture(f"{crop} on {name}", encode_image(_with_box(image, crop), ".jpg", 85))


def _with_box(image: Image, crop: Crop) -> Image:
    """The image at most 640 px wide, darkened outside the crop, with its rectangle."""
    import cv2

    scale = min(1.0, _WIDTH / image.shape[1])
    size = Size(max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    small_from_image = PixelAffine.resize(Size.of(image), size)
    small = resample(image, small_from_image, size)
    box = crop.bbox
    corners = small_from_image(np.array([[box.x_min, box.y_min], [box.x_max, box.y_max]]))
    (x0, y0), (x1, y1) = np.rint(corners).astype(int).tolist()
    shown = (small * 0.45).astype(np.uint8)
    shown[max(y0, 0) : y1, max(x0, 0) : x1] = small[max(y0, 0) : y1, max(x0, 0) : x1]
    cv2.rectangle(shown, (x0, y0), (x1 - 1, y1 - 1), _BOX_COLOUR, 2)
    return shown


def _mesh_picture(evidence: Evidence) -> Picture | None:
    track = evidence.track
    if track.meshes is None:
        return None
    there = evidence.with_landmarks or list(range(len(evidence.ids)))
    meshes = set(evidence.with_mesh_files)
    there = [i for i in there if i in meshes]
    if not there:
        return None
    index = there[len(there) // 2]
    image, vertices = _crop_image(evidence, index), evidence.vertices(index)
    if image is None or vertices is None:
        return None
    shown = evidence.in_crop
    text = "as stored"
    if isinstance(evidence, Tracked):
        cameras = evidence.cameras
        shown = evidence.track_with(cameras.K, cameras.pose)
    projected = shown.project(index, vertices)
    if not _in_view(projected, Size.of(image)):
        if not isinstance(evidence, Tracked):
            return None
        projected = evidence.in_crop.project(index, vertices)
        text = "by the camera block: as stored the mesh is out of the picture"
        if not _in_view(projected, Size.of(image)):
            return None
    number = int(evidence.ids[index])
    landmarks = np.zeros((0, 2)) if track.landmarks is None else track.landmarks[index]
    tile = ProofFrame(image, projected, landmarks, f"{number:05d}")
    drawn = encode_image(proof_tile(tile, track.meshes.faces), ".jpg", 88)
    return Picture(f"mesh and landmarks over the crop of frame {number:05d}, {text}", drawn)


def _in_view(points: Floats, size: Size) -> bool:
    inside = (points >= 0).all(axis=1) & (points < [size.width, size.height]).all(axis=1)
    extent = np.ptp(points[inside], axis=0) if inside.any() else np.zeros(2)
    # Cameras that are wrong make dots of a head, or draw it far too large.
    return bool(inside.mean() > 0.1 and extent.max() > 8 and np.nanmax(np.abs(points)) < _FAR_PX)


def _crop_image(evidence: Evidence, index: int) -> Image | None:
    if isinstance(evidence, Tracked):
        number = int(evidence.ids[index])
        dump = evidence.files.dumps.get(number)
        if dump is not None:
            return evidence.pictures(dump)
        if evidence.offset is not None and evidence.files.images:
            position = number + evidence.offset
            if 0 <= position < len(evidence.files.images):
                return evidence.pictures(evidence.files.images[position])
        return None
    frames = evidence.track.crop_frames
    return None if frames is None else frames.read(index)
