"""The three files of a COLMAP model, as text and as bytes (https://colmap.github.io/format.html)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import rotation_vector_from_matrix
from converter.media.files import read_bytes

_PINHOLE = 1
_N_PARAMETERS = 4
_POINT = struct.Struct("<Q3d3BdQ")
_IMAGE = struct.Struct("<I7dI")
_CAMERA = struct.Struct("<IiQQ4d")
_LARGEST = 10_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """Cameras and images; points are only seeds.

    Attributes
    ----------
    cameras
        (C, 4) fx, fy, cx, cy; camera ids are 1 to C.
    sizes
        Image size of each camera.
    quaternions, translations
        (M, 4) w, x, y, z and (M, 3): world to camera.
    camera_ids, names
        Of each image; image ids are 1 to M.
    points, colours
        (V, 3) and (V, 3) uint8.

    """

    cameras: Floats
    sizes: tuple[Size, ...]
    quaternions: Floats
    translations: Floats
    camera_ids: tuple[int, ...]
    names: tuple[str, ...]
    points: Floats
    colours: NDArray[np.uint8]

    def project(self, step: int, points: Floats) -> Floats:
        """Edge-origin px (P, 2) of world points (P, 3), as COLMAP projects."""
        R = matrix_from_quaternion(self.quaternions[step])
        p = points @ R.T + self.translations[step]
        z = np.where(p[:, 2:] > 0, p[:, 2:], np.nan)
        camera = self.cameras[self.camera_ids[step] - 1]
        seen: Floats = camera[:2] * p[:, :2] / z + camera[2:]
        return seen


def quaternions_from_matrices(R: Floats) -> Floats:
    """Unit quaternions (M, 4), w first, w >= 0 but for rounding, from rotations (M, 3, 3)."""
    vectors = rotation_vector_from_matrix(R)
    half = np.linalg.norm(vectors, axis=-1, keepdims=True) / 2
    # sin(a/2) / a, exact down to 0.
    return np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * vectors], axis=-1)


def matrix_from_quaternion(q: Floats) -> Floats:
    """Rotation (3, 3) of a quaternion (4,), w first; it is normalised, as COLMAP does."""
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


# --- text -------------------------------------------------------------------------------------


def text_files(model: Model) -> dict[str, str]:
    """cameras.txt, images.txt and points3D.txt."""
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, fx, fy, cx, cy"]
    for i, (camera, size) in enumerate(zip(model.cameras, model.sizes, strict=True), start=1):
        cameras.append(f"{i} PINHOLE {size.width} {size.height} {_numbers(camera)}")
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME; then its 2D points"]
    for i, name in enumerate(model.names):
        pose = _numbers([*model.quaternions[i], *model.translations[i]])
        images += [f"{i + 1} {pose} {model.camera_ids[i]} {name}", ""]
    points = ["# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[]"]
    for i, (point, colour) in enumerate(zip(model.points, model.colours, strict=True), start=1):
        points.append(f"{i} {_numbers(point)} {' '.join(map(str, colour))} 0")
    files = {"cameras": cameras, "images": images, "points3D": points}
    return {f"{name}.txt": "\n".join(lines) + "\n" for name, lines in files.items()}


def _numbers(values: Floats | list[float]) -> str:
    return " ".join(repr(float(v)) for v in values)


def read_text(folder: Path) -> Model:
    """Read the text files as COLMAP does; raises FormatError."""
    cameras = _rows(folder / "cameras.txt", keep_empty=False)
    sizes, parameters = [], []
    for i, row in enumerate(cameras, start=1):
        if len(row) != 8 or row[:2] != [str(i), "PINHOLE"]:
            raise FormatError(folder / "cameras.txt", f"camera {i}, PINHOLE", " ".join(row)[:60])
        sizes.append(Size(int(_float(row[2], folder)), int(_float(row[3], folder))))
        parameters.append([_float(v, folder) for v in row[4:]])
    # Every image has two lines; the second, its points, is empty.
    images = _rows(folder / "images.txt", keep_empty=True)[::2]
    poses, ids, names = [], [], []
    for i, row in enumerate(images, start=1):
        if len(row) != 10 or row[0] != str(i):
            raise FormatError(folder / "images.txt", f"image {i}", " ".join(row)[:60])
        poses.append([_float(v, folder) for v in row[1:8]])
        ids.append(_camera_id(row[8], len(cameras), folder))
        names.append(row[9])
    points = _rows(folder / "points3D.txt", keep_empty=False)
    if not images or not points or any(len(row) != 8 for row in points):
        raise FormatError(folder, "images and points", f"{len(images)} and {len(points)}")
    numbers = np.array([[_float(v, folder) for v in row[1:7]] for row in points])
    pose = np.array(poses)
    return Model(
        np.array(parameters), tuple(sizes), pose[:, :4], pose[:, 4:], tuple(ids), tuple(names),
        numbers[:, :3], numbers[:, 3:].astype(np.uint8),
    )  # fmt: skip


def _rows(path: Path, *, keep_empty: bool) -> list[list[str]]:
    lines = read_bytes(path).decode("utf-8", "replace").split("\n")[:-1]
    rows = [line.split() for line in lines if not line.startswith("#")]
    return [row for row in rows if row or keep_empty]


def _float(text: str, folder: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not abs(value) < 1e12:
        raise FormatError(folder, "finite numbers", text[:40])
    return value


def _camera_id(text: str, n_cameras: int, folder: Path) -> int:
    # Python refuses to convert thousands of digits, by a ValueError.
    if not text.isdecimal() or len(text) > 12 or not 1 <= int(text) <= n_cameras:
        raise FormatError(folder / "images.txt", f"a camera from 1 to {n_cameras}", text[:40])
    return int(text)


# --- binary -----------------------------------------------------------------------------------


def binary_files(model: Model) -> dict[str, bytes]:
    """cameras.bin, images.bin and points3D.bin."""
    cameras = [struct.pack("<Q", len(model.cameras))]
    for i, (camera, size) in enumerate(zip(model.cameras, model.sizes, strict=True), start=1):
        cameras.append(_CAMERA.pack(i, _PINHOLE, size.width, size.height, *camera))
    images = [struct.pack("<Q", len(model.names))]
    for i, name in enumerate(model.names):
        pose = (*model.quaternions[i], *model.translations[i])
        images.append(_IMAGE.pack(i + 1, *pose, model.camera_ids[i]))
        images.append(name.encode() + b"\0" + struct.pack("<Q", 0))
    points = [struct.pack("<Q", len(model.points))]
    for i, (point, colour) in enumerate(zip(model.points, model.colours, strict=True), start=1):
        points.append(_POINT.pack(i, *point, *colour.tolist(), 0.0, 0))
    return {
        "cameras.bin": b"".join(cameras),
        "images.bin": b"".join(images),
        "points3D.bin": b"".join(points),
    }


def require_binary_like_text(folder: Path, model: Model) -> None:
    """Raise FormatError unless the binary files say what the text files say."""
    for name, data in binary_files(model).items():
        if read_bytes(folder / name) != data:
            raise FormatError(folder / name, "what the text file says", "something else",
                              "Convert the track again.")  # fmt: skip
