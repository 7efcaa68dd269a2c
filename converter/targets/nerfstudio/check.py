"""Reading transforms.json as nerfstudio does, and holding it against the track.

Rays start at the camera's place and go through ``((x - cx)/fx, -(y - cy)/fy, -1)`` of its own axes,
x and y edge-origin px (cameras.py); K is the frame's own, or the file's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.dataset.record import Reference, check_files
from converter.dataset.scene import check_scene, check_sizes
from converter.errors import FormatError, UncropError
from converter.findings import Finding
from converter.geometry.pixels import Floats, Size
from converter.media.manifest import read_json

NAME = "nerfstudio"
_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h")


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What the loader makes of the file: c2w (M, 4, 4), and fx, fy, cx, cy, w, h (M, 6)."""

    names: list[str]
    c2w: Floats
    cameras: Floats

    def project(self, step: int, points: Floats) -> Floats:
        """Px (P, 2) whose ray goes through world points (P, 3)."""
        place, axes = self.c2w[step, :3, 3], self.c2w[step, :3, :3]
        p = (points - place) @ axes
        depth = np.where(p[:, 2:] < 0, -p[:, 2:], np.nan)
        fx, fy, cx, cy = self.cameras[step, :4]
        seen: Floats = p[:, :2] * [fx, -fy] / depth + [cx, cy]
        return seen


def load_dataset(out: Path) -> LoadedDataset:
    """Read the file as the loader does; raises UncropError where it would go wrong."""
    path = out / "transforms.json"
    content = read_json(path)
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise FormatError(path, "frames", "none")
    if content.get("camera_model") != "OPENCV":
        raise FormatError(f"{path}: camera_model", "OPENCV", str(content.get("camera_model")))
    if content.get("orientation_override") != "none":
        raise FormatError(f"{path}: orientation_override", "none; the loader turns the world else",
                          str(content.get("orientation_override")))  # fmt: skip
    cameras = [[_number({**content, **f}, key, path) for key in _KEYS] for f in frames]
    names = [str(f.get("file_path")).removeprefix("images/") for f in frames]
    return LoadedDataset(names, np.stack([_matrix(f, path) for f in frames]), np.array(cameras))


def _number(frame: dict[str, Any], key: str, path: Path) -> float:
    value = frame.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{path}: {key}", "a number", str(value))
    return float(value)


def _matrix(frame: dict[str, Any], path: Path) -> Floats:
    try:
        matrix = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise FormatError(f"{path}: transform_matrix", "4x4 finite numbers", "others")
    return matrix


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference, dataset = Reference.read(out, NAME), load_dataset(out)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    sizes = {
        name: Size(int(w), int(h))
        for name, (w, h) in zip(dataset.names, dataset.cameras[:, 4:], strict=True)
    }
    return [
        *check_scene(out, reference, dataset.names, dataset.project),
        *check_sizes(out, sizes),
        *check_files(out, reference, _is_core),
    ]


def _is_core(name: str) -> bool:
    """Whether a changed file makes cameras or pixels doubtful; masks may be remade."""
    return name.startswith(("images/", "transforms"))
