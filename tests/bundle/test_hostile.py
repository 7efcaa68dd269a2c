"""Files that somebody made to be trusted: one error each, nothing foreign read, little memory."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from converter import registry
from converter.bundle.contents import EncodedFrames
from converter.bundle.read import check_bundle, read_bundle
from converter.errors import (
    FormatError,
    MissingInputError,
    UncropError,
    UnsafeFileError,
)
from converter.media.limits import Limits
from converter.registry import ReadOptions
from fixtures.hostile.bundles import (
    BOMBS,
    CONTRADICTIONS,
    STRUCTURE,
    at,
    edit,
    external_raw,
    put,
    record,
    reseal,
)
from tests.bundle.tools import full_track, spans
from tests.conftest import REPOSITORY


def refused(path: Path, kind: type[UncropError], match: str | None = None) -> None:
    """Reading and checking raise the same one-line error, which names the file."""
    for function in (read_bundle, check_bundle):
        with pytest.raises(UncropError, match=match) as caught:
            function(path)
        assert isinstance(caught.value, kind)
        text = str(caught.value)
        assert str(path) in text
        assert "\n" not in text
        assert len(text) < 600
        assert "SECRET" not in text


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name: str, bundle: Path) -> None:
    change, kind, match = STRUCTURE[name]
    with h5py.File(bundle, "r+") as file:
        change(file)
    refused(bundle, kind, match)


@pytest.mark.parametrize("ending", ["cut", "followed"])
def test_streams_that_do_not_end_where_they_should(ending: str, bundle: Path) -> None:
    """All data come out, but nothing says that they are right, or something comes after."""
    with h5py.File(bundle, "r+") as file:
        chunk = file["/flame/light"].id
        _, data = chunk.read_direct_chunk((0, 0, 0))
        chunk.write_direct_chunk((0, 0, 0), data[:-4] if ending == "cut" else data + b"x")
    with pytest.raises(FormatError, match="bytes per chunk"):
        read_bundle(bundle)
    assert [f.where for f in check_bundle(bundle)] == [f"{bundle}:/flame/light"]


def test_chunks_that_overlap(bundle: Path) -> None:
    """Two frames out of the same bytes: a small file could unfold without end."""
    places = [position for position, _ in spans(bundle, "/mesh/vertices")]
    first, second = struct.pack("<Q", places[0]), struct.pack("<Q", places[1])
    data = bundle.read_bytes()
    assert data.count(second) == 1
    bundle.write_bytes(data.replace(second, first))
    refused(bundle, UnsafeFileError, "/mesh/vertices: .*overlap")


def test_data_beyond_the_end(bundle: Path) -> None:
    data = bundle.read_bytes()
    address = struct.pack("<Q", spans(bundle, "/mesh/vertices")[1][0])
    assert data.count(address) == 1
    bundle.write_bytes(data.replace(address, struct.pack("<Q", len(data) - 10)))
    refused(bundle, FormatError, "/mesh/vertices: .*beyond its end")


def test_meshes_are_looked_at_when_they_are_asked_for(bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        edit("/mesh/vertices", at((1, 2, 0), np.nan))(file)
    reseal(bundle)
    meshes = read_bundle(bundle).meshes
    assert meshes is not None
    assert meshes.vertices(-1).tobytes() == full_track().meshes.vertices(2).tobytes()  # type: ignore[union-attr]
    with pytest.raises(FormatError, match=r"/mesh/vertices\[1\]"):
        meshes.vertices(1)
    with pytest.raises(IndexError):
        meshes.vertices(3)


def test_bombs(bundle: Path, tmp_path: Path) -> None:
    """Each bomb in turn, in a process that must not grow beyond 1 GB."""
    good = bundle.read_bytes()
    for name, (change, _, _) in BOMBS.items():
        path = tmp_path / f"{name}.h5"
        path.write_bytes(good)
        with h5py.File(path, "r+") as file:
            change(file)
        if name.startswith("record"):
            reseal(path)
    script = (
        "import json, re, resource, sys\n"
        "from converter.bundle.read import check_bundle, read_bundle\n"
        "from converter.errors import UncropError\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "answers = []\n"
        "for path in sys.argv[1:]:\n"
        "    for function in (read_bundle, check_bundle):\n"
        "        try:\n"
        "            answers.append(['none', str(function(path))])\n"
        "        except UncropError as error:\n"
        "            answers.append([type(error).__name__, str(error)])\n"
        # ru_maxrss of a child begins at that of the process that it was started from.
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print(json.dumps([peak, answers]))\n"
    )
    paths = [str(tmp_path / f"{name}.h5") for name in BOMBS]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    peak, answers = json.loads(done.stdout)
    assert peak < 2**20  # kB
    for index, (name, (_, kind, match)) in enumerate(BOMBS.items()):
        for found, message in answers[2 * index : 2 * index + 2]:
            if name == "deflate bomb" and found == "none":  # the check goes on to other datasets
                assert re.search(match, message)
                continue
            assert found == kind.__name__ or kind is UncropError, (name, found, message)
            assert re.search(match, message), (name, message)
            assert f"{name}.h5" in message


# ------------------------------------------------------------------ contradictions
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions(name: str, bundle: Path) -> None:
    """Edited by hand, with all hashes made to fit."""
    change, kind, match = CONTRADICTIONS[name]
    with h5py.File(bundle, "r+") as file:
        change(file)
    reseal(bundle)
    refused(bundle, kind, match)


def test_unknown_keys_of_the_record_are_left_alone(bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        value = json.loads(file["/provenance/record"][()])
        value["weather"] = "rain"
        value["inputs"][0]["colour"] = [1]
        value["findings"][0]["mood"] = {}
        record(json.dumps(value))(file)
    reseal(bundle)
    assert read_bundle(bundle).provenance == full_track().provenance


# ------------------------------------------------------------------ images
IMAGE_OFFSETS = {
    "descending": lambda o: o[::-1],
    "begin later": at(0, 1),
    "end earlier": lambda o: np.where(o == o[-1], o - 1, o),
    "negative": at(1, -1),
    "empty image": lambda o: at(2, o[1])(o),
    "overflowing": lambda o: [at(1, 2**63 - 1)(o), at(2, -5)(o)][0],
}


@pytest.fixture
def with_images(whole: Path, copy_of: Callable[[Path], Path]) -> Path:
    return copy_of(whole)


@pytest.mark.parametrize("name", IMAGE_OFFSETS)
def test_offsets(name: str, with_images: Path) -> None:
    with h5py.File(with_images, "r+") as file:
        edit("/images/crop/offsets", IMAGE_OFFSETS[name])(file)
    reseal(with_images)
    refused(with_images, FormatError, "ascending offsets")


def test_images_that_are_none(with_images: Path) -> None:
    """Their bytes are looked at when they are asked for: one error then."""
    with h5py.File(with_images, "r+") as file:
        end = int(file["/images/crop/offsets"][1])
        data = file["/images/crop/data"][()]
        data[:end] = 0
        put(file, "/images/crop/data", data)
    reseal(with_images)
    frames = read_bundle(with_images).crop_frames
    assert isinstance(frames, EncodedFrames)
    assert frames.read(1).shape == (*frames.size.shape, 3)
    with pytest.raises(FormatError, match="crop/data"):
        frames.read(0)
    with pytest.raises(UnsafeFileError, match="ordinary size"):
        replace(frames, limits=Limits(file_bytes=1000)).read(1)


def test_images_of_another_size_than_they_say(with_images: Path) -> None:
    with h5py.File(with_images, "r+") as file:
        file["/images/crop/data"].attrs["image_size"] = [64, 64]
    reseal(with_images)
    frames = read_bundle(with_images).crop_frames
    assert frames is not None
    with pytest.raises(FormatError, match="64x64 like all images"):
        frames.read(0)


def test_a_video_that_is_none(with_images: Path) -> None:
    with h5py.File(with_images, "r+") as file:
        put(file, "/images/video", np.zeros(5000, np.uint8))
    reseal(with_images)
    frames = read_bundle(with_images).source_frames
    assert frames is not None
    with pytest.raises(UncropError):
        frames.read(0)


def test_a_video_without_positions(with_images: Path) -> None:
    with h5py.File(with_images, "r+") as file:
        del file["/frames/source_index"], file["/frames/time"]
    reseal(with_images)
    refused(with_images, FormatError, "source_index")


# ------------------------------------------------------------------ files that are no bundles
def test_what_is_no_bundle(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(MissingInputError):
        read_bundle(tmp_path / "none.h5")
    with pytest.raises(UnsafeFileError, match="a folder"):
        read_bundle(tmp_path)
    os.mkfifo(tmp_path / "fifo.h5")
    refused(tmp_path / "fifo.h5", UnsafeFileError, "pipe")
    for name, data in {"empty": b"", "text": b"hello", "magic": b"\x89HDF\r\n\x1a\n" * 9}.items():
        (tmp_path / f"{name}.h5").write_bytes(data)
        refused(tmp_path / f"{name}.h5", FormatError, "HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    refused(tmp_path / "other.h5", FormatError, "file_format.*Was this written by uncrop")
    (tmp_path / "behind.h5").write_bytes(b"#!/bin/sh\n".ljust(512) + bundle.read_bytes())
    refused(tmp_path / "behind.h5", FormatError, "an HDF5 file")


def test_a_file_that_is_being_written(bundle: Path) -> None:
    with h5py.File(bundle.with_name("w.h5"), "w", libver="latest") as file:
        file["x"] = 1
        file.flush()
        refused(bundle.with_name("w.h5"), FormatError)


def test_limits_can_be_raised_and_lowered(bundle: Path) -> None:
    low = {
        "frames": 2,
        "mesh_vertices": 69,
        "file_bytes": 9_000,
        "member_bytes": 100,
        "elements": 3,
        "image_pixels": 512 * 511,
    }
    for name, value in low.items():
        limits = Limits(**{name: value})
        with pytest.raises(UnsafeFileError, match=str(bundle)):
            read_bundle(bundle, limits)
    for limits in (Limits(frames=3), Limits(mesh_vertices=70), Limits(image_pixels=512 * 512)):
        assert len(read_bundle(bundle, limits)) == 3


def test_the_source_refuses_as_the_reader_does(bundle: Path) -> None:
    source = registry.source("bundle")
    assert source.sniff(bundle)
    assert len(source.read(bundle, ReadOptions())) == 3
    with h5py.File(bundle, "r+") as file:
        external_raw(file)
    with pytest.raises(UnsafeFileError):
        source.read(bundle, ReadOptions())
