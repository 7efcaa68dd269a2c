"""Files that somebody made to be trusted: one error each, nothing foreign read, little memory."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import registry
from converter.bundle.contents import EncodedFrames
from converter.bundle.read import check_bundle, read_bundle
from converter.errors import (
    ConventionError,
    FormatError,
    MissingInputError,
    UncropError,
    UnsafeFileError,
)
from converter.media.limits import Limits
from converter.registry import ReadOptions
from tests.bundle.tools import full_track, put, put_text, reseal, spans
from tests.conftest import REPOSITORY

SECRET = b"TOP SECRET " * 100
Change = Callable[[h5py.File], None]


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


def external_raw(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(SECRET)
    del file["/camera/t"]
    file.create_dataset("/camera/t", (3, 3), "<f8", external=[(str(secret), 0, 72)])


def external_link(path: str) -> Change:
    def change(file: h5py.File) -> None:
        other = Path(file.filename).with_name("other.h5")
        with h5py.File(other, "w") as target:
            file.copy(path, target, "/x")
        del file[path]
        file[path] = h5py.ExternalLink(str(other), "/x")

    return change


def soft(path: str, target: str) -> Change:
    def change(file: h5py.File) -> None:
        if target == "/moved":
            file.move(path, target)
        else:
            del file[path]
        file[path] = h5py.SoftLink(target)

    return change


def virtual(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as target:
        target["x"] = np.zeros((3, 3))
    layout = h5py.VirtualLayout((3, 3), "<f8")
    layout[:] = h5py.VirtualSource(str(other), "x", (3, 3))
    del file["/camera/t"]
    file.create_virtual_dataset("/camera/t", layout)


def typed(path: str, dtype: Any, shape: tuple[int, ...] = (3, 3), **options: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[path]
        file.create_dataset(path, shape, dtype, **options)

    return change


def zeros(path: str, shape: tuple[int, ...]) -> Change:
    return lambda file: put(file, path, np.zeros(shape)) and None


def raw_filter(code: int) -> Change:
    """A filter that HDF5 would look for among its plugins."""

    def change(file: h5py.File) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((3, 3))
        properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        space = h5py.h5s.create_simple((3, 3))
        del file["/camera/t"]
        made = h5py.h5d.create(file["camera"].id, b"t", h5py.h5t.IEEE_F64LE, space, properties)
        h5py.Dataset(made).id.write_direct_chunk((0, 0), bytes(72))

    return change


def compact(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((3, 3))
    del file["/camera/t"]
    h5py.h5d.create(file["camera"].id, b"t", h5py.h5t.IEEE_F64LE, space, properties)


def deflate_bomb(path: str, shape: tuple[int, ...]) -> Change:
    """1.5 GB out of 1.5 MB, in a chunk that says it is no larger than it should be."""

    def change(file: h5py.File) -> None:
        stream = zlib.compressobj(9)
        first, same = (
            stream.compress(bytes(1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
        )
        digest = file[path].attrs["sha256"]  # kept, so that the hash over all parts still fits
        del file[path]
        made = file.create_dataset(path, shape, "<f8", chunks=shape, compression="gzip")
        put_text(made, "sha256", digest.decode())
        made.id.write_direct_chunk((0,) * len(shape), first + 1499 * same + stream.flush())

    return change


def zeros_bomb(path: str, shape: tuple[int, ...], dtype: str, chunk: tuple[int, ...]) -> Change:
    """All chunks there and well-formed, and each of them next to nothing."""

    def change(file: h5py.File) -> None:
        digest = file[path].attrs["sha256"]
        del file[path]
        made = file.create_dataset(path, shape, dtype, chunks=chunk, compression="gzip")
        put_text(made, "sha256", digest.decode())
        data = zlib.compress(bytes(int(np.prod(chunk)) * np.dtype(dtype).itemsize), 9)
        for begin in range(0, shape[0], chunk[0]):
            made.id.write_direct_chunk((begin, *[0] * (len(shape) - 1)), data)

    return change


def more_frames(n: int) -> Change:
    def change(file: h5py.File) -> None:
        file.attrs["n_frames"] = n
        file["/frames"].attrs["x"] = 1
        del file["/frames/id"]
        file.create_dataset("/frames/id", (n,), "<i8", chunks=(1 << 16,), compression="gzip")

    return change


def attribute(holder: str, name: str, value: Any, dtype: Any = None) -> Change:
    def change(file: h5py.File) -> None:
        file[holder].attrs.create(name, value, dtype=dtype)

    return change


def text(name: str, value: str) -> Change:
    return lambda file: put_text(file, name, value)


def reference_attribute(file: h5py.File) -> None:
    file.attrs.create("n_frames", file["/camera/t"].ref, dtype=h5py.ref_dtype)


def record(text: str | bytes) -> Change:
    data = text if isinstance(text, bytes) else text.encode()

    def change(file: h5py.File) -> None:
        del file["/provenance/record"]
        dtype = h5py.string_dtype("utf-8", len(data))
        file.create_dataset("/provenance/record", (), dtype)[()] = data

    return change


def changed_record(**fields: Any) -> Change:
    def change(file: h5py.File) -> None:
        value = json.loads(file["/provenance/record"][()])
        value.update(fields)
        record(json.dumps({k: v for k, v in value.items() if v != "DROP"}))(file)

    return change


BOMBS: dict[str, tuple[Change, Any, str]] = {
    "deflate bomb": (deflate_bomb("/flame/shape", (1 << 18,)), FormatError, "bytes per chunk"),
    "long chunk": (deflate_bomb("/flame/expression", (3, 100)), UnsafeFileError, "longer ones"),
    "huge shape": (typed("/flame/expression", "<f8", (3, 1 << 40)), FormatError, "data"),
    "huge shape, chunked": (
        typed("/flame/expression", "<f8", (3, 1 << 27), chunks=(1, 1 << 20)),
        FormatError, "whole frames",
    ),
    "huge chunk": (
        typed("/flame/expression", "<f8", (3, 1 << 27), chunks=(3, 1 << 27), compression="gzip"),
        UnsafeFileError, "chunks of at most",
    ),
    "nothing stored": (
        typed("/flame/expression", "<f8", (3, 1 << 20), chunks=(1, 1 << 20), compression="gzip"),
        FormatError, "3 chunks of data, found 0",
    ),
    "a billion zeros": (
        zeros_bomb("/mesh/vertices", (3, 1 << 21, 3), "<f4", (1, 1 << 21, 3)),
        UnsafeFileError, "vertices|V =",
    ),
    "zeros of ordinary chunks": (
        zeros_bomb("/flame/shape", (1 << 27,), "<f8", (1 << 20,)), UnsafeFileError, "stored byte"
    ),
    "a million frames": (more_frames(1_000_000), FormatError, "chunks of data"),
    "too many frames": (more_frames(1_000_001), UnsafeFileError, "1 to 1000000"),
    "no frames": (attribute("/", "n_frames", 0), UnsafeFileError, "1 to 1000000"),
    "negative frames": (attribute("/", "n_frames", -3), UnsafeFileError, "1 to 1000000"),
    "frames beyond int64": (attribute("/", "n_frames", np.uint64(2**64 - 1)), UncropError, ""),
    "record of many lists": (
        record("[" + "[]," * 20_000_000 + "[]]"), UnsafeFileError, "values"
    ),
    "record too long": (record(" " * (65 << 20)), UnsafeFileError, "bytes to read"),
    "record nested": (record('{"a":' * 200_000 + "1" + "}" * 200_000), FormatError, "Recursion"),
    "record of a huge number": (record('{"a":' + "9" * 1_000_000 + "}"), FormatError, "JSON"),
}  # fmt: skip

STRUCTURE: dict[str, tuple[Change, Any, str]] = {
    "external raw data": (external_raw, UnsafeFileError, "data in another file"),
    "external link": (external_link("/camera/t"), UnsafeFileError, "a link"),
    "external link to a group": (external_link("/camera"), UnsafeFileError, "a link"),
    "soft link": (soft("/camera/t", "/moved"), UnsafeFileError, "a link"),
    "soft link to a group": (soft("/flame", "/moved"), UnsafeFileError, "a link"),
    "soft link loop": (soft("/camera/t", "/camera/t"), UnsafeFileError, "a link"),
    "dangling soft link": (soft("/flame/jaw", "/nowhere"), UnsafeFileError, "a link"),
    "virtual dataset": (virtual, UnsafeFileError, "data in another file"),
    "object references": (typed("/camera/t", h5py.ref_dtype), FormatError, "numbers of type"),
    "region references": (typed("/camera/t", h5py.regionref_dtype), FormatError, "numbers of"),
    "variable length": (typed("/camera/t", h5py.vlen_dtype("<f8")), FormatError, "numbers of"),
    "compound": (typed("/camera/t", [("a", "<f8")]), FormatError, "numbers of type <f8"),
    "arrays": (typed("/camera/t", np.dtype(("<f8", 3)), (3,)), FormatError, "numbers|axes"),
    "big-endian": (typed("/camera/t", ">f8"), FormatError, "numbers of type <f8"),
    "half floats": (typed("/camera/t", "<f2"), FormatError, "numbers of type <f8"),
    "complex": (typed("/camera/t", "<c16"), FormatError, "numbers of type <f8"),
    "enum": (typed("/mesh/faces", h5py.enum_dtype({"a": 1}, "i4")), FormatError, "numbers of"),
    "opaque": (typed("/camera/t", h5py.opaque_dtype(np.dtype("V8"))), FormatError, "numbers of"),
    "strings": (typed("/camera/t", "S8"), FormatError, "numbers of type"),
    "record of any length": (
        typed("/provenance/record", h5py.string_dtype(), ()), FormatError, "fixed-length string"
    ),
    "records": (
        lambda f: put(f, "/provenance/record", np.array([b"a", b"b"])) and None,
        FormatError, "0 axes",
    ),
    "no axes": (zeros("/camera/t", ()), FormatError, "2 axes"),
    "other length": (zeros("/camera/t", (4, 3)), FormatError, "N = 3"),
    "lzf": (typed("/camera/t", "<f8", chunks=(3, 3), compression="lzf"), UnsafeFileError, "filt"),
    "fletcher32": (
        typed("/camera/t", "<f8", chunks=(3, 3), fletcher32=True), UnsafeFileError, "filters"
    ),
    "scale-offset": (
        typed("/camera/t", "<f8", chunks=(3, 3), scaleoffset=2), UnsafeFileError, "filters"
    ),
    "unknown filter": (raw_filter(32_015), UnsafeFileError, "filters"),
    "compact": (compact, FormatError, "layout"),
    "a null dataspace": (
        lambda f: (f.__delitem__("/camera/t"), f.create_dataset("/camera/t", dtype="<f8",
                                                                data=h5py.Empty("<f8")))[0],
        FormatError, "data",
    ),
    "a group for a dataset": (
        lambda f: (f.__delitem__("/camera/t"), f.create_group("/camera/t"))[0],
        FormatError, "a dataset",
    ),
    "a dataset for a group": (
        lambda f: (f.__delitem__("/camera"), f.create_dataset("/camera", data=1))[0],
        FormatError, "a group",
    ),
    "chunks across frames": (
        typed("/camera/t", "<f8", chunks=(3, 1), compression="gzip"), FormatError, "whole frames"
    ),
    "never written": (typed("/camera/t", "<f8"), FormatError, "bytes of data"),
    "attribute of any length": (
        attribute("/", "name", "x", h5py.string_dtype()), FormatError, "fixed-length string"
    ),
    "long attribute": (text("name", "x" * 60_000), FormatError, "short"),
    "attribute array": (
        attribute("/", "n_frames", np.arange(8000)), FormatError, "an integer, found another"
    ),
    "attribute of references": (reference_attribute, FormatError, "an integer"),
    "text for a number": (text("fps", "25"), FormatError, "a float"),
    "integer for a float": (attribute("/", "fps", 25), FormatError, "a float"),
    "array for a pair": (attribute("/crop", "crop_size", [1, 2, 3]), FormatError, "two integers"),
    "attribute not UTF-8": (
        attribute("/", "name", np.bytes_(b"\xff\xfe")), FormatError, "readable HDF5"
    ),
    "other convention": (
        attribute("/camera", "convention", np.bytes_(b"opengl_c2w")), FormatError, "opencv_w2c"
    ),
    "other pixels": (attribute("/camera", "pixel_center", 0.0), FormatError, "0.5"),
    "other format": (text("file_format", "uncrop-trick"), FormatError, "uncrop-track"),
}  # fmt: skip


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
        "import json, resource, sys\n"
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
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
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
def edit(path: str, change: Callable[[np.ndarray], Any]) -> Change:
    def apply(file: h5py.File) -> None:
        data = file[path][()]
        result = change(data)
        put(file, path, np.ascontiguousarray(data if result is None else result, data.dtype))

    return apply


def at(index: Any, value: Any) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[index] = value

    return change


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array * factor


CONTRADICTIONS: dict[str, tuple[Change, Any, str]] = {
    "NaN in t": (edit("/camera/t", at(0, np.nan)), ConventionError, "/camera/t"),
    "infinite R": (edit("/camera/R", at(0, np.inf)), ConventionError, "/camera/R"),
    "R not orthonormal": (edit("/camera/R", scaled(1.01)), ConventionError, "rotation"),
    "R mirrored": (edit("/camera/R", scaled(-1)), ConventionError, "mirrored"),
    "R of nothing": (edit("/camera/R", scaled(0)), ConventionError, "rotation|det"),
    "NaN in K": (edit("/camera/K_crop", at((0, 0, 0), np.nan)), ConventionError, "K_crop"),
    "K with skew": (edit("/camera/K_crop", at((0, 0, 1), 3)), ConventionError, "skew"),
    "K mirrored": (edit("/camera/K_crop", at((0, 0, 0), -3)), ConventionError, "focal"),
    "K_source against K_crop": (
        edit("/camera/K_source", at((0, 0, 2), 999)), ConventionError, "contradict"
    ),
    "K_source a hair off": (
        edit("/camera/K_source", lambda k: k + [[0, 0, 1e-3], [0, 0, 0], [0, 0, 0]]),
        ConventionError, "contradict",
    ),
    "one K_source": (edit("/camera/K_source", lambda k: k[0]), ConventionError, "as many"),
    "K of another image": (
        attribute("/camera/K_crop", "image_size", [256, 256]), ConventionError, "512x512"
    ),
    "K_source of another image": (
        attribute("/camera/K_source", "image_size", [641, 360]), ConventionError, "640x360"
    ),
    "bbox outside": (edit("/crop/bbox", at(1, 641)), ConventionError, "inside the 640x360"),
    "bbox negative": (edit("/crop/bbox", at(0, -1)), ConventionError, "inside"),
    "bbox in another order": (
        edit("/crop/bbox", lambda b: b[[0, 2, 1, 3]]), ConventionError, "x_min < x_max"
    ),
    "bbox empty": (edit("/crop/bbox", at(1, 100)), ConventionError, "x_min < x_max"),
    "bbox overflowing": (edit("/crop/bbox", at(0, -(2**63))), ConventionError, "x_min"),
    "negative pad": (edit("/crop/pad", at(0, -1)), ConventionError, "0 or more"),
    "huge pad": (edit("/crop/pad", at(0, 10**12)), ConventionError, "at most a side"),
    "map against bbox": (
        edit("/crop/crop_from_source", at((0, 2), 7)), ConventionError, "contradict"
    ),
    "NaN in the map": (
        edit("/crop/crop_from_source", at((0, 2), np.nan)), ConventionError, "contradict"
    ),
    "another crop": (edit("/crop/bbox", lambda b: b + 1), ConventionError, "contradict"),
    "source size of nothing": (
        attribute("/crop", "source_size", [0, 0]), UnsafeFileError, "pixels"
    ),
    "source size huge": (
        attribute("/crop", "source_size", [2**40, 2**40]), UnsafeFileError, "pixels"
    ),
    "pad lost": (lambda f: f.__delitem__("/crop/pad"), FormatError, "/crop/pad"),
    "crop size lost": (
        lambda f: f["crop"].attrs.__delitem__("crop_size"), FormatError, "crop_size"
    ),
    "K lost": (lambda f: f.__delitem__("/camera/K_crop"), FormatError, "K_crop"),
    "K's size lost": (
        lambda f: f["camera/K_crop"].attrs.__delitem__("image_size"), FormatError, "image_size"
    ),
    "crop lost": (
        lambda f: [f.__delitem__(f"/crop/{n}") for n in ("bbox", "pad", "crop_from_source")][0],
        FormatError, "the crop between",
    ),
    "ids not ascending": (edit("/frames/id", lambda i: i[::-1]), ConventionError, "ascending"),
    "ids twice": (edit("/frames/id", at(1, 3)), ConventionError, "ascending"),
    "negative ids": (edit("/frames/id", at(0, -1)), ConventionError, "0 or more"),
    "overflowing ids": (edit("/frames/id", at(0, -(2**63))), ConventionError, "0 or more"),
    "negative indices": (edit("/frames/source_index", at(0, -4)), ConventionError, "0 or more"),
    "time against index": (edit("/frames/time", scaled(2)), ConventionError, "source_index / fps"),
    "time lost": (lambda f: f.__delitem__("/frames/time"), FormatError, "/frames/time"),
    "fps 0": (attribute("/", "fps", 0.0), ConventionError, "frames per second > 0"),
    "fps NaN": (attribute("/", "fps", np.nan), ConventionError, "frames per second > 0"),
    "another fps": (attribute("/", "fps", 25.0), ConventionError, "contradict"),
    "space": (text("image_space", "both"), FormatError, "crop or source"),
    "name of a path": (text("name", "../../etc/x"), FormatError, "letters, digits"),
    "name of markup": (text("name", "[red]\x1b[31mx"), FormatError, "letters, digits"),
    "NaN in FLAME": (edit("/flame/jaw", at(0, np.nan)), ConventionError, "/flame/jaw"),
    "infinite landmarks": (edit("/landmarks/face68", at(0, np.inf)), ConventionError, "face68"),
    "faces of other vertices": (edit("/mesh/faces", at(0, 40)), ConventionError, "faces"),
    "negative faces": (edit("/mesh/faces", at(0, -1)), ConventionError, "faces"),
    "NaN in the mean": (edit("/mesh/mean", at(0, np.nan)), ConventionError, "/mesh/mean"),
    "faces lost": (lambda f: f.__delitem__("/mesh/faces"), FormatError, "/mesh/faces"),
    "mean lost": (lambda f: f.__delitem__("/mesh/mean"), FormatError, "/mesh/mean"),
    "vertices of another mesh": (
        edit("/mesh/vertices", lambda v: v[:, :9]), FormatError, "V = 40"
    ),
    "record no JSON": (record("{"), FormatError, "JSON"),
    "record not UTF-8": (record(b'{"a": "\xff"}'), FormatError, "JSON"),
    "record a list": (record("[]"), FormatError, "a JSON object"),
    "record a number": (record("1"), FormatError, "a JSON object"),
    "record empty": (record("{}"), FormatError, "tracker"),
    "tracker a number": (changed_record(tracker=1), FormatError, "tracker"),
    "steps text": (changed_record(steps="abc"), FormatError, "steps"),
    "steps of numbers": (changed_record(steps=[1]), FormatError, "steps"),
    "inputs null": (changed_record(inputs=None), FormatError, "inputs"),
    "inputs of numbers": (changed_record(inputs=[1]), FormatError, r"inputs\[0\]"),
    "input without size": (changed_record(inputs=[{"path": "a"}]), FormatError, "n_bytes"),
    "input of true bytes": (
        changed_record(inputs=[{"path": "a", "n_bytes": True, "sha256": ""}]), FormatError, "n_byt"
    ),
    "findings a dict": (changed_record(findings={}), FormatError, "findings"),
    "finding of nothing": (changed_record(findings=[{}]), FormatError, r"findings\[0\]"),
    "finding of another severity": (
        changed_record(findings=[{
            "check": "a", "severity": "fatal", "where": "", "message": "", "measured": None,
            "limit": None, "unit": "", "fix": "",
        }]), FormatError, "severity",
    ),
    "finding of NaN": (
        changed_record(findings=[{
            "check": "a", "severity": "info", "where": "", "message": "", "measured": float("nan"),
            "limit": None, "unit": "", "fix": "",
        }]), FormatError, "measured",
    ),
    "video a list": (changed_record(video=[]), FormatError, "video"),
    "video lost": (changed_record(video="DROP"), FormatError, "video"),
}  # fmt: skip


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
