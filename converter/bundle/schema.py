"""The table of everything a bundle can hold; docs/bundle.md shows what this module prints.

Symbols in shapes: N frames, V vertices, F triangles, B bytes, S and E coefficients, K one camera
(3, 3) or one per frame (N, 3, 3).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

FORMAT = "uncrop-track"
VERSION = (1, 2)
SUFFIXES = (".h5", ".hdf5")
MAGIC = b"\x89HDF\r\n\x1a\n"


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
        Symbols and numbers.
    unit
        ``m``, ``px``, ``s``, ``rad`` or "" for plain numbers.
    meaning
        Long name, with convention.
    required
        Whether every bundle holds it.
    since
        Version of the schema that added it.

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
    Entry("/central/R", "<f8", ("N", 3, 3), "",
          "rotation of a camera with a central K, fitted to the same picture; as /camera/R",
          since=(1, 1)),
    Entry("/central/t", "<f8", ("N", 3), "m", "its translation, as /camera/t", since=(1, 1)),
    Entry("/central/K", "<f8", (3, 3), "px",
          "its intrinsics, of the source frame: fx = fy, principal point in the image centre",
          since=(1, 1)),
    Entry("/central/median_px", "<f8", ("N",), "px",
          "how far it moves the mesh from where /camera has it: median over the vertices",
          since=(1, 1)),
    Entry("/central/max_px", "<f8", ("N",), "px", "the same: largest of the vertices",
          since=(1, 1)),
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
    Entry("/images/video", "|u1", ("B",), "",
          "the video that the source frames come from, its file byte for byte"),
    Entry("/images/sound", "|u1", ("B",), "",
          "the video whose sound belongs to the track, where that is another file"),
    Entry("/native/camera_R6", "<f8", ("N", 6), "", "metrical-tracker camera.R, pytorch3d axes"),
    Entry("/native/camera_t", "<f8", ("N", 3), "m", "metrical-tracker camera.t, pytorch3d axes"),
    Entry("/native/camera_fl", "<f8", ("N",), "", "metrical-tracker camera.fl, NDC"),
    Entry("/native/camera_pp", "<f8", ("N", 2), "", "metrical-tracker camera.pp, NDC"),
    Entry("/native/global_step", "<f8", ("N",), "", "metrical-tracker optimiser steps so far"),
    Entry("/provenance/record", "text", (), "",
          "JSON: tracker, input files with SHA-256, every step, findings", True),
)  # fmt: skip

BY_PATH = {entry.path: entry for entry in SCHEMA}

Value: TypeAlias = str | int | float | list[int]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of the schema, other than long_name, units and sha256 of every dataset.

    Attributes
    ----------
    path
        The root, a group or a dataset.
    name
        Its name there.
    kind
        ``"text"``: fixed-length UTF-8 string; ``"pair"``: two integers.
    meaning
        What it says.
    fixed
        The only value that it may have, or None.
    hashed
        Whether `content_hash` covers it.
    since
        Version of the schema that added it.

    """

    path: str
    name: str
    kind: Literal["text", "int", "float", "pair"]
    meaning: str
    fixed: Value | None = None
    hashed: bool = False
    since: tuple[int, int] = (1, 0)

    @property
    def key(self) -> str:
        """``path@name``."""
        return f"{self.path}@{self.name}"


