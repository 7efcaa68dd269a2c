"""What `inspect --json` says: the facts of its tables as numbers, for programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import OPENCV_FROM_OPENGL, Pose, euler_xyz_from_matrix
from converter.track import Frames, Track

Numbers = dict[str, Any]


def track_numbers(track: Track) -> Numbers:
    """Facts of a track; what it lacks is null. Lengths end in their unit."""
    ids, times = track.frame_ids, track.times
    return {
        "name": track.name,
        "tracker": track.provenance.tracker,
        "frames": {
            "n": len(track),
            "first": int(ids[0]),
            "last": int(ids[-1]),
            "n_missing": int(ids[-1] - ids[0]) + 1 - len(ids),
            "fps": track.fps,
            "begin_s": None if times is None else float(times[0]),
            "end_s": None if times is None else float(times[-1]),
        },
        "image_space": track.image_space,
        "intrinsics": _both_intrinsics(track),
        "crop": None if track.crop is None else crop_numbers(track.crop),
        "pose": pose_numbers(track.w2c),
        "flame": {
            name: list(np.shape(block))
            for name in track.flame.__slots__
            if (block := getattr(track.flame, name)) is not None
        },
        "landmarks": _landmark_numbers(track.landmarks),
        "dense_landmarks": _landmark_numbers(track.dense_landmarks),
        "meshes": None
        if track.meshes is None
        else {"n_vertices": len(track.meshes.mean), "n_faces": len(track.meshes.faces)},
        "crop_images": _image_numbers(track.crop_frames),
        "source_frames": _image_numbers(track.source_frames),
        "central_residual_px": None if track.central is None else list(track.central.residual_px),
        "video": None if track.video is None else track.video.name,
    }


def _both_intrinsics(track: Track) -> Numbers:
    """K of the crop and of the source frame, as far as each is known."""
    found = {track.image_space: track.intrinsics}
    if track.crop is not None:
        found["crop"] = track.in_crop().intrinsics
        if track.crop.source is not None:
            found["source"] = track.in_source().intrinsics
    return {space: intrinsics_numbers(k) for space, k in found.items()}


def intrinsics_numbers(k: Intrinsics) -> Numbers:
    """K of the first frame, px; ``varies`` where other frames have another."""
    first = k if k.n_frames is None else k[0]
    varies = k.n_frames is not None and bool(np.ptp(k.matrix, axis=0).any())
    return {
        "fx_px": float(first.fx),
        "fy_px": float(first.fy),
        "cx_px": float(first.cx),
        "cy_px": float(first.cy),
        **size_numbers(k.size),
        "fov_x_deg": float(first.fov_x_deg),
        "fov_y_deg": float(first.fov_y_deg),
        "varies": varies,
    }


def size_numbers(size: Size) -> Numbers:
    """Width and height, px."""
    return {"width": size.width, "height": size.height}


def bbox_numbers(bbox: BBox) -> Numbers:
    """The four edges, source px, half-open."""
    return {"x_min": bbox.x_min, "x_max": bbox.x_max, "y_min": bbox.y_min, "y_max": bbox.y_max}


def crop_numbers(crop: Crop) -> Numbers:
    """The cut, its padding and its sizes, px; scale in crop px per source px."""
    scale = crop.crop_from_source
    return {
        "bbox": bbox_numbers(crop.bbox),
        "pad_x": crop.pad_x,
        "pad_y": crop.pad_y,
        "scale_x": float(scale.sx),
        "scale_y": float(scale.sy),
        "source": None if crop.source is None else size_numbers(crop.source),
        "output": size_numbers(crop.output),
    }


def pose_numbers(w2c: Pose) -> Numbers:
    """Smallest and largest head angles against facing the camera, and distances."""
    angles = np.degrees(euler_xyz_from_matrix(w2c.change_axes(OPENCV_FROM_OPENGL).R))
    ranges = zip(("pitch_deg", "yaw_deg", "roll_deg"), angles.T, strict=True)
    z = w2c.t[:, 2]
    return {
        **{name: [float(a.min()), float(a.max())] for name, a in ranges},
        "distance_m": [float(z.min()), float(z.max())],
    }


def _landmark_numbers(points: Floats | None) -> Numbers | None:
    if points is None:
        return None
    n_found = int(np.isfinite(points).all(axis=(1, 2)).sum())
    return {"n_points": points.shape[1], "n_frames": n_found}


def _image_numbers(frames: Frames | None) -> Numbers | None:
    if frames is None:
        return None
    return {"n": len(frames), **size_numbers(frames.size), "origin": frames.origin}
