"""Reading a dataset as GaussianAvatars does, or VHAP, and holding it against the track.

GaussianAvatars: columns 1 and 2 of transform_matrix change sign, the inverse is world to view, the
field of view comes from camera_angle_x, and the rasteriser's principal point is the image centre.
VHAP: the same pose; K from fl_x, fl_y, cx and ``h - cy``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.dataset.record import Reference, check_files
from converter.dataset.reprojection import compare_mean_mesh
from converter.errors import FormatError, UncropError
from converter.findings import Finding
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import Pose
from converter.media.arrays import read_npz
from converter.media.images import read_size
from converter.media.manifest import read_json

NAME = "gaussianavatars"
_SHAPES: dict[str, tuple[int, ...]] = {
    "translation": (1, 3), "rotation": (1, 3), "neck_pose": (1, 3), "jaw_pose": (1, 3),
    "eyes_pose": (1, 6), "shape": (300,), "expr": (1, 100), "static_offset": (1, 5143, 3),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What the loader makes of the camera files: one entry per timestep."""

    w2c: Pose
    focal: Floats
    centre: Floats
    size: Size
    image_paths: tuple[str, ...]
    n_train: int

    def project(self, step: int, points: Floats) -> Floats:
        """Edge-origin px (P, 2) at which the renderer draws world points (P, 3)."""
        p = self.w2c[step](points)
        z = np.where(p[:, 2:] > 0, p[:, 2:], np.nan)
        seen: Floats = self.focal[step] * p[:, :2] / z + self.centre[step]
        return seen


def load_dataset(out: Path, flavour: str) -> LoadedDataset:
    """Read the camera files as the loader does; raises UncropError where it would go wrong."""
    splits = {name: _frames(out, name) for name in ("train", "val", "test")}
    frames = [*splits["train"], *splits["val"], *splits["test"]]
    frames.sort(key=lambda f: int(_number(f, "timestep_index", out)))
    steps = [int(_number(f, "timestep_index", out)) for f in frames]
    if steps != list(range(len(frames))) or not frames:
        raise FormatError(out / "transforms_train.json", "timesteps 0, 1, 2 ... in train and test",
                          f"{steps[:5]}")  # fmt: skip
    matrices = np.array([_matrix(f, out) for f in frames])
    matrices[:, :3, 1:3] *= -1
    world_to_view = np.linalg.inv(matrices)
    sizes = {(int(_number(f, "w", out)), int(_number(f, "h", out))) for f in frames}
    if len(sizes) > 1:
        raise FormatError(out / "transforms_train.json", "one image size", f"{len(sizes)}")
    size = Size(*sizes.pop())
    focal, centre = _projection(frames, size, flavour, out)
    return LoadedDataset(
        Pose(world_to_view[:, :3, :3], world_to_view[:, :3, 3]),
        focal,
        centre,
        size,
        tuple(str(f.get("file_path")) for f in frames),
        len(splits["train"]),
    )


def _projection(
    frames: list[dict[str, Any]], size: Size, flavour: str, out: Path
) -> tuple[Floats, Floats]:
    """Focal lengths (N, 2) and principal points (N, 2), px."""
    if flavour == "vhap":
        keys = ("fl_x", "fl_y", "cx", "cy")
        numbers = np.array([[_number(f, key, out) for key in keys] for f in frames])
        return numbers[:, :2], np.stack([numbers[:, 2], size.height - numbers[:, 3]], axis=1)
    angle = np.array([_number(f, "camera_angle_x", out) for f in frames])
    focal = size.width / (2 * np.tan(angle / 2))
    centre = np.tile([size.width / 2, size.height / 2], (len(frames), 1))
    return np.stack([focal, focal], axis=1), centre


def _frames(out: Path, split: str) -> list[dict[str, Any]]:
    path = out / f"transforms_{split}.json"
    frames = read_json(path).get("frames")
    if not isinstance(frames, list) or not all(isinstance(f, dict) for f in frames):
        raise FormatError(path, "frames", "none")
    return frames


def _number(frame: dict[str, Any], key: str, out: Path) -> float:
    value = frame.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(out / "transforms_train.json", f"{key}, a number", str(value))
    return float(value)


def _matrix(frame: dict[str, Any], out: Path) -> Floats:
    try:
        matrix = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise FormatError(out / "transforms_train.json", "transform_matrix, 4x4", "another")
    return matrix


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference = Reference.read(out, NAME)
        dataset = load_dataset(out, str(reference.manifest.get("flavour")))
        if len(dataset.image_paths) != len(reference.positions):
            raise FormatError(out / "transforms.json", f"{len(reference.positions)} timesteps",
                              f"{len(dataset.image_paths)}")  # fmt: skip
        findings = _check_parameters(out, reference)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    findings += compare_mean_mesh(reference, dataset.project, what="timestep")
    return findings + _check_images(out, dataset) + check_files(out, reference, _is_core)


def _check_parameters(out: Path, reference: Reference) -> list[Finding]:
    """Every flame_param file by its keys and shapes, and by the expression it should hold."""
    expression = reference.track.flame.expression
    for step, position in enumerate(reference.positions):
        path = out / f"flame_param/{step:05d}.npz"
        arrays = read_npz(path)
        found = {name: array.shape for name, array in arrays.items()}
        if found != _SHAPES:
            raise FormatError(path, "the arrays that load_meshes reads", f"{found}"[:200])
        if expression is not None:
            held = arrays["expr"][0, : expression.shape[1]]
            if np.abs(held - expression[position]).max() > 1e-5:
                return [_error("flame-off", path, "holds the expression of another frame.")]
    if not (out / "canonical_flame_param.npz").is_file():
        return [_error("file-missing", out / "canonical_flame_param.npz", "is gone.")]
    return []


def _check_images(out: Path, dataset: LoadedDataset) -> list[Finding]:
    findings = []
    for name in dataset.image_paths:
        try:
            size = read_size(out / name)
        except UncropError as error:
            findings.append(Finding.of_error("image-unreadable", error))
            continue
        if size != dataset.size:
            findings.append(_error("image-size", out / name, f"is {size}, not {dataset.size}."))
    return findings


def _is_core(name: str) -> bool:
    """Whether a changed file makes cameras or pixels doubtful; masks may be remade."""
    return name.startswith(("images/", "transforms", "flame_param/", "canonical"))


def _error(check: str, where: object, message: str) -> Finding:
    return Finding(check, "error", str(where), message)
