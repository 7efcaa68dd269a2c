"""Reading the folder as INSTA and GaussianBlendshapes do, and holding it against the track.

INSTA (nerf_loader.cu): frames sorted by mesh_path; focal length from x_fov, y_fov in degrees, which
win over fl_x, fl_y; cx, cy in px; transform_matrix camera to world, OpenCV axes.
GaussianBlendshapes: opencv R, t, K of checkpoint/N.frame, torch.load without conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.frame_blocks import size_from
from converter.dataset.record import Reference, check_files
from converter.dataset.reprojection import REPROJECTION_LIMIT_PX, compare_projections
from converter.dataset.scene import check_scene, check_sizes
from converter.errors import FormatError, UncropError
from converter.findings import Finding
from converter.geometry.pixels import Floats, Size
from converter.media.depth import DepthFiles
from converter.media.manifest import read_json
from converter.media.meshes import read_mesh
from converter.media.torchfile import read_torch

NAME = "insta"
SPLITS = ("train", "test", "val")
_MESH_LIMIT_M = 1e-6
_SAME_FOCAL = 1e-9


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What INSTA makes of transforms.json: w2c (M, 4, 4) and one fx, fy, cx, cy (4,)."""

    frames: list[dict[str, Any]]
    w2c: Floats
    camera: Floats
    size: Size

    @property
    def names(self) -> list[str]:
        """Image names, in order."""
        return [str(f["file_path"]).removeprefix("images/") for f in self.frames]

    def project(self, step: int, points: Floats) -> Floats:
        """Edge-origin px (P, 2) of world points (P, 3)."""
        seen = points @ self.w2c[step, :3, :3].T + self.w2c[step, :3, 3]
        return _pinhole(seen, self.camera)


def _pinhole(seen: Floats, camera: Floats) -> Floats:
    z = np.where(seen[:, 2:] > 0, seen[:, 2:], np.nan)
    pixels: Floats = seen[:, :2] * camera[:2] / z + camera[2:]
    return pixels


def load_dataset(out: Path, name: str = "transforms.json") -> LoadedDataset:
    """Read one file as INSTA does; raises UncropError where it would go wrong."""
    path = out / name
    content = read_json(path)
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise FormatError(path, "frames", "none")
    number = {k: _number(content, k, path) for k in ("w", "h", "cx", "cy", "fl_x", "fl_y")}
    focal = []
    for side, axis in (("w", "x"), ("h", "y")):
        angle = np.radians(_number(content, f"{axis}_fov", path))
        focal.append(0.5 * number[side] / np.tan(angle / 2))
        others = (
            number[f"fl_{axis}"],
            0.5 * number[side] / np.tan(_number(content, f"camera_angle_{axis}", path) / 2),
        )
        if any(abs(f / focal[-1] - 1) > _SAME_FOCAL for f in others):
            found = f"{focal[-1]:.6g}, {others[0]:.6g} and {others[1]:.6g} px"
            raise FormatError(f"{path}: {axis}_fov", "one focal length under all names", found)
    for frame in frames:
        for key in ("file_path", "mesh_path", "exp_path"):
            if not isinstance(frame.get(key), str) or not (out / frame[key]).is_file():
                raise FormatError(f"{path}: {key}", "a file of this folder", f"{frame.get(key)}")
    frames = sorted(frames, key=lambda f: str(f["mesh_path"]))
    matrices = np.stack([_matrix(f, path) for f in frames])
    camera = np.array([*focal, number["cx"], number["cy"]])
    size = Size(int(number["w"]), int(number["h"]))
    w2c: Floats = np.asarray(np.linalg.inv(matrices), np.float64)
    return LoadedDataset(frames, w2c, camera, size)


def _number(content: dict[str, Any], key: str, path: Path) -> float:
    value = content.get(key)
    if not isinstance(value, float):
        raise FormatError(f"{path}: {key}", "a float", str(value))
    return value


def _matrix(frame: dict[str, Any], path: Path) -> Floats:
    try:
        matrix = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 0.5:
        raise FormatError(f"{path}: transform_matrix", "a 4x4 pose", "another matrix")
    return matrix


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference, dataset = Reference.read(out, NAME), load_dataset(out)
        findings = check_scene(out, reference, dataset.names, dataset.project, ".png")
        findings += _check_splits(out, dataset)
        findings += _check_checkpoints(out, reference, dataset)
        findings += _check_meshes(out, reference, dataset)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    findings += check_sizes(out, dict.fromkeys(dataset.names, dataset.size))
    findings += _check_depth(out, dataset)
    return findings + check_files(out, reference, _is_core)


