"""Triangle meshes. Binary PLY as trimesh writes it is read here; other files through trimesh."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UnsafeFileError
from converter.media.files import read_bytes
from converter.media.limits import DEFAULT_LIMITS, Limits

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_MAX_HEADER = 8192


@dataclass(frozen=True, slots=True)
class Mesh:
    """Vertices (V, 3) float32 in the file's units, triangles (F, 3) int32."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


def read_mesh(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> Mesh:
    """Read a .ply or .obj mesh; vertices keep their order and number.

    Raises
    ------
    FormatError
        If the file is damaged, holds no triangles, or a vertex is not finite.
    UnsafeFileError
        If it announces more vertices or faces than allowed.

    """
    data = read_bytes(path, limits)
    mesh = _read_binary_ply(data, str(path), limits) or _read_with_trimesh(data, Path(path), limits)
    if not len(mesh.vertices):
        raise FormatError(path, "vertices", "none")
    if not np.isfinite(mesh.vertices).all():
        raise FormatError(path, "finite vertices", "NaN or infinity")
    if mesh.faces.size and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
        raise FormatError(path, f"faces that index {len(mesh.vertices)} vertices", "others")
    return mesh


def _read_binary_ply(data: bytes, where: str, limits: Limits) -> Mesh | None:
    """Return the mesh, or None if this is not a binary little-endian triangle PLY."""
    end = data.find(b"end_header\n", 0, _MAX_HEADER)
    if not data.startswith(b"ply\n") or end < 0:
        return None
    lines = data[:end].decode("ascii", "replace").split("\n")
    if "format binary_little_endian 1.0" not in lines:
        return None
    elements = _ply_elements(lines)
    if [name for name, _, _ in elements] not in (["vertex"], ["vertex", "face"]):
        return None
    body = memoryview(data)[end + len(b"end_header\n") :]
    (_, n_vertices, properties), faces = elements[0], elements[1:]
    n_faces = faces[0][1] if faces else 0
    if max(n_vertices, n_faces) > limits.mesh_vertices:
        raise UnsafeFileError(
            where, f"at most {limits.mesh_vertices} vertices", f"{max(n_vertices, n_faces)}"
        )
    vertex = _ply_dtype(properties)
    face = _ply_dtype(faces[0][2]) if faces else np.dtype([("n", "u1")])
    if vertex is None or face is None or not {"x", "y", "z"} <= set(vertex.names or ()):
        return None
    expected = n_vertices * vertex.itemsize + n_faces * face.itemsize
    if len(body) != expected:
        raise FormatError(where, f"{expected} bytes of vertices and faces", f"{len(body)}")
    v = np.frombuffer(body, vertex, n_vertices)
    f = np.frombuffer(body, face, n_faces, n_vertices * vertex.itemsize)
    if faces and np.any(f["n"] != 3):
        raise FormatError(where, "triangles", "faces of another number of corners")
    corners = f["corners"].astype(np.int32) if faces else np.zeros((0, 3), np.int32)
    return Mesh(np.stack([v["x"], v["y"], v["z"]], axis=1).astype(np.float32), corners)


def _ply_elements(lines: Sequence[str]) -> list[tuple[str, int, list[list[str]]]]:
    elements: list[tuple[str, int, list[list[str]]]] = []
    for line in lines:
        if match := re.fullmatch(r"element (\w+) (\d{1,12})", line):
            elements.append((match[1], int(match[2]), []))
        elif line.startswith("property ") and elements:
            elements[-1][2].append(line.split(" ")[1:])
    return elements


def _ply_dtype(properties: list[list[str]]) -> np.dtype[Any] | None:
    """Return the row layout; a list property is taken as one of three corners."""
    if len(properties) == 1 and properties[0][0] == "list" and len(properties[0]) == 4:
        count, corner = (_PLY_TYPES.get(t) for t in properties[0][1:3])
        if count != "u1" or corner not in ("i4", "u4"):
            return None
        return np.dtype([("n", "u1"), ("corners", f"<{corner}", 3)])
    names = [p[-1] for p in properties]
    known = all(len(p) == 2 and p[0] in _PLY_TYPES for p in properties)
    if not known or len(set(names)) != len(names):
        return None
    return np.dtype([(p[1], "<" + _PLY_TYPES[p[0]]) for p in properties])


def _read_with_trimesh(data: bytes, path: Path, limits: Limits) -> Mesh:
    import trimesh

    if len(data) > limits.mesh_text_bytes:
        raise UnsafeFileError(
            path,
            f"a binary little-endian .ply, or at most {limits.mesh_text_bytes} bytes",
            f"{len(data)} bytes of another kind",
            "Save it as a binary .ply.",
        )
    try:
        # What it warns of (no texture, huge numbers) is nothing that a mesh needs.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # process=False and maintain_order: else vertices are merged and renumbered.
            loaded: Any = trimesh.load(
                io.BytesIO(data),
                file_type=path.suffix.lstrip(".").lower(),
                process=False,
                maintain_order=True,
                skip_materials=True,
                force="mesh",
            )
            vertices = np.asarray(loaded.vertices, np.float32)
            faces = np.asarray(loaded.faces, np.int32)
    except Exception as error:  # trimesh's parsers raise nearly anything on damaged input
        raise FormatError(path, "a .ply or .obj mesh", f"{type(error).__name__}") from None
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise FormatError(path, "vertices and triangles", "neither")
    return Mesh(vertices, faces)


def ply_bytes(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> bytes:
    """A binary PLY of vertices (V, 3) and triangles (F, 3), laid out as trimesh writes it."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    table = np.empty(len(faces), dtype=[("n", "u1"), ("corners", "<i4", 3)])
    table["n"], table["corners"] = 3, faces
    return header.encode() + np.ascontiguousarray(vertices, "<f4").tobytes() + table.tobytes()


def point_ply_bytes(points: NDArray[np.float32], colours: NDArray[np.uint8]) -> bytes:
    """A binary PLY of points (V, 3) with a colour (V, 3), red first, and no faces."""
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    channels = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(points)}\n{axes}{channels}end_header\n"
    )
    table = np.empty(len(points), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    table["xyz"], table["rgb"] = points, colours
    return header.encode() + table.tobytes()


@dataclass(frozen=True)
class MeshFiles:
    """`converter.track.Meshes` over mesh files with common faces."""

    paths: tuple[Path, ...]
    limits: Limits = DEFAULT_LIMITS

    @cached_property
    def _first(self) -> Mesh:
        return read_mesh(self.paths[0], self.limits)

    @property
    def faces(self) -> NDArray[np.int32]:
        """Triangles, shape (F, 3)."""
        return self._first.faces

    def __len__(self) -> int:
        return len(self.paths)

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of one frame; raises FormatError if their number differs from the first's."""
        vertices = read_mesh(self.paths[index], self.limits).vertices
        if len(vertices) != len(self._first.vertices):
            raise FormatError(
                self.paths[index],
                f"{len(self._first.vertices)} vertices like {self.paths[0].name}",
                f"{len(vertices)}",
            )
        return vertices

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the vertices over all frames, shape (V, 3); reads every file once."""
        total = np.zeros(self._first.vertices.shape)
        for index in range(len(self)):
            total += self.vertices(index)
        return (total / len(self)).astype(np.float32)
