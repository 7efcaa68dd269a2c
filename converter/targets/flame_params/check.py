"""Reading flame_params.json as its reader does, and holding it against the track.

SplattingAvatar, IMavatar and MonoGaussianAvatar: ``x = W[:, :3] (4 X) + W[:, 3]`` in OpenGL axes.
PointAvatar hands its rotation to pytorch3d's row vectors: the transpose. All take |fx|; IMavatar's
pixels begin in the middle of the first one.
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
from converter.geometry.pose import OPENCV_FROM_OPENGL
from converter.media.images import read_size
from converter.media.manifest import read_json

NAME = "flame_params"
FACTOR = 4.0
"""Their FLAME is four times as large as the tracker's."""

_LANDMARK_LIMIT_PX = 1e-3
_LENGTHS = {"expression": 50, "pose": 15, "bbox": 4}


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What the reader makes of the file; the size is that of the first image."""

    numbers: tuple[int, ...]
    world: Floats
    intrinsics: Floats
    keypoints: Floats
    expression: Floats
    size: Size
    flavour: str

    def project(self, step: int, points: Floats) -> Floats:
        """Edge-origin px (P, 2) at which the reader's model draws world points (P, 3), metres."""
        W = self.world[step]
        R = OPENCV_FROM_OPENGL @ W[:, :3]
        R = R.T if self.flavour == "pointavatar" else R
        p = FACTOR * points @ R.T + OPENCV_FROM_OPENGL @ W[:, 3]
        z = np.where(p[:, 2:] > 0, p[:, 2:], np.nan)
        extent = np.array([self.size.width, self.size.height])
        focal, centre = np.abs(self.intrinsics[:2]) * extent, self.intrinsics[2:] * extent
        half = 0.5 if self.flavour == "imavatar" else 0.0
        seen: Floats = focal * p[:, :2] / z + centre + half
        return seen


def load_dataset(out: Path, flavour: str) -> LoadedDataset:
    """Read the file as the reader does; raises UncropError where it would go wrong."""
    path = out / "flame_params.json"
    content = read_json(path)
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise FormatError(path, "frames", "none")
    numbers = tuple(_number(f, path) for f in frames)
    for frame in frames:
        for key, length in _LENGTHS.items():
            _array(frame.get(key), (length,), f"{path}: {key}")
    _array(content.get("shape_params"), (100,), f"{path}: shape_params")
    intrinsics = _array(content.get("intrinsics"), (4,), f"{path}: intrinsics")
    if flavour != "splattingavatar" and not intrinsics[0] < 0:
        raise FormatError(f"{path}: intrinsics", "-fx/w first, for OpenGL axes", "a positive one")
    return LoadedDataset(
        numbers,
        np.stack([_array(f.get("world_mat"), (3, 4), f"{path}: world_mat") for f in frames]),
        intrinsics,
        np.stack([_array(f.get("flame_keypoints"), (68, 2), f"{path}: flame_keypoints")
                  for f in frames]),
        np.array([f["expression"] for f in frames], np.float64),
        read_size(out / f"image/{numbers[0]}.png"),
        flavour,
    )  # fmt: skip


def _number(frame: dict[str, Any], path: Path) -> int:
    stem = str(frame.get("file_path")).removeprefix("./image/")
    if not (stem.isascii() and stem.isdecimal() and len(stem) < 10):
        raise FormatError(f"{path}: file_path", "./image/<number>", stem[:60])
    return int(stem)


def _array(value: Any, shape: tuple[int, ...], where: str) -> Floats:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise FormatError(where, f"finite numbers of shape {shape}", f"shape {array.shape}")
    return array


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference = Reference.read(out, NAME)
        dataset = load_dataset(out, str(reference.manifest.get("flavour")))
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    expected = reference.track.frame_ids[reference.positions].tolist()
    if list(dataset.numbers) != expected:
        return [_error("frames-differ", out / "flame_params.json", "names other frames.")]
    findings = compare_mean_mesh(reference, dataset.project, what="frame")
    findings += _check_contents(out, dataset, reference)
    return findings + _check_images(out, dataset) + check_files(out, reference, _is_core)


def _check_contents(out: Path, dataset: LoadedDataset, reference: Reference) -> list[Finding]:
    """Landmarks and expressions of their own frames."""
    findings = []
    track, extent = reference.track, np.array([dataset.size.width, dataset.size.height])
    expression = track.flame.expression
    for step, position in enumerate(reference.positions):
        true = None if track.landmarks is None else track.landmarks[position]
        if true is not None and np.isfinite(true).all():  # others are interpolated
            seen = (dataset.keypoints[step] + 1) / 2 * extent
            off = float(np.abs(seen - reference.canvas_from_crop[int(position)](true)).max())
            if off > _LANDMARK_LIMIT_PX:
                findings.append(
                    Finding("keypoints-off", "error", f"{out}: {dataset.numbers[step]}",
                            "flame_keypoints are not where the track's landmarks are.", off,
                            _LANDMARK_LIMIT_PX, "px")
                )  # fmt: skip
        if expression is None:
            continue
        n = min(50, expression.shape[1])
        if np.abs(dataset.expression[step, :n] - expression[position, :n]).max() > 1e-6:
            findings.append(_error("flame-off", f"{out}: {dataset.numbers[step]}",
                                   "holds the expression of another frame."))  # fmt: skip
    return findings


def _check_images(out: Path, dataset: LoadedDataset) -> list[Finding]:
    findings = []
    for number in dataset.numbers:
        for folder in ("image", "mask"):
            path = out / folder / f"{number}.png"
            try:
                size = read_size(path)
            except UncropError as error:
                findings.append(Finding.of_error("image-unreadable", error))
                continue
            if size != dataset.size:
                findings.append(_error("image-size", path, f"is {size}, not {dataset.size}."))
    return findings


def _is_core(name: str) -> bool:
    """Whether a changed file makes cameras or pixels doubtful; masks may be remade."""
    return name.startswith(("image/", "flame_params"))


def _error(check: str, where: object, message: str) -> Finding:
    return Finding(check, "error", str(where), message)
