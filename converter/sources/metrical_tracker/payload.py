"""What one ``.frame`` holds, checked and made uniform.

Written by ``Tracker.save_checkpoint`` (https://github.com/Zielon/metrical-tracker,
tracker.py:186-210). Variants from public forks are accepted where they mean the same: no batch
axis, tensors instead of arrays, integer frame_id, no texture, light or global_step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError, FormatError
from converter.geometry.pixels import Floats, Size
from converter.media.limits import Limits
from converter.media.torchfile import TorchFile, read_torch

_FLAME_SHAPES: dict[str, tuple[int | None, ...]] = {
    "exp": (None,),
    "shape": (None,),
    "tex": (None,),
    "sh": (9, 3),
    "eyes": (12,),
    "eyelids": (2,),
    "jaw": (6,),
}
_CAMERA_KEYS = frozenset(("R", "t", "fl", "pp"))
_KNOWN_FLAME = frozenset(_FLAME_SHAPES)
_LARGEST = 1e9
_NOT_FINITE = "NaN or infinity"
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
    unread
        Names of FLAME blocks that forks add and nothing here understands.

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
    unread: tuple[str, ...] = ()


def read_frame(path: Path, limits: Limits) -> FramePayload:
    """Read one ``.frame``.

    Raises
    ------
    FormatError, UnsafeFileError
        If the file is damaged, hostile, or not a ``.frame``.
    ConventionError
        If a number cannot be what the format says.

    """
    return frame_from(read_torch(path, limits), path)


def frame_from(stored: TorchFile, path: Path, *, finite: bool = True) -> FramePayload:
    """Return what the file at ``path`` holds, once it is read; raises as `read_frame`.

    ``finite=False`` lets numbers pass that `unusable_block` would name.
    """
    content = _mapping(stored.content, path, "the file")
    if "sparse_frame" in content or "dense_frame" in content:
        raise FormatError(
            path,
            "one frame",
            "lists over frames (a joint-optimisation fork)",
            "Split it into one .frame per image.",
        )
    if "opencv" not in content:
        keys = ", ".join(sorted(map(str, content))[:8]) or "nothing"
        raise FormatError(path, "the keys flame, camera, opencv, img_size", keys, _FOREIGN)
    opencv = _mapping(content["opencv"], path, "opencv")
    payload = FramePayload(
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
        unread=_unread(content),
    )
    if finite and (found := unusable_block(payload)) is not None:
        name, wrong = found
        raise ConventionError(
            f"{payload.path}: {name}",
            "finite numbers" if wrong == _NOT_FINITE else f"numbers up to {_LARGEST:g}",
            wrong,
            "The tracker never writes these; --skip-damaged leaves the frame out.",
        )
    return payload


def unusable_block(payload: FramePayload) -> tuple[str, str] | None:
    """Name a block with NaN, infinity, or numbers whose sums and products could overflow.

    Returns
    -------
    The block's name, and what is wrong in it; None if all numbers are usable.

    """
    blocks = [payload.K, payload.R, payload.t, *payload.flame.values()]
    if (camera := payload.camera) is not None:
        blocks += [camera.R6, camera.t, np.array([camera.fl]), camera.pp]
    # All at once: one call per block would cost as much as reading the file.
    if np.abs(np.concatenate(blocks, axis=None)).max() <= _LARGEST:
        return None
    names = ["opencv.K", "opencv.R", "opencv.t", *(f"flame.{name}" for name in payload.flame)]
    names += ["camera.R", "camera.t", "camera.fl", "camera.pp"][: len(blocks) - len(names)]
    for name, block in zip(names, blocks, strict=True):
        if not np.isfinite(block).all():
            return name, _NOT_FINITE
        if np.abs(block).max(initial=0.0) > _LARGEST:
            return name, f"{np.abs(block).max():.3g}"
    return None


def stacked(arrays: Sequence[Floats]) -> Floats:
    """Stack arrays of one shape, (N, ...): np.stack, in a fifth of its time for small ones."""
    return np.concatenate(arrays, axis=None).reshape(len(arrays), *arrays[0].shape)


def _mapping(value: Any, path: Path, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{path}: {what}", "a dictionary", type(value).__name__, _FOREIGN)
    return value


def _numbers(block: dict[Any, Any], path: Path, name: str, shape: tuple[int | None, ...]) -> Floats:
    """Return ``block[last part of name]`` as float64 of ``shape``.

    Axes of length 1 may be absent or additional: forks write (1, 3), (3,) and (1, 3, 1) for (3,).
    """
    key = name.rsplit(".", 1)[-1]
    if key not in block:
        raise FormatError(f"{path}: {name}", _layout(shape), "nothing", _FOREIGN)
    stored = block[key]
    try:
        array = np.asarray(stored)
    except ValueError:  # lists in lists of different lengths
        raise FormatError(f"{path}: {name}", _layout(shape), "a ragged list", _FOREIGN) from None
    if array.dtype.kind not in "fiu":
        found = f"{array.dtype.name} numbers" if array.dtype.kind in "bc" else _kind(stored)
        raise FormatError(f"{path}: {name}", _layout(shape), found, _FOREIGN)
    inner = array.shape[1:]
    fits = inner == shape or (shape == (None,) and len(inner) == 1 and inner != (1,))
    if fits and array.shape[0] == 1:
        array = array[0]
    elif array.shape != shape:
        array = _reshaped(array, path, name, shape)
    return array.astype(np.float64)


def _reshaped(
    array: NDArray[Any], path: Path, name: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Return the array as ``shape``, if it differs by axes of length 1 only."""
    kept = tuple(n for n in array.shape if n != 1)
    wanted = tuple(n for n in shape if n != 1)
    if len(kept) == len(wanted) and all(n in (None, m) for n, m in zip(wanted, kept, strict=True)):
        return array.reshape(kept or (1,))
    if name.startswith("opencv.") and array.shape[1:] == shape:
        raise ConventionError(
            f"{path}: {name}",
            _layout(shape),
            f"{array.shape[0]} cameras",
            "Tracks of several cameras are not read: split it into one track per camera.",
        )
    found = "x".join(map(str, array.shape)) or "one number"
    raise FormatError(f"{path}: {name}", _layout(shape), f"{found} {array.dtype.name}", _FOREIGN)