def _check_depth(out: Path, dataset: LoadedDataset) -> list[Finding]:
    """Depth of no frame or of every one, 16 bits, of the images' size."""
    paths = [frame.get("depth_path") for frame in dataset.frames]
    if not any(paths):
        return []
    findings = []
    for path in (out / f"{name}" for name in paths):
        try:
            DepthFiles((path,), dataset.size).read(0)
        except UncropError as error:
            findings.append(Finding.of_error("depth-unreadable", error))
    return findings


def _check_splits(out: Path, whole: LoadedDataset) -> list[Finding]:
    """Train and test together are all frames, with the same cameras; val is part of test."""
    parts = {name: load_dataset(out, f"transforms_{name}.json") for name in SPLITS}
    joined = parts["train"].frames + parts["test"].frames
    held = [f["file_path"] for f in parts["test"].frames]
    ok = joined == whole.frames and all(f["file_path"] in held for f in parts["val"].frames)
    ok &= all(np.array_equal(p.camera, whole.camera) for p in parts.values())
    if ok:
        return []
    return [Finding("splits-differ", "error", str(out / "transforms_train.json"),
                    "train and test are not the frames of transforms.json.")]  # fmt: skip


def _check_checkpoints(out: Path, reference: Reference, dataset: LoadedDataset) -> list[Finding]:
    """Reproject through opencv's block of every .frame, as GaussianBlendshapes does."""
    meshes = reference.track.meshes
    mesh = np.zeros((0, 3)) if meshes is None else meshes.mean.astype(np.float64)
    cameras = []
    for name in dataset.names:
        path = out / "checkpoint" / f"{Path(name).stem}.frame"
        content: Any = read_torch(path).content
        try:
            block = {k: np.asarray(content["opencv"][k][0], np.float64) for k in ("R", "t", "K")}
            size, stem = size_from(content), str(content["frame_id"])
            fits = [block[k].shape for k in ("R", "t", "K")] == [(3, 3), (3,), (3, 3)]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FormatError(path, "a camera", f"{type(error).__name__} {error}") from None
        if not fits or size != dataset.size or stem != path.stem:
            raise FormatError(path, f"the camera of frame {path.stem}, {dataset.size}",
                              f"frame {stem}, {size}")  # fmt: skip
        cameras.append(block)

    def project(step: int, picks: NDArray[np.int64]) -> Floats:
        R, t, K = (cameras[step][k] for k in ("R", "t", "K"))
        return _pinhole(mesh[picks] @ R.T + t, K[[0, 1, 0, 1], [0, 1, 2, 2]])

    frames = [(int(reference.track.frame_ids[p]), int(p)) for p in reference.positions]
    found = compare_projections(reference, frames, project, mesh=mesh, what="frame",
                                limit_px=REPROJECTION_LIMIT_PX)  # fmt: skip
    return [] if found.severity == "info" else [found]


def _check_meshes(out: Path, reference: Reference, dataset: LoadedDataset) -> list[Finding]:
    """canonical.obj is the track's mean mesh, and the frames' meshes have its vertices."""
    meshes = reference.track.meshes
    canonical = read_mesh(out / "canonical.obj").vertices.astype(np.float64)
    if meshes is None or canonical.shape != meshes.mean.shape:
        return [_mesh_error(out / "canonical.obj", "has other vertices than the track's mesh.")]
    findings = []
    if np.abs(canonical - meshes.mean).max() > _MESH_LIMIT_M:
        findings.append(_mesh_error(out / "canonical.obj", "is not the track's mean mesh."))
    for frame in (dataset.frames[0], dataset.frames[-1]):
        path = out / str(frame["mesh_path"])
        if read_mesh(path).vertices.shape != canonical.shape:
            findings.append(_mesh_error(path, "has other vertices than canonical.obj."))
    return findings


def _mesh_error(path: Path, message: str) -> Finding:
    return Finding("mesh-differs", "error", str(path), message)


def _is_core(name: str) -> bool:
    """Whether a changed file makes cameras, meshes or pixels doubtful."""
    return not name.startswith(("proof", "seg_mask/"))
