"""Reading the folders back, by the tracker's consumers' maths and by uncrop's own source.

INSTA takes ``inv([R t])`` and K of the opencv block; GaussianBlendshapes takes camera.R, t, fl and
pp as pytorch3d does: row vectors, ``x_view = x M + T``, ``u = w/2 - s (fl x/z + pp)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter import registry
from converter.bundle.read import read_bundle
from converter.dataset.frame_blocks import size_from
from converter.dataset.reprojection import REPROJECTION_LIMIT_PX
from converter.errors import FormatError, UncropError
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.geometry.pose import matrix_from_rotation_6d
from converter.media.files import sha256_of
from converter.media.manifest import RECORD, read_manifest
from converter.media.torchfile import read_torch
from converter.track import Track

NAME = "metrical_tracker"
_LANDMARK_LIMIT_PX = 1e-3
_MAX_POINTS = 2000
_HEAD_M = np.array([[x, y, z] for x in (-0.08, 0.08) for y in (-0.1, 0.1) for z in (-0.08, 0.08)])

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "flame.exp": (1, None), "flame.shape": (1, None), "flame.tex": (1, None),
    "flame.sh": (1, 9, 3), "flame.eyes": (1, 12), "flame.eyelids": (1, 2), "flame.jaw": (1, 6),
    "camera.R": (1, 6), "camera.t": (1, 3), "camera.fl": (1, 1), "camera.pp": (1, 2),
    "opencv.R": (1, 3, 3), "opencv.t": (1, 3), "opencv.K": (1, 3, 3),
}  # fmt: skip
_REQUIRED = ("opencv.R", "opencv.t", "opencv.K")


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """One .frame as its consumers see it: ``block.key`` -> float32 array, and img_size."""

    arrays: dict[str, Floats]
    size: Size

    def project_opencv(self, points: Floats) -> Floats:
        """Edge-origin px (P, 2) of world points by the opencv block."""
        R, t, K = (self.arrays[f"opencv.{key}"][0] for key in "RtK")
        q = (points @ R.T + t) @ K.T
        seen: Floats = q[:, :2] / q[:, 2:]
        return seen

    def project_pytorch3d(self, points: Floats) -> Floats | None:
        """Edge-origin px (P, 2) of world points by the camera block; None without one."""
        if "camera.R" not in self.arrays:
            return None
        M = matrix_from_rotation_6d(self.arrays["camera.R"][0])
        view = points @ M + self.arrays["camera.t"][0]
        ndc = self.arrays["camera.fl"][0] * view[:, :2] / view[:, 2:] + self.arrays["camera.pp"][0]
        seen: Floats = np.array(self.size.shape[::-1]) / 2 - min(self.size.shape) / 2 * ndc
        return seen


def load_frame(path: Path) -> StoredFrame:
    """Read one .frame as ``torch.load`` gives it; raises FormatError where consumers would fail."""
    content: Any = read_torch(path).content
    if not isinstance(content, dict):
        raise FormatError(path, "a dictionary", type(content).__name__)
    if content.get("frame_id") != path.stem:
        raise FormatError(f"{path}: frame_id", path.stem, f"{content.get('frame_id')}")
    arrays: dict[str, Floats] = {}
    for name, shape in _SHAPES.items():
        block, _, key = name.partition(".")
        inner = content.get(block)
        value = inner.get(key) if isinstance(inner, dict) else None
        if value is None and name not in _REQUIRED:
            continue
        arrays[name] = _array(value, shape, f"{path}: {name}")
    size = content.get("img_size")
    if not isinstance(size, np.ndarray) or size.shape != (2,) or size.dtype != np.int64:
        raise FormatError(f"{path}: img_size", "two int64, (height, width)", f"{size}"[:60])
    return StoredFrame(arrays, size_from(content))


def _array(value: Any, shape: tuple[int | None, ...], where: str) -> Floats:
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and value.ndim == len(shape)
        and all(n in (None, m) for n, m in zip(shape, value.shape, strict=True))
    )
    if not fits or not np.isfinite(value).all():
        raise FormatError(where, f"finite float32 of shape {shape}", f"{np.shape(value)}")
    return np.asarray(value, np.float64)


@dataclass(frozen=True, slots=True)
class Reference:
    """What the folders should say: the track they were made from, and the images."""

    track: Track
    image_from_track: PixelAffine
    size: Size
    folder: str
    numbered: bool
    files: dict[str, str]

    @classmethod
    def read(cls, out: Path) -> Reference:
        """Read uncrop.json and the track's record beside it; raises UncropError."""
        manifest = read_manifest(out, NAME)
        track = read_bundle(out / RECORD)
        try:
            image = manifest["image"]
            return cls(
                track,
                PixelAffine(*image["image_from_track"]),
                Size(int(image["width"]), int(image["height"])),
                str(manifest["folder"]),
                bool(manifest["numbered"]),
                {str(k): str(v) for k, v in manifest["files"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(out / "uncrop.json", "image, folder, files",
                              f"{type(error).__name__} {error}") from None  # fmt: skip

    @property
    def points(self) -> Floats:
        """World points (P, 3) to project: of the mean mesh, or of a head-sized box."""
        meshes = self.track.meshes
        if meshes is None:
            return _HEAD_M
        mean = meshes.mean.astype(np.float64)
        return mean[:: max(1, len(mean) // _MAX_POINTS)]

    def project(self, index: int) -> Floats:
        """Px of the written images at which the track's own camera puts `points`."""
        return self.image_from_track(self.track.project(index, self.points))

    @property
    def landmarks(self) -> Floats | None:
        """The track's landmarks on the written images."""
        track = self.track
        if track.landmarks is None:
            return None
        affine = self.image_from_track
        if track.image_space == "source" and track.crop is not None:
            affine = affine @ track.crop.source_from_crop
        return affine(track.landmarks)


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference = Reference.read(out)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    findings = _check_files(out, reference)
    findings += _check_frames(out, reference)
    return findings + _check_reading(out, reference)


def _check_frames(out: Path, reference: Reference) -> list[Finding]:
    """Every .frame by both camera blocks, under its own number."""
    folder = out / "output" / reference.folder / "checkpoint"
    worst: dict[str, tuple[float, str]] = {"opencv": (0.0, ""), "camera": (0.0, "")}
    points = reference.points
    for index, frame_id in enumerate(reference.track.frame_ids):
        path = folder / f"{frame_id:05d}.frame"
        try:
            frame = load_frame(path)
        except UncropError as error:
            return [Finding.of_error("dataset-unreadable", error)]
        if frame.size != reference.size:
            return [_error("frame-size", path, f"img_size is {frame.size}, the images are "
                           f"{reference.size}.")]  # fmt: skip
        true = reference.project(index)
        for block, seen in (
            ("opencv", frame.project_opencv(points)),
            ("camera", frame.project_pytorch3d(points)),
        ):
            if seen is None:
                continue
            off = float(np.max(np.nan_to_num(np.linalg.norm(seen - true, axis=-1), nan=np.inf)))
            if off > worst[block][0]:
                worst[block] = off, path.name
    return [_reprojection(worst, len(reference.track))]


def _reprojection(worst: dict[str, tuple[float, str]], n_frames: int) -> Finding:
    block = max(worst, key=lambda name: worst[name][0])
    off, name = worst[block]
    message = f"max reprojection difference {off:.5f} px over {counted(n_frames, 'frame')}"
    severe = not off <= REPROJECTION_LIMIT_PX
    if severe:
        message += f", worst at {name} by its {block} block."
    return Finding("reprojection", "error" if severe else "info", "cameras", message, off,
                   REPROJECTION_LIMIT_PX, "px")  # fmt: skip


def _check_reading(out: Path, reference: Reference) -> list[Finding]:
    """The whole of it through uncrop's own source: numbering by content, cameras, landmarks."""
    options = registry.ReadOptions(hash_inputs=False)
    try:
        found = registry.source(NAME).read(out, options)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    track = reference.track
    if not np.array_equal(found.frame_ids, track.frame_ids):
        return [_error("frames-differ", out, "holds other frames than the track.")]
    findings = []
    expected = track.frame_ids if track.source_indices is None else track.source_indices
    indices = -1 if found.source_indices is None else found.source_indices
    if reference.numbered and not np.array_equal(indices, expected):
        findings.append(_error("frame-numbers", out, "its frames belong to other images than the "
                               "track's."))  # fmt: skip
    in_images = found if found.image_space == "crop" else found.in_crop()
    points = reference.points
    off = max(
        float(np.max(np.linalg.norm(in_images.project(i, points) - reference.project(i), axis=-1)))
        for i in range(len(track))
    )
    if not off <= REPROJECTION_LIMIT_PX:
        findings.append(
            Finding("reading", "error", str(out), "uncrop reads other cameras from it.", off,
                    REPROJECTION_LIMIT_PX, "px")
        )  # fmt: skip
    return findings + _check_landmarks(out, reference, found)


def _check_landmarks(out: Path, reference: Reference, found: Track) -> list[Finding]:
    expected = reference.landmarks
    if expected is None or not reference.numbered:
        return []
    whole = np.isfinite(expected).all(axis=(1, 2))
    seen = found.landmarks
    if seen is None or not np.array_equal(np.isfinite(seen).all(axis=(1, 2)), whole):
        return [_error("landmarks-lost", out, "landmarks of some frames are missing.")]
    off = float(np.max(np.abs(seen[whole] - expected[whole]), initial=0.0))
    if off <= _LANDMARK_LIMIT_PX:
        return []
    return [
        Finding("landmarks-off", "error", str(out), "landmarks are not where the track's are.",
                off, _LANDMARK_LIMIT_PX, "px")
    ]  # fmt: skip


def _check_files(out: Path, reference: Reference) -> list[Finding]:
    findings = []
    for name, digest in reference.files.items():
        path = out / name
        if not path.is_file():
            findings.append(_error("file-missing", path, "was written and is gone."))
        elif sha256_of(path) != digest:
            findings.append(_error("file-changed", path, "differs from what was written."))
    return findings


def _error(check: str, where: object, message: str) -> Finding:
    return Finding(check, "error", str(where), message)
