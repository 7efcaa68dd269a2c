"""The document says what the schema says, and a bundle explains itself to whoever has neither."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter.bundle.read import read_bundle, read_cameras
from converter.bundle.schema import ATTRIBUTES, CONTENT_HASHES, SCHEMA, VERSION, markdown
from fixtures.hostile.bundles import HASHED_ATTRIBUTES
from tests.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "bundle.md"


def test_the_document_shows_the_schema() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = text.split("<!-- tables -->\n")[1].split("<!-- end of tables -->")[0]
    assert shown == markdown()


def test_the_tables_are_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "converter.bundle.schema"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout == markdown()


def test_every_name_is_there_once() -> None:
    names = [e.path for e in SCHEMA] + [a.key for a in ATTRIBUTES]
    assert len(set(names)) == len(names)
    assert [a.key for a in ATTRIBUTES if a.hashed] == HASHED_ATTRIBUTES


def test_every_version_that_adds_parts_has_a_hash_over_them() -> None:
    added = {entry.since for entry in SCHEMA} | {a.since for a in ATTRIBUTES if a.hashed}
    assert added == set(CONTENT_HASHES)
    assert max(entry.since for entry in (*SCHEMA, *ATTRIBUTES)) == VERSION


def test_the_snippet_of_the_document_runs(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It projects the mean mesh as the track does."""
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    (tmp_path / "track.h5").symlink_to(whole)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(snippet, str(DOCUMENT), "exec"), names)
    track = read_bundle(whole)
    assert track.meshes is not None
    expected = track.project(0, track.meshes.mean.astype(np.float64))
    assert np.isfinite(expected).all()
    assert np.abs(names["pixels"] - expected).max() < 1e-6


def test_a_bundle_explains_itself(bundle: Path, whole: Path) -> None:
    """Read with h5py alone: names, units, conventions, and nothing that needs our code."""
    seen = set()
    for path in (bundle, whole):
        with h5py.File(path) as file:
            assert file.attrs["file_format"] == b"uncrop-track"
            assert file.attrs["format_version"] == b"1.2"
            assert file.attrs["creator"].startswith(b"uncrop ")
            assert file.attrs["NX_class"] == b"NXroot"
            assert file.attrs["default"].decode() in file
            assert file["camera"].attrs["signal"].decode() in file["camera"]
            assert file["camera"].attrs["convention"] == b"opencv_w2c"
            assert file["camera"].attrs["pixel_center"] == 0.5
            assert b"(0.5, 0.5)" in file["landmarks"].attrs["pixel_origin"]
            assert list(file["camera/K_crop"].attrs["image_size"]) == list(
                file["crop"].attrs["crop_size"]
            )
            file.visititems(explain(seen))
    assert {"m", "px", "s", ""} == {unit for _, unit in seen}
    assert ("camera/t", "m") in seen
    assert ("camera/K_source", "px") in seen


def explain(seen: set[tuple[str, str]]) -> Callable[[str, Any], None]:
    def look(name: str, item: Any) -> None:
        for value in item.attrs.values():
            assert isinstance(value, np.bytes_ | np.generic | np.ndarray)
            assert np.asarray(value).dtype.kind in "Sif"
        if isinstance(item, h5py.Group):
            assert item.attrs["NX_class"].startswith(b"NX")
            return
        assert len(item.attrs["long_name"]) > 5
        assert re.fullmatch(b"[0-9a-f]{64}", item.attrs["sha256"])
        seen.add((name, item.attrs.get("units", b"").decode()))
        assert item.dtype.kind in "Sifu"
        assert item.dtype.byteorder in "=|<"
        assert not item.is_virtual
        assert item.external is None
        assert item.maxshape == item.shape
        assert item.compression in (None, "gzip")
        assert not item.fletcher32
        assert item.scaleoffset is None
        if item.chunks:
            assert item.chunks[1:] == item.shape[1:]
            assert item.shuffle
        info = h5py.h5g.get_objinfo(item.file.id, item.name.encode())
        assert info.mtime == 0

    return look


def test_units_are_given_where_there_are_any() -> None:
    physical = {e.path: e.unit for e in SCHEMA if e.unit}
    assert physical["/mesh/vertices"] == physical["/camera/t"] == "m"
    assert all(physical[e.path] == "px" for e in SCHEMA if e.path.startswith("/landmarks"))
    assert all(e.meaning for e in SCHEMA)


def test_cameras_alone(whole: Path) -> None:
    track, cameras = read_bundle(whole), read_cameras(whole)
    assert np.array_equal(cameras.w2c.R, track.w2c.R)
    assert np.array_equal(cameras.w2c.t, track.w2c.t)
    assert cameras.intrinsics == track.intrinsics
    assert cameras.crop == track.crop
    assert np.array_equal(cameras.times, track.times)  # type: ignore[arg-type]
    assert cameras.provenance.tracker == track.provenance.tracker
    assert cameras.landmarks is cameras.meshes is cameras.crop_frames is None
