"""Reading the folders as FlashAvatar does, and holding them against the track.

``Scene_mica``: as many frames as checkpoint/ has files, 00000 first; K, img_size (taken for width,
height) and shape of the first; R, t of the opencv block of each; image number frame + 1. Fields of
view ``2 atan(img_size / 2f)`` spread over the image as it is, principal point at its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.dataset.record import Reference, check_files
from converter.dataset.reprojection import compare_mean_mesh
from converter.errors import FormatError, UncropError
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats, Size
from converter.media.files import scan_folder
from converter.media.images import read_size
from converter.media.torchfile import read_torch
from converter.targets.flashavatar.masks import HEAD_ENDING, MOUTH_ENDING

NAME = "flashavatar"
FRAME_DELTA = 1
"""Number of an image less that of its .frame."""

_EXPRESSION_LIMIT = 1e-5
_SHAPES: dict[str, tuple[int, ...]] = {
    "flame.exp": (1, 100), "flame.shape": (1, 300), "flame.eyes": (1, 12),
    "flame.eyelids": (1, 2), "flame.jaw": (1, 6),
    "opencv.R": (1, 3, 3), "opencv.t": (1, 3), "opencv.K": (1, 3, 3),
}  # fmt: skip


def images_folder(track: str) -> str:
    """Folder of a track's images and masks, within the dataset."""
    return f"dataset/{track}"


def checkpoint_folder(track: str) -> str:
    """Folder of a track's .frame files, within the dataset."""
    return f"metrical-tracker/output/{track}/checkpoint"


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What the loader makes of it: R (N, 3, 3), t (N, 3), focal (2,), expression (N, 100)."""

    R: Floats
    t: Floats
    focal: Floats
    size: Size
    expression: Floats

    def __len__(self) -> int:
        return len(self.R)

    def project(self, step: int, points: Floats) -> Floats:
        """Edge-origin px (P, 2) at which the renderer draws world points (P, 3), metres."""
        p = points @ self.R[step].T + self.t[step]
        z = np.where(p[:, 2:] > 0, p[:, 2:], np.nan)
        seen: Floats = self.focal * p[:, :2] / z + [self.size.width / 2, self.size.height / 2]
        return seen


def image_number(step: int) -> str:
    """Name of the image (and the masks) of the step-th .frame, without its ending."""
    return f"{step + FRAME_DELTA:05d}"


def load_dataset(out: Path, track: str) -> LoadedDataset:
    """Read the folders as the loader does; raises UncropError where it would go wrong."""
    folder = out / checkpoint_folder(track)
    names = sorted(entry.name for entry in scan_folder(folder))
    if not names or names != [f"{i:05d}.frame" for i in range(len(names))]:
        stray = next((n for i, n in enumerate(names) if n != f"{i:05d}.frame"), "nothing")
        raise FormatError(folder, "00000.frame, 00001.frame ... and no other file", stray)
    frames = [_frame(folder / name) for name in names]
    size = read_size(out / images_folder(track) / f"imgs/{image_number(0)}.jpg")
    K, taken = frames[0]["opencv.K"], frames[0]["img_size"]
    angles = 2 * np.arctan(taken / (2 * np.array([K[0, 0], K[1, 1]])))
    focal: Floats = np.array([size.width, size.height]) / (2 * np.tan(angles / 2))
    R, t, expression = (
        np.stack([f[key] for f in frames]) for key in ("opencv.R", "opencv.t", "flame.exp")
    )
    return LoadedDataset(R, t, focal, size, expression)


def _frame(path: Path) -> dict[str, Floats]:
    """``block.key`` -> array without its batch axis, and img_size."""
    content: Any = read_torch(path).content
    arrays: dict[str, Floats] = {}
    try:
        for name, shape in _SHAPES.items():
            block, _, key = name.partition(".")
            value = np.asarray(content[block][key], np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise FormatError(f"{path}: {name}", f"finite, of shape {shape}", f"{value.shape}")
            arrays[name] = value[0]
        arrays["img_size"] = np.asarray(content["img_size"], np.float64).reshape(2)
        frame_id = content["frame_id"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            path, "what the loader reads", f"{type(error).__name__} {error}"
        ) from None
    if frame_id != path.stem:
        raise FormatError(f"{path}: frame_id", path.stem, f"{frame_id}")
    return arrays


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference = Reference.read(out, NAME)
        track = str(reference.manifest.get("idname"))
        dataset = load_dataset(out, track)
        if len(dataset) != len(reference.positions):
            expected = counted(len(reference.positions), "frame")
            raise FormatError(out / checkpoint_folder(track), expected, f"{len(dataset)}")
        findings = _check_expression(out, reference, dataset)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    findings += compare_mean_mesh(reference, dataset.project, what="frame")
    findings += _check_images(out / images_folder(track), dataset)
    return findings + check_files(out, reference, _is_core)


def _check_expression(out: Path, reference: Reference, dataset: LoadedDataset) -> list[Finding]:
    held = reference.track.flame.expression
    if held is None:
        return [_error("flame-off", out, "the record has no expressions.")]
    held = held[reference.positions]
    off = np.abs(dataset.expression[:, : held.shape[1]] - held).max(axis=1)
    if off.max() <= _EXPRESSION_LIMIT:
        return []
    return [_error("flame-off", out, f"frame {int(off.argmax()):05d} holds the expression of "
                   "another frame.")]  # fmt: skip


def _check_images(folder: Path, dataset: LoadedDataset) -> list[Finding]:
    """One image per frame, and of each kind of mask as many or none, all of one size."""
    endings = {"imgs": (".jpg",), "alpha": (".jpg",), "parsing": (HEAD_ENDING, MOUTH_ENDING)}
    findings = []
    for part, kinds in endings.items():
        if part != "imgs" and not (folder / part).is_dir():
            continue
        for name in (f"{image_number(i)}{end}" for i in range(len(dataset)) for end in kinds):
            path = folder / part / name
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
    return name.startswith("metrical-tracker/") or "/imgs/" in name


def _error(check: str, where: object, message: str) -> Finding:
    return Finding(check, "error", str(where), message)
