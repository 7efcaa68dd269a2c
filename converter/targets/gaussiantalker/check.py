"""Reading a written dataset as GaussianTalker's loader does, and holding it against the track.

Loader: https://github.com/KU-CVLAB/GaussianTalker, scene/talking_dataset_readers.py:200-420,
scene/dataset.py:32-81.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.record import Reference, check_files
from converter.dataset.reprojection import compare_projections, compare_refitted
from converter.dataset.stand_in import meshes_or_stand_in
from converter.errors import FormatError, UncropError
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import Pose
from converter.media.arrays import read_npy
from converter.media.files import read_bytes
from converter.media.images import read_size
from converter.media.manifest import read_json
from converter.media.torchfile import read_torch
from converter.targets.gaussiantalker.cameras import loaded_from_stored, rasterised
from converter.targets.gaussiantalker.landmarks import read_lms

NAME = "gaussiantalker"
REPROJECTION_LIMIT_PX = 0.01
_LANDMARK_LIMIT_PX = 1e-3
_BLINK_COLUMN = " AU45_r"


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What the loader makes of the camera files.

    Attributes
    ----------
    w2c
        (M,) world to camera, OpenCV axes, world units.
    vertices
        (V, 3) mean vertices, world units.
    focal, size
        px of the written images.
    image_ids, audio_ids
        (M,) of both splits together, train first.

    """

    w2c: Pose
    vertices: Floats
    focal: float
    size: Size
    image_ids: NDArray[np.int64]
    audio_ids: NDArray[np.int64]

    def project(self, position: int, vertices: Floats) -> Floats:
        """Edge-origin px at which the rasteriser draws world points (V, 3) in one frame."""
        return rasterised(self.w2c[position](vertices), self.focal, self.size)


def load_dataset(out: Path) -> LoadedDataset:
    """Read the camera files as the loader does.

    Raises
    ------
    UncropError
        Where the loader would raise, or silently go wrong.

    """
    tensors = read_torch(out / "track_params.pt").content
    if not isinstance(tensors, dict):
        raise FormatError(out / "track_params.pt", "a dictionary of tensors", "something else")
    euler = _tensor(tensors, out, "euler", 2)
    trans = _tensor(tensors, out, "trans", 2)
    vertices = _tensor(tensors, out, "vertices", 3)
    splits = [read_json(out / f"transforms_{split}.json") for split in ("train", "val")]
    frames = [frame for split in splits for frame in _frames(split, out)]
    focal, cx, cy = (_common(splits, key, out) for key in ("focal_len", "cx", "cy"))
    ids = np.array([_whole(f, "img_id", out) for f in frames], np.int64)
    audio = np.array([_whole(f, "aud_id", out) for f in frames], np.int64)
    if ids.min() < 0 or ids.max() >= len(euler) or len(trans) != len(euler):
        raise FormatError(out / "transforms_train.json", f"img_id below {len(euler)}",
                          f"{ids.max()}")  # fmt: skip
    return LoadedDataset(
        loaded_from_stored(euler[ids], trans[ids]),
        vertices.mean(axis=0),
        float(focal),
        Size(round(2 * cx), round(2 * cy)),
        ids,
        audio,
    )


def _tensor(tensors: dict[Any, Any], out: Path, key: str, n_axes: int) -> Floats:
    where = f"{out / 'track_params.pt'}: {key}"
    array = tensors.get(key)
    if not isinstance(array, np.ndarray) or array.ndim != n_axes or array.shape[-1] != 3:
        found = "nothing" if array is None else f"shape {np.shape(array)}"
        raise FormatError(where, f"a float32 tensor with {n_axes} axes, the last of 3", found)
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise FormatError(where, "finite float32", str(array.dtype))
    return array.astype(np.float64)


