"""One result of flame-head-tracker, found, read without unpickling, checked and made uniform.

Keys (tracker_base.py of v1.1 to v4.1; flame-head-tracker spec, 2): shape, exp, head_pose, jaw_pose
(pose before v3.4), eye_pose, neck_pose, cam, fov (v3.5), K (v3.5, of 256x256), lmks_68, img,
img_aligned. There is no version field; keys tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError, FormatError, MissingInputError, UncropError
from converter.geometry.pixels import Floats, Size
from converter.media.arrays import read_npz
from converter.media.files import read_head, scan_folder
from converter.media.limits import Limits
from converter.media.pickled import read_pickled

DEFAULT_FOV_DEG = 20.0
_RESULT = re.compile(r"(\d{1,9})\.(npz|npy)", re.ASCII)
_FIRST_KEYS = frozenset(
    (
        "shape", "exp", "pose", "head_pose", "jaw_pose", "eye_pose", "neck_pose", "tex", "light",
        "cam", "fov", "K", "img", "img_aligned", "img_rendered", "mesh_rendered",
        "shape_rendered", "parsing", "parsing_aligned", "lmks_dense", "lmks_68", "lmks_eyes",
        "lmks_ears", "blendshape_scores", "texture",
    )
)  # fmt: skip
_K_SIDE = 256
_K_LIMIT_PX = 1e-2
_LARGEST = 1e6
_NUMBERS = (
    "shape", "exp", "pose", "head_pose", "jaw_pose", "eye_pose", "neck_pose", "cam", "fov", "K",
    "lmks_68",
)  # fmt: skip
_FOREIGN = "Was this written by flame-head-tracker?"


@dataclass(frozen=True, slots=True)
class Result:
    """One frame.

    Attributes
    ----------
    euler
        (3,) yaw, pitch, roll of the camera, radians: ``Rz(roll) Ry(yaw) Rx(pitch)``.
    centre
        (3,) of the camera, metres.
    fov_deg
        Full field of view of the fitted square; None where the file does not say.
    shape, expression
        Padded with zeros to 300 and 100.
    jaw, eyes, neck
        Rotation vectors (3,), (6,) left then right or None, (3,).
    landmarks
        (68, 2) on the fitted image, 0 to 1 along each side; None where there are none.

    """

    path: Path
    fid: int
    euler: Floats
    centre: Floats
    fov_deg: float | None
    shape: Floats
    expression: Floats
    jaw: Floats
    eyes: Floats | None
    neck: Floats
    landmarks: Floats | None


def looks_like_results(path: Path) -> bool:
    """Whether ``path`` is a result, or a folder of results or of one such folder."""
    return _folder_of(path) is not None


def find_results(path: Path) -> tuple[Path, list[tuple[int, Path]]]:
    """Return the folder and its (fid, file), ascending.

    Raises
    ------
    FormatError
        If there are none, or two files of one frame.

    """
    folder = _folder_of(path)
    if folder is None:
        raise FormatError(path, "a folder of <fid>.npz or <fid>.npy", "none")
    found: dict[int, Path] = {}
    for name in sorted(e.name for e in scan_folder(folder)):
        match = _RESULT.fullmatch(name)
        if match is None:
            continue
        fid = int(match[1])
        if fid in found:
            raise FormatError(
                folder, "one file per frame", f"{found[fid].name} and {name}",
                "Remove the one of the older run.",
            )  # fmt: skip
        found[fid] = folder / name
    return folder, sorted(found.items())


def _folder_of(path: Path) -> Path | None:
    """The folder of results that ``path`` means, if it is certain from names and first bytes."""
    if os.path.isfile(path):
        return path.parent if _is_result(path) else None
    if not os.path.isdir(path):
        return None
    names = _names(path)
    if _holds_results(path, names):
        return path
    inner = [n for n in names if n[0] != "." and os.path.isdir(path / n)]  # links may go in circles
    found = [path / n for n in inner[:100] if _holds_results(path / n, _names(path / n))]
    return found[0] if len(found) == 1 else None


def _names(folder: Path) -> list[str]:
    """Names in a folder, sorted; none if it may not be listed."""
    try:
        return sorted(e.name for e in scan_folder(folder))
    except (FormatError, MissingInputError):
        return []


def _holds_results(folder: Path, names: list[str]) -> bool:
    if any(name.endswith(".frame") for name in names):
        return False  # a fork of metrical-tracker keeps .npz beside its .frame files
    first = next((name for name in names if _RESULT.fullmatch(name)), None)
    return first is not None and _is_result(folder / first)


def _is_result(path: Path) -> bool:
    """Whether a file begins like a result: an archive of its keys, or a pickle named .npy."""
    if _RESULT.fullmatch(path.name) is None:
        return False
    try:
        head = read_head(path, 64)  # which no FIFO or device can hold up
    except UncropError:
        return False
    if path.suffix == ".npy":
        return head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
    length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + length].decode("ascii", "replace")
    return head.startswith(b"PK\x03\x04") and name.removesuffix(".npy") in _FIRST_KEYS


# --- contents ---------------------------------------------------------------------------------


def read_arrays(path: Path, names: Collection[str], limits: Limits) -> dict[str, NDArray[Any]]:
    """Read some arrays of a result; names that it does not have are left out."""
    # Images are among them: as many elements as an image may have, and a megabyte of the rest.
    wide = replace(limits, elements=max(limits.elements, 3 * limits.image_pixels))
    if path.suffix == ".npz":
        return read_npz(path, wide, only=names)
    # Interpreting a pickle takes four times its bytes.
    content = read_pickled(path, replace(wide, file_bytes=wide.file_bytes // 2))
    if not isinstance(content, dict):
        raise FormatError(path, "a dictionary of arrays", type(content).__name__, _FOREIGN)
    found = {}
    for name in names:
        value = content.get(name)
        if isinstance(value, np.ndarray | int | float) and not isinstance(value, bool):
            found[name] = np.asarray(value)
    return found


def read_result(path: Path, fid: int, limits: Limits) -> Result:
    """Read one result.

    Raises
    ------
    FormatError, UnsafeFileError
        If the file is damaged, hostile, or no result.
    ConventionError
        If a number cannot be what the format says.

    """
    arrays = read_arrays(path, _NUMBERS, limits)
    if "cam" not in arrays or "exp" not in arrays or "shape" not in arrays:
        keys = ", ".join(sorted(arrays)) or "none of the known keys"
        raise FormatError(path, "cam, shape and exp", keys, _FOREIGN)
    cam = _numbers(arrays, "cam", 6, path)
    head, jaw = _head_and_jaw(arrays, path)
    if np.any(head != 0):
        raise ConventionError(
            f"{path}: head_pose", "zeros, as every release writes", f"{head}",
            "The head's motion must be in cam; fit it again with the rigid camera stage.",
        )  # fmt: skip
    fov = float(_numbers(arrays, "fov", 1, path)[0]) if "fov" in arrays else None
    _require_fov(arrays, fov, path)
    return Result(
        path=path,
        fid=fid,
        euler=cam[:3],
        centre=cam[3:],
        fov_deg=fov,
        shape=_padded(arrays, "shape", 300, path),
        expression=_padded(arrays, "exp", 100, path),
        jaw=jaw,
        eyes=_numbers(arrays, "eye_pose", 6, path) if "eye_pose" in arrays else None,
        neck=_numbers(arrays, "neck_pose", 3, path) if "neck_pose" in arrays else np.zeros(3),
        landmarks=_landmarks(arrays, path, limits),
    )


def _numbers(arrays: dict[str, NDArray[Any]], key: str, n: int, path: Path) -> Floats:
    array = arrays[key]
    if array.size != n or array.dtype.kind not in "fiu":
        shape = "x".join(map(str, array.shape))
        raise FormatError(f"{path}: {key}", f"{n} numbers", f"{shape} {array.dtype}", _FOREIGN)
    return _finite(array, key, path).reshape(n)


def _finite(array: NDArray[Any], key: str, path: Path) -> Floats:
    numbers = array.astype(np.float64)
    if not np.all(np.abs(numbers) <= _LARGEST):
        raise ConventionError(
            f"{path}: {key}", "finite numbers", "NaN, infinity or more than a million",
            "The fit failed there; --skip-damaged leaves the frame out.",
        )  # fmt: skip
    return numbers


def _padded(arrays: dict[str, NDArray[Any]], key: str, n: int, path: Path) -> Floats:
    """Coefficients of earlier releases are the first ones of FLAME's."""
    array = arrays[key]
    if not 1 <= array.size <= n or array.dtype.kind not in "fiu":
        raise FormatError(f"{path}: {key}", f"up to {n} numbers", f"{array.shape}", _FOREIGN)
    padded = np.zeros(n)
    padded[: array.size] = _finite(array, key, path).ravel()
    return padded


