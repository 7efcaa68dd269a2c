"""Tracks to write, ways to compare them, and a second opinion on what the hashes cover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from converter.findings import Finding
from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Size
from converter.geometry.pose import Pose
from converter.track import CentralCameras, Flame, InputFile, Provenance, Track


@dataclass(frozen=True)
class Arrays:
    """`converter.track.Meshes` over arrays."""

    faces: np.ndarray
    all: np.ndarray

    def __len__(self) -> int:
        return len(self.all)

    def vertices(self, index: int) -> np.ndarray:
        return self.all[index]

    @property
    def mean(self) -> np.ndarray:
        return self.all.mean(axis=0, dtype=np.float64).astype(np.float32)


def full_track(n: int = 3) -> Track:
    """A track with everything but images."""
    rng = np.random.default_rng(1)
    source, output = Size(640, 360), Size(512, 512)
    landmarks = rng.uniform(0, 512, (n, 68, 2))
    landmarks[1] = np.nan
    return Track(
        name="ada-1",
        frame_ids=np.array([3, 4, 9, *range(10, 10 + n)])[:n],
        w2c=Pose(Rotation.random(n, rng=2).as_matrix(), rng.normal(size=(n, 3))),
        intrinsics=Intrinsics(2000.5 + np.arange(n), 2000.5, 250.25, np.full(n, 260.0), output),
        image_space="crop",
        crop=Crop.from_bbox(BBox(100, 341, 20, 300), source, output),
        source_indices=np.array([4, 5, 10, *range(11, 11 + n)])[:n],
        fps=29.97,
        flame=Flame(
            shape=rng.normal(size=300), texture=rng.normal(size=140),
            expression=rng.normal(size=(n, 100)), jaw=rng.normal(size=(n, 6)),
            eyes=rng.normal(size=(n, 12)), eyelids=rng.normal(size=(n, 2)),
            light=rng.normal(size=(n, 9, 3)),
        ),
        landmarks=landmarks,
        dense_landmarks=rng.uniform(0, 512, (n, 478, 2)),
        meshes=Arrays(
            rng.integers(0, 40, (70, 3)).astype(np.int32),
            rng.normal(size=(n, 40, 3)).astype(np.float32),
        ),
        central=CentralCameras(
            Pose(Rotation.random(n, rng=3).as_matrix(), rng.normal(size=(n, 3))),
            Intrinsics(2400.5, 2400.5, source.width / 2, source.height / 2, source),
            rng.uniform(size=n), rng.uniform(1, 2, size=n),
        ),
        native={
            "camera_R6": rng.normal(size=(n, 6)), "camera_t": rng.normal(size=(n, 3)),
            "camera_fl": rng.normal(size=n), "camera_pp": rng.normal(size=(n, 2)),
            "global_step": np.arange(float(n)),
        },
        provenance=Provenance(
            "metrical-tracker",
            (InputFile("Zoë \udcff [red].frame", 7, "0" * 64), InputFile("b", 2**40, "1" * 64)),
            ("one step", "a \x1b[31m second"),
        ),
        findings=(
            Finding("a", "warning", "w", "m \n", 1.5, None, "px", "f"),
            Finding("b", "info", "", ""),
        ),
    )  # fmt: skip


def assert_same(a: Track, b: Track) -> None:
    """Every number, text and mesh is the same, bit for bit."""
    for name in ("name", "image_space", "fps", "provenance", "findings", "crop"):
        assert getattr(a, name) == getattr(b, name), name
    # The same numbers; which of the four carry the batch axis is not kept.
    assert np.array_equal(a.intrinsics.matrix, b.intrinsics.matrix)
    assert a.intrinsics.size == b.intrinsics.size
    assert a.intrinsics.n_frames == b.intrinsics.n_frames
    pairs: list[tuple[str, Any, Any]] = [
        (name, getattr(a, name), getattr(b, name))
        for name in ("frame_ids", "source_indices", "times", "landmarks", "dense_landmarks")
    ]
    pairs += [("R", a.w2c.R, b.w2c.R), ("t", a.w2c.t, b.w2c.t)]
    pairs += [(k, getattr(a.flame, k), getattr(b.flame, k)) for k in Flame.__slots__]
    assert (a.central is None) == (b.central is None)
    if a.central is not None and b.central is not None:
        assert a.central.intrinsics == b.central.intrinsics
        assert a.central.intrinsics.size == b.central.intrinsics.size
        pairs += [("central R", a.central.w2c.R, b.central.w2c.R),
                  ("central t", a.central.w2c.t, b.central.w2c.t),
                  ("median", a.central.median_px, b.central.median_px),
                  ("max", a.central.max_px, b.central.max_px)]  # fmt: skip
    assert set(a.native) == set(b.native)
    pairs += [(k, a.native[k], b.native[k]) for k in a.native]
    assert (a.meshes is None) == (b.meshes is None)
    if a.meshes is not None and b.meshes is not None:
        assert len(a.meshes) == len(b.meshes)
        pairs += [("faces", a.meshes.faces, b.meshes.faces), ("mean", a.meshes.mean, b.meshes.mean)]
        pairs += [
            (f"mesh {i}", a.meshes.vertices(i), b.meshes.vertices(i)) for i in range(len(a.meshes))
        ]
    for what, x, y in pairs:
        assert (x is None) == (y is None), what
        if x is not None:
            assert x.dtype == y.dtype, what
            assert x.shape == y.shape, what
            assert np.ascontiguousarray(x).tobytes() == np.ascontiguousarray(y).tobytes(), what


def without_images(track: Track) -> Track:
    return replace(track, crop_frames=None, source_frames=None, video=None)


def datasets(path: Path) -> list[str]:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda n, o: found.append("/" + n) if isinstance(o, h5py.Dataset) else None)
    return found


def spans(path: Path, dataset: str) -> list[tuple[int, int]]:
    """(position, length) in the file of the raw data of one dataset."""
    with h5py.File(path) as file:
        d = file[dataset]
        if d.chunks is None:
            return [(d.id.get_offset(), d.id.get_storage_size())]
        infos = [d.id.get_chunk_info(i) for i in range(d.id.get_num_chunks())]
        return [(i.byte_offset, i.size) for i in infos]


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
