"""The table of everything a bundle can hold. docs/bundle.md is made from it.

Symbols in shapes: N frames, V vertices, F triangles, B bytes, S and E coefficients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

FORMAT = "uncrop-track"
VERSION = (1, 0)
SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, slots=True)
class Entry:
    """One dataset of the schema.

    Attributes
    ----------
    path
        Absolute path in the file.
    dtype
        NumPy dtype, little-endian; ``"text"`` is a fixed-length UTF-8 string.
    shape
        Symbols and numbers; ``K`` is (3, 3) for one camera or (N, 3, 3).
    unit
        ``m``, ``px``, ``s``, ``rad`` or "" for plain numbers.
    meaning
        Long name, with convention.
    required
        Whether every bundle holds it.

    """

    path: str
    dtype: Literal["<f8", "<f4", "<i8", "<i4", "|u1", "text"]
    shape: tuple[str | int, ...]
    unit: str
    meaning: str
    required: bool = False
    since: tuple[int, int] = (1, 0)


SCHEMA: tuple[Entry, ...] = (
    Entry("/frames/id", "<i8", ("N",), "", "frame number of the tracker, ascending", True),
    Entry("/frames/source_index", "<i8", ("N",), "",
          "position in the source sequence, counted from 0"),
    Entry("/frames/time", "<f8", ("N",), "s", "time in the source sequence: source_index / fps"),
    Entry("/camera/R", "<f8", ("N", 3, 3), "",
          "rotation, world to camera: x_cam = R x_world + t, OpenCV axes", True),
    Entry("/camera/t", "<f8", ("N", 3), "m", "translation, world to camera", True),
    Entry("/camera/K_crop", "<f8", ("K",), "px",
          "intrinsics of the tracker's crop, edge-origin pixels"),
    Entry("/camera/K_source", "<f8", ("K",), "px",
          "intrinsics of the source frame, edge-origin pixels"),
    Entry("/crop/bbox", "<i8", (4,), "px",
          "x_min, x_max, y_min, y_max cut from the source frame, half-open"),
    Entry("/crop/pad", "<i8", (2,), "px", "zero border per side (x, y), before the resize"),
    Entry("/crop/crop_from_source", "<f8", (3, 3), "px",
          "map of homogeneous edge-origin pixels, source frame to crop"),
    Entry("/flame/shape", "<f8", ("S",), "", "FLAME shape, constant"),
    Entry("/flame/texture", "<f8", ("S",), "", "albedo coefficients, constant"),
    Entry("/flame/expression", "<f8", ("N", "E"), "", "FLAME expression"),
    Entry("/flame/jaw", "<f8", ("N", 6), "", "jaw rotation, first two rows of its matrix"),
    Entry("/flame/eyes", "<f8", ("N", 12), "",
          "eye rotations, left then right, first two rows of each matrix"),
    Entry("/flame/eyelids", "<f8", ("N", 2), "", "eyelid weights, left and right; 1 is closed"),
    Entry("/flame/light", "<f8", ("N", 9, 3), "", "spherical-harmonics light"),
    Entry("/landmarks/face68", "<f8", ("N", 68, 2), "px",
          "iBUG landmarks (x, y), edge-origin pixels of the crop, NaN where not found"),
    Entry("/landmarks/mediapipe478", "<f8", ("N", 478, 2), "px",
          "MediaPipe landmarks (x, y), edge-origin pixels of the crop, NaN where not found"),
    Entry("/mesh/faces", "<i4", ("F", 3), "", "triangles"),
    Entry("/mesh/mean", "<f4", ("V", 3), "m", "mean of the vertices over all frames"),
    Entry("/mesh/vertices", "<f4", ("N", "V", 3), "m", "vertices in world (head) space"),
    Entry("/images/crop/data", "|u1", ("B",), "", "encoded crop images, one after the other"),
    Entry("/images/crop/offsets", "<i8", ("N+1",), "", "where each crop image begins in data"),
    Entry("/images/source/data", "|u1", ("B",), "", "encoded source frames, one after the other"),
    Entry("/images/source/offsets", "<i8", ("N+1",), "", "where each source frame begins in data"),
    Entry("/images/video", "|u1", ("B",), "", "the source video, its file byte for byte"),
    Entry("/native/camera_R6", "<f8", ("N", 6), "", "metrical-tracker camera.R, pytorch3d axes"),
    Entry("/native/camera_t", "<f8", ("N", 3), "m", "metrical-tracker camera.t, pytorch3d axes"),
    Entry("/native/camera_fl", "<f8", ("N",), "", "metrical-tracker camera.fl, NDC"),
    Entry("/native/camera_pp", "<f8", ("N", 2), "", "metrical-tracker camera.pp, NDC"),
    Entry("/native/global_step", "<f8", ("N",), "", "metrical-tracker optimiser steps so far"),
    Entry("/provenance/record", "text", (), "",
          "JSON: tracker, input files with SHA-256, every step, findings", True),
)  # fmt: skip

BY_PATH = {entry.path: entry for entry in SCHEMA}


def hash_header(shape: Sequence[int], dtype: str) -> bytes:
    """Beginning of what a dataset's hash covers: the same bytes in another shape are other data."""
    return f"{dtype} {'x'.join(map(str, shape))}\n".encode()


def content_hash(hashes: Mapping[str, str]) -> str:
    """SHA-256 over all datasets' paths and hashes."""
    lines = "".join(f"{path} {digest}\n" for path, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
