"""What one ``.frame`` holds, checked and made uniform.

Written by ``Tracker.save_checkpoint`` (https://github.com/Zielon/metrical-tracker,
tracker.py:186-210). Variants from public forks are accepted where they mean the same: no batch
axis, tensors instead of arrays, integer frame_id, no texture, light or global_step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ConventionError, FormatError
from converter.geometry.pixels import Floats, Size
from converter.media.limits import Limits
from converter.media.torchfile import read_torch

_FLAME_SHAPES: dict[str, tuple[int | None, ...]] = {
    "exp": (None,),
    "shape": (None,),
    "tex": (None,),
    "sh": (9, 3),
    "eyes": (12,),
    "eyelids": (2,),
    "jaw": (6,),
}
_FOREIGN = "Was this written by metrical-tracker?"


@dataclass(frozen=True, slots=True)
class CameraBlock:
    """The tracker's own camera: pytorch3d axes, NDC.

    Attributes
    ----------
    R6
        (6,) first two rows of the rotation, not normalised.
    t
        (3,) metres.
    fl, pp
        Focal length and principal point (2,), NDC.

    """

    R6: Floats
    t: Floats
    fl: float
    pp: Floats


@dataclass(frozen=True, slots=True)
class FramePayload:
    """One ``.frame``.

    Attributes
    ----------
    frame_id
        As stored; None if absent.
    written_as
        Name the file was first written under, from its archive; None for legacy streams.
    img_size
        Image size as the tracker stores it, read as (h, w); None if absent.
    K, R, t
        OpenCV camera, (3, 3), (3, 3), (3,).
    camera
        The tracker's own camera block; None in forks that drop it.
    flame
        FLAME blocks without batch axis, by the tracker's names.
    global_step
        Optimiser steps so far; None in versions before 2023-03-21.

    """

    path: Path
    frame_id: int | None
    written_as: str | None
    img_size: Size | None
    K: Floats
    R: Floats
    t: Floats
    camera: CameraBlock | None
    flame: dict[str, Floats]
    global_step: int | None


def read_frame(path: Path, limits: Limits) -> FramePayload:
    """Read one ``.frame``.

    Raises
    ------
    FormatError, UnsafeFileError
        If the file is damaged, hostile, or not a ``.frame``.
    ConventionError
        If a number cannot be what the format says.

    """
    stored = read_torch(path, limits)
    content = _mapping(stored.content, path, "the file")
    if "opencv" not in content:
        keys = ", ".join(sorted(map(str, content))[:8]) or "nothing"
        if {"sparse_frame", "dense_frame"} & set(content):
            raise FormatError(
                path,
                "one frame",
                "lists over frames (a joint-optimisation fork)",
                "Split it into one .frame per image.",
            )
        raise FormatError(path, "the keys flame, camera, opencv, img_size", keys, _FOREIGN)
    opencv = _mapping(content["opencv"], path, "opencv")
    return FramePayload(
        path=path,
        frame_id=_frame_id(content, path),
        written_as=stored.stem,
        img_size=_img_size(content, path),
        K=_numbers(opencv, path, "opencv.K", (3, 3)),
        R=_numbers(opencv, path, "opencv.R", (3, 3)),
        t=_numbers(opencv, path, "opencv.t", (3,)),
        camera=_camera(content, path),
        flame=_flame(content, path),
        global_step=_whole(content, path, "global_step"),
    )


def _mapping(value: Any, path: Path, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{path}: {what}", "a dictionary", type(value).__name__, _FOREIGN)
    return value


def _numbers(block: dict[Any, Any], path: Path, name: str, shape: tuple[int | None, ...]) -> Floats:
    """Return ``block[last part of name]`` as float64 of ``shape``, a leading batch of 1 removed."""
    where, key = f"{path}: {name}", name.rsplit(".", 1)[-1]
    expected = "x".join(["1", *("N" if n is None else str(n) for n in shape)]) + " float"
    if key not in block:
        raise FormatError(where, expected, "nothing", _FOREIGN)
    array = np.asarray(block[key])
    if array.dtype.kind not in "fiu":
        raise FormatError(where, expected, f"{type(block[key]).__name__}", _FOREIGN)
    if array.ndim == len(shape) + 1 and array.shape[0] > 1 and name.startswith("opencv"):
        raise ConventionError(
            where,
            expected,
            f"{array.shape[0]} cameras",
            "Tracks of several cameras are not read: split it into one track per camera.",
        )
    if array.ndim == len(shape) + 1 and array.shape[0] == 1:
        array = array[0]
    elif array.ndim == len(shape) - 1 and shape == (1,):
        array = array.reshape(1)
    fits = array.ndim == len(shape) and all(
        n is None or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        found = "x".join(map(str, np.shape(block[key]))) or "a scalar"
        raise FormatError(where, expected, f"{found} {array.dtype.name}", _FOREIGN)
    if not np.isfinite(array).all():
        raise ConventionError(
            where,
            "finite numbers",
            "NaN or infinity",
            "The tracker never writes these; --skip-damaged leaves the frame out.",
        )
    return array.astype(np.float64)


def _camera(content: dict[Any, Any], path: Path) -> CameraBlock | None:
    block = content.get("camera")
    if not isinstance(block, dict) or not {"R", "t", "fl", "pp"} <= set(block):
        return None
    return CameraBlock(
        _numbers(block, path, "camera.R", (6,)),
        _numbers(block, path, "camera.t", (3,)),
        float(_numbers(block, path, "camera.fl", (1,))[0]),
        _numbers(block, path, "camera.pp", (2,)),
    )


def _flame(content: dict[Any, Any], path: Path) -> dict[str, Floats]:
    block = content.get("flame")
    if not isinstance(block, dict):
        return {}
    return {
        name: _numbers(block, path, f"flame.{name}", shape)
        for name, shape in _FLAME_SHAPES.items()
        if name in block
    }


def _img_size(content: dict[Any, Any], path: Path) -> Size | None:
    if "img_size" not in content:
        return None
    height, width = _numbers(content, path, "img_size", (2,))
    if not 1 <= min(height, width) <= max(height, width) <= 1e6:
        raise ConventionError(f"{path}: img_size", "(height, width)", f"({height:g}, {width:g})")
    return Size(int(width), int(height))


def _whole(content: dict[Any, Any], path: Path, key: str) -> int | None:
    if content.get(key) is None:
        return None
    return int(_numbers(content, path, key, (1,))[0])


def _frame_id(content: dict[Any, Any], path: Path) -> int | None:
    value = content.get("frame_id")
    if value is None:
        return None
    text = str(value) if isinstance(value, str | int | np.integer) else ""
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise FormatError(f"{path}: frame_id", "a whole number", repr(value)[:60], _FOREIGN)
    return int(text)