def _layout(shape: tuple[int | None, ...]) -> str:
    return "x".join(["1", *("N" if n is None else str(n) for n in shape)]) + " float"


def _kind(value: object) -> str:
    names = {dict: "a dictionary", str: "text", list: "a list of other things", type(None): "none"}
    return names.get(type(value), f"a {type(value).__name__}")


def _camera(content: dict[Any, Any], path: Path) -> CameraBlock | None:
    block = content.get("camera")
    if not isinstance(block, dict) or not block.keys() >= _CAMERA_KEYS:
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


def _unread(content: dict[Any, Any]) -> tuple[str, ...]:
    block = content.get("flame")
    if not isinstance(block, dict) or block.keys() <= _KNOWN_FLAME:
        return ()
    return tuple(sorted(str(name)[:40] for name in block.keys() - _KNOWN_FLAME))


def _img_size(content: dict[Any, Any], path: Path) -> Size | None:
    if "img_size" not in content:
        return None
    height, width = _numbers(content, path, "img_size", (2,)).tolist()
    if not 1 <= min(height, width) <= max(height, width) <= 1e6 or height % 1 or width % 1:
        raise ConventionError(
            f"{path}: img_size", "(height, width), px", f"({height:g}, {width:g})", _FOREIGN
        )
    return Size(int(width), int(height))


def _whole(content: dict[Any, Any], path: Path, key: str) -> int | None:
    value = content.get(key)
    if type(value) is int and abs(value) <= _LARGEST:
        return value
    if value is None:
        return None
    number = float(_numbers(content, path, key, (1,))[0])
    if not abs(number) <= _LARGEST or number % 1:
        raise FormatError(f"{path}: {key}", "a whole number", f"{number:g}", _FOREIGN)
    return int(number)


def _frame_id(content: dict[Any, Any], path: Path) -> int | None:
    value = content.get("frame_id")
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "iu":
        value = value.item()
    text = str(value) if isinstance(value, str | int) else ""
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise FormatError(f"{path}: frame_id", "a whole number", f"{value!r:.60}", _FOREIGN)
    return int(text)
