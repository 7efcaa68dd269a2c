"""Meshes: our PLY reader against trimesh, other files through trimesh, damaged ones refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from converter.errors import FormatError, UncropError, UnsafeFileError
from converter.media.limits import Limits
from converter.media.meshes import MeshFiles, read_mesh


def sphere() -> Any:
    return trimesh.creation.icosphere(subdivisions=2)


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    path = tmp_path / "00000.ply"
    sphere().export(path)
    return path


def test_ply_as_the_tracker_writes_it(ply: Path) -> None:
    mesh = read_mesh(ply)
    np.testing.assert_array_equal(mesh.vertices, sphere().vertices.astype(np.float32))
    np.testing.assert_array_equal(mesh.faces, sphere().faces)


@pytest.mark.parametrize("kind", ["ascii", "normals", "obj", "big-endian"])
def test_other_meshes_give_the_same(tmp_path: Path, ply: Path, kind: str) -> None:
    path = tmp_path / ("other.obj" if kind == "obj" else "other.ply")
    mesh = sphere()
    if kind == "ascii":
        mesh.export(path, encoding="ascii")
    elif kind == "normals":
        mesh.export(path, vertex_normal=True)
    elif kind == "obj":
        mesh.export(path)
    else:
        data = ply.read_bytes()
        head, body = data.split(b"end_header\n", 1)
        n = len(mesh.vertices)
        vertices = np.frombuffer(body, "<f4", 3 * n).astype(">f4").tobytes()
        faces = np.frombuffer(body[12 * n :], [("n", "u1"), ("c", "<i4", 3)])
        swapped = faces.astype([("n", "u1"), ("c", ">i4", 3)]).tobytes()
        head = head.replace(b"little", b"big")
        path.write_bytes(head + b"end_header\n" + vertices + swapped)
    read = read_mesh(path)
    np.testing.assert_allclose(read.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, mesh.faces)


def test_every_truncation_is_refused(ply: Path) -> None:
    data = ply.read_bytes()
    for end in range(0, len(data), 97):
        ply.write_bytes(data[:end])
        with pytest.raises(FormatError, match="00000.ply"):
            read_mesh(ply)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b"element vertex 162", b"element vertex 999999999999", UnsafeFileError),
        (b"element vertex 162", b"element vertex 163", FormatError),
        (b"element vertex 162", b"element vertex -1", FormatError),
        (b"element face 320", b"element face 319", FormatError),
        (b"property float x", b"property float y", FormatError),
        (b"property float x", b"property list uchar int x", FormatError),
        (b"ply\n", b"yes\n", FormatError),
        (b"end_header", b"fin_header", FormatError),
    ],
)
def test_forged_headers_are_refused(
    ply: Path, old: bytes, new: bytes, error: type[UncropError]
) -> None:
    data = ply.read_bytes()
    assert old in data
    ply.write_bytes(data.replace(old, new, 1))
    with pytest.raises(error):
        read_mesh(ply)


def test_numbers_that_cannot_be_are_refused(ply: Path) -> None:
    data = ply.read_bytes()
    start = data.index(b"end_header\n") + len(b"end_header\n")
    nan = np.array([np.nan], "<f4").tobytes()
    ply.write_bytes(data[:start] + nan + data[start + 4 :])
    with pytest.raises(FormatError, match="finite"):
        read_mesh(ply)
    ply.write_bytes(data[:-13] + b"\x04" + data[-12:])
    with pytest.raises(FormatError, match="triangles"):
        read_mesh(ply)
    index = np.array([100_000], "<i4").tobytes()
    ply.write_bytes(data[:-4] + index)
    with pytest.raises(FormatError, match="faces that index 162"):
        read_mesh(ply)
    ply.write_bytes(data)
    with pytest.raises(UnsafeFileError):
        read_mesh(ply, Limits(mesh_vertices=100))


def test_a_mesh_of_another_size_is_named(ply: Path, tmp_path: Path) -> None:
    other = tmp_path / "00001.ply"
    trimesh.creation.icosphere(subdivisions=1).export(other)
    files = MeshFiles((ply, other))
    assert len(files.faces) == 320
    with pytest.raises(FormatError, match=r"00001\.ply.*162.*42"):
        files.vertices(1)


def test_the_mean_is_over_all_frames(tmp_path: Path) -> None:
    paths = []
    for index in range(3):
        mesh = sphere()
        mesh.apply_translation([index, 0, 0])
        paths.append(tmp_path / f"{index}.ply")
        mesh.export(paths[-1])
    mean = MeshFiles(tuple(paths)).mean
    np.testing.assert_allclose(mean, sphere().vertices + [1, 0, 0], atol=1e-6)