_EDGE = "edge: the first pixel's centre is (0.5, 0.5)"

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("/", "file_format", "text", "what this file is", FORMAT),
    Attribute("/", "format_version", "text", "major.minor of this table"),
    Attribute("/", "creator", "text", "program and version that wrote the file"),
    Attribute("/", "name", "text", "name of the track, letters, digits, - and _", None, True),
    Attribute("/", "tracker", "text", "program that tracked", None, True),
    Attribute("/", "fps", "float", "frames per second of the source sequence", None, True),
    Attribute("/", "image_space", "text",
              "which K the tracker gave: crop or source; the other is derived", None, True),
    Attribute("/", "n_frames", "int", "N", None, True),
    Attribute("/", "content_sha256", "text", "SHA-256 over the hashes of all parts of version 1.0"),
    Attribute("/", "content_sha256_1_1", "text", "the same over the parts that 1.1 added",
              since=(1, 2)),
    Attribute("/", "complete", "int", "1; written last", 1),
    Attribute("/camera", "convention", "text", "direction and axes of R and t", "opencv_w2c"),
    Attribute("/camera", "axes", "text", "the same in words",
              "x right, y down, z forward; x_cam = R x_world + t"),
    Attribute("/camera", "pixel_center", "float", "where the first pixel's centre is, px", 0.5),
    Attribute("/camera", "pixel_origin", "text", "the same in words", _EDGE),
    Attribute("/camera/K_crop", "image_size", "pair", "width, height of the crop, px", None, True),
    Attribute("/camera/K_source", "image_size", "pair",
              "width, height of the source frame, px", None, True),
    Attribute("/central/K", "image_size", "pair",
              "width, height of the source frame without an odd last column or row, px",
              None, True, (1, 1)),
    Attribute("/crop", "source_size", "pair", "width, height of the source frame, px", None, True),
    Attribute("/crop", "crop_size", "pair", "width, height of the crop, px", None, True),
    Attribute("/crop", "pixel_origin", "text", "where pixels are counted from", _EDGE),
    Attribute("/landmarks", "pixel_origin", "text", "where pixels are counted from", _EDGE),
    Attribute("/images/crop/data", "image_size", "pair",
              "width, height of every crop image, px", None, True),
    Attribute("/images/source/data", "image_size", "pair",
              "width, height of every source frame, px", None, True),
)  # fmt: skip

BY_KEY = {attribute.key: attribute for attribute in ATTRIBUTES}


def hash_header(shape: Sequence[int], dtype: str) -> bytes:
    """Beginning of what a dataset's hash covers: the same bytes in another shape are other data."""
    return f"{dtype} {'x'.join(map(str, shape))}\n".encode()


CONTENT_HASHES = {(1, 0): "/@content_sha256", (1, 1): "/@content_sha256_1_1"}
"""Version of the schema -> the attribute that covers the parts which it added. One for each version
that adds any, so that an older reader can check a newer file as far as it knows it."""


def content_hash(
    version: tuple[int, int], hashes: Mapping[str, str], attributes: Mapping[str, Value]
) -> str:
    """SHA-256 over the path and hash of every dataset, and every hashed attribute, of a version.

    Parameters
    ----------
    version
        Which version's parts: those that have it as ``since``.
    hashes
        Dataset path -> SHA-256 as hex.
    attributes
        ``path@name`` -> value.

    """
    lines = [
        f"{path} {digest}\n" for path, digest in hashes.items() if BY_PATH[path].since == version
    ]
    lines += [
        f"{key} {json.dumps(value)}\n"
        for key, value in attributes.items()
        if BY_KEY[key].hashed and BY_KEY[key].since == version
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def markdown() -> str:
    """Return the tables of docs/bundle.md."""
    lines = ["| dataset | type | shape | unit | meaning |", "|---|---|---|---|---|"]
    for e in SCHEMA:
        shape = "x".join(map(str, e.shape)) or "scalar"
        name = f"**`{e.path}`**" if e.required else f"`{e.path}`"
        kind = "UTF-8 string" if e.dtype == "text" else f"`{e.dtype}`"
        lines.append(f"| {name} | {kind} | {shape} | {e.unit} | {e.meaning} |")
    lines += [
        "",
        "| attribute | type | meaning | value | hashed |",
        "|---|---|---|---|---|",
    ]
    for a in ATTRIBUTES:
        value = "" if a.fixed is None else f"`{a.fixed}`"
        lines.append(
            f"| `{a.key}` | {a.kind} | {a.meaning} | {value} | {'yes' if a.hashed else ''} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