def _head_and_jaw(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[Floats, Floats]:
    if "jaw_pose" in arrays:
        head = _numbers(arrays, "head_pose", 3, path) if "head_pose" in arrays else np.zeros(3)
        return head, _numbers(arrays, "jaw_pose", 3, path)
    if "pose" in arrays:
        both = _numbers(arrays, "pose", 6, path)
        return both[:3], both[3:]
    return np.zeros(3), np.zeros(3)


def _require_fov(arrays: dict[str, NDArray[Any]], fov: float | None, path: Path) -> None:
    """Hold fov against K, which speaks of 256x256 whatever the size of the images."""
    if fov is not None and not 1 <= fov <= 120:
        raise ConventionError(f"{path}: fov", "1 to 120 degrees", f"{fov:g}", _FOREIGN)
    if fov is None or "K" not in arrays:
        return
    K = _numbers(arrays, "K", 9, path).reshape(3, 3)
    focal, half = 0.5 * _K_SIDE / np.tan(np.radians(fov) / 2), _K_SIDE / 2
    expected = np.array([[focal, 0, half], [0, focal, half], [0, 0, 1]])
    if np.abs(K - expected).max() > _K_LIMIT_PX:
        raise ConventionError(
            f"{path}: K", f"f {focal:.3f}, c 128, by its fov of {fov:.4f} degrees",
            f"f {K[0, 0]:.3f} {K[1, 1]:.3f}, c {K[0, 2]:.3f} {K[1, 2]:.3f}",
            "One of the two was rewritten; use the files as the tracker wrote them.",
        )  # fmt: skip


def _landmarks(arrays: dict[str, NDArray[Any]], path: Path, limits: Limits) -> Floats | None:
    """Landmarks as parts of the fitted image's sides: NDC from v3.3 on, else its px."""
    if "lmks_68" not in arrays:
        return None
    array = arrays["lmks_68"]
    if array.size % 68 or array.size // 68 not in (2, 3) or array.dtype.kind not in "fiu":
        raise FormatError(f"{path}: lmks_68", "68x2 numbers", f"{array.shape}", _FOREIGN)
    points = array.astype(np.float64).reshape(68, -1)[:, :2]
    if not np.all(np.abs(points) <= _LARGEST) or not points.any():
        return None
    if np.abs(points).max() <= 3:
        return points / 2 + 0.5
    size = Size.of(fitted_image(path, limits))
    return points / [size.width, size.height]


def fitted_image(path: Path, limits: Limits) -> NDArray[np.uint8]:
    """The image (H, W, 3) that the frame was fitted to, blue first; raises FormatError."""
    arrays = read_arrays(path, ("img", "img_aligned"), limits)
    name = next((n for n in ("img", "img_aligned") if n in arrays), "img")
    return _image(arrays.get(name), f"{path}: {name}")


def _image(array: NDArray[Any] | None, where: str) -> NDArray[np.uint8]:
    if array is None:
        raise FormatError(where, "the image that was fitted", "none", _FOREIGN)
    image = array[0] if array.ndim == 4 and len(array) == 1 else array
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise FormatError(where, "1xHxWx3 uint8", f"{array.shape} {array.dtype}", _FOREIGN)
    return np.ascontiguousarray(image[..., ::-1])


def is_realigned(path: Path, limits: Limits) -> bool:
    """Whether the fitted image is the aligned square (``realign=True``), not the whole frame."""
    arrays = read_arrays(path, ("img", "img_aligned"), limits)
    if "img" not in arrays or "img_aligned" not in arrays:
        image = fitted_image(path, limits)
        return bool(image.shape[0] == image.shape[1])
    return bool(np.array_equal(arrays["img"], arrays["img_aligned"]))