def _frames(split: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    frames = split.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise FormatError(out / "transforms_train.json", "frames in both splits", "none")
    return frames


def _common(splits: list[dict[str, Any]], key: str, out: Path) -> float:
    train, val = (split.get(key) for split in splits)
    where = f"{out / 'transforms_train.json'}: {key}"
    if train != val:
        raise FormatError(where, "the same number in both splits", f"{train} and {val}")
    if isinstance(train, bool) or not isinstance(train, int | float) or not train > 0:
        raise FormatError(where, "a number above 0", str(train))
    return float(train)


def _whole(frame: dict[str, Any], key: str, out: Path) -> int:
    value = frame.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(out / "transforms_train.json", f"{key}, a whole number", str(value))
    return value


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference, dataset = Reference.read(out, NAME), load_dataset(out)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    findings = check_reprojection(dataset, reference)
    findings += _check_files(out, dataset, reference)
    findings += _check_landmarks(out, dataset, reference)
    findings += _check_tables(out, dataset)
    return findings + _check_parts(out, dataset)


def check_reprojection(dataset: LoadedDataset, reference: Reference) -> list[Finding]:
    """Distances between the mesh through the dataset's cameras and through the track's."""
    meshes = meshes_or_stand_in(reference.track)
    mesh = np.zeros((0, 3)) if meshes is None else meshes.mean.astype(np.float64)
    if len(mesh) != len(dataset.vertices) or dataset.image_ids.max() >= len(reference.positions):
        return [_error("reprojection", "track_params.pt", "holds another mesh, or other frames.")]
    frames = [(int(i), int(reference.positions[i])) for i in dataset.image_ids]

    def project(frame: int, picks: NDArray[np.int64]) -> Floats:
        return dataset.project(frame, dataset.vertices[picks])

    limit = REPROJECTION_LIMIT_PX
    return [
        compare_projections(reference, frames, project, mesh=mesh, limit_px=limit, what="img_id"),
        *compare_refitted(reference, frames, project, mesh=mesh),
    ]


def _check_files(out: Path, dataset: LoadedDataset, reference: Reference) -> list[Finding]:
    """Images of both splits by name and header; every file by its hash."""
    findings = []
    for image_id in dataset.image_ids:
        path = out / "ori_imgs" / f"{image_id}.jpg"
        try:
            size = read_size(path)
        except UncropError as error:
            findings.append(Finding.of_error("image-unreadable", error))
            continue
        if size != dataset.size:
            findings.append(_error("image-size", path, f"is {size}, cameras say {dataset.size}."))
    if (out / "fused.ply").exists():
        findings.append(_error("fused-ply", out / "fused.ply", "makes the loader stop; remove it."))
    return findings + check_files(out, reference, _is_core)


def _is_core(name: str) -> bool:
    """Whether a changed file makes cameras or pixels doubtful; au.csv and layers may be remade."""
    return name.startswith(("ori_imgs/", "track_params", "transforms_"))


def _check_landmarks(out: Path, dataset: LoadedDataset, reference: Reference) -> list[Finding]:
    findings: list[Finding] = []
    landmarks = reference.track.landmarks
    for image_id in dataset.image_ids:
        path = out / "ori_imgs" / f"{image_id}.lms"
        try:
            points = read_lms(path)
        except UncropError as error:
            findings.append(Finding.of_error("lms-unreadable", error))
            continue
        position = int(reference.positions[image_id])
        true = None if landmarks is None else landmarks[position]
        if true is None or not np.isfinite(true).all():
            continue  # interpolated: nothing to compare with
        expected = reference.canvas_from_crop[position](true)
        off = float(np.abs(points - expected).max())
        if off > _LANDMARK_LIMIT_PX:
            findings.append(
                Finding("lms-off", "error", str(path), "is not where the track's landmarks are.",
                        off, _LANDMARK_LIMIT_PX, "px")
            )  # fmt: skip
    return findings


def _check_tables(out: Path, dataset: LoadedDataset) -> list[Finding]:
    findings = []
    n = int(dataset.image_ids.max()) + 1
    try:
        rows = read_bytes(out / "au.csv").decode("utf-8", "replace").splitlines()
        if _BLINK_COLUMN not in rows[0].split(",") or len(rows) - 1 < n:
            raise FormatError(out / "au.csv", f"the column '{_BLINK_COLUMN}' and {n} rows",
                              f"{len(rows) - 1} rows")  # fmt: skip
    except UncropError as error:
        findings.append(Finding.of_error("au-unreadable", error))
    features = out / "aud_ds.npy"
    if features.exists():
        try:
            shape = read_npy(features).shape
            if len(shape) != 3 or shape[1:] != (16, 29):
                raise FormatError(features, "Nx16x29", "x".join(map(str, shape)))
            findings += _check_sound_length(features, shape[0], dataset)
        except UncropError as error:
            findings.append(Finding.of_error("audio-unreadable", error))
    return findings


def _check_sound_length(path: Path, n: int, dataset: LoadedDataset) -> list[Finding]:
    beyond = int(np.sum(dataset.audio_ids >= n))
    if not beyond:
        return []
    message = (
        f"holds {counted(n, 'window')}; the last one is repeated for "
        f"{counted(beyond, 'frame')} beyond."
    )
    return [Finding("audio-short", "warning", str(path), message, float(beyond), unit="frames")]


def _check_parts(out: Path, dataset: LoadedDataset) -> list[Finding]:
    """What training still lacks; the cameras do not depend on it."""
    ids = dataset.image_ids
    lacking = {
        "aud_ds.npy": int(not (out / "aud_ds.npy").is_file()),
        "bc.jpg": int(not (out / "bc.jpg").is_file()),
        "parsing/": sum(not (out / "parsing" / f"{i}.png").is_file() for i in ids),
        "torso_imgs/": sum(not (out / "torso_imgs" / f"{i}.png").is_file() for i in ids),
    }
    return [
        Finding("part-missing", "info", str(out / name), f"missing before training: {n}.",
                float(n), unit="files")
        for name, n in lacking.items()
        if n
    ]  # fmt: skip


def _error(check: str, where: object, message: str) -> Finding:
    return Finding(check, "error", str(where), message)
