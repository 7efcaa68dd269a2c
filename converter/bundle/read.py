"""Reading bundles: only names of the schema are opened, and links are never followed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bundle.contents import (
    BundleMeshes,
    BundleVideo,
    EncodedFrames,
    open_bundle,
    read_array,
)
from converter.bundle.schema import (
    BY_PATH,
    FORMAT,
    SCHEMA,
    VERSION,
    Entry,
    content_hash,
    hash_header,
)
from converter.errors import BundleVersionError, FormatError, UnsafeFileError
from converter.findings import Finding
from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Size
from converter.geometry.pose import Pose
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import Flame, InputFile, Meshes, Provenance, Track, VideoFile

_MAX_DATASET_BYTES = 1 << 36
_HASH_BYTES = 1 << 22
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}


def read_bundle(path: Path, limits: Limits = DEFAULT_LIMITS) -> Track:
    """Read a bundle; meshes and images stay in the file until asked for.

    Raises
    ------
    MissingInputError
        If it is not there.
    FormatError
        If it is damaged, incomplete, or not a bundle.
    BundleVersionError
        If a newer version wrote it.
    UnsafeFileError
        If it links to other files or uses types and filters a bundle never has.

    """
    with open_bundle(path) as file:
        reader = _Reader(file, path, limits)
        reader.check_attributes()
        n = reader.require("/frames/id").shape[0]
        crop = _read_crop(reader)
        space = reader.attribute("image_space")
        if space not in ("crop", "source"):
            raise FormatError(f"{path}: image_space", "crop or source", str(space))
        record = _read_record(reader)
        video = _read_video(reader)
        return Track(
            name=str(reader.attribute("name")),
            frame_ids=reader.require("/frames/id"),
            w2c=Pose(reader.require("/camera/R"), reader.require("/camera/t")),
            intrinsics=_read_intrinsics(reader, f"/camera/K_{space}"),
            image_space=space,
            crop=crop,
            source_indices=reader.get("/frames/source_index"),
            fps=float(reader.attribute("fps")),
            flame=Flame(**{name: reader.get(f"/flame/{name}") for name in Flame.__slots__}),
            landmarks=reader.get("/landmarks/face68"),
            dense_landmarks=reader.get("/landmarks/mediapipe478"),
            meshes=_read_meshes(reader, n),
            crop_frames=_read_frames(reader, "crop", n),
            source_frames=_read_frames(reader, "source", n) or video,
            video=None
            if video is None
            else VideoFile(str(record.get("video")), lambda: video.path),
            native=_read_native(reader),
            provenance=_provenance(record),
            findings=tuple(Finding(**f) for f in record.get("findings", [])),
        )


@dataclass
class _Reader:
    file: Any
    path: Path
    limits: Limits
    sizes: dict[str, int] = field(default_factory=dict)

    def attribute(self, name: str) -> Any:
        """Root attribute; raises FormatError if it is absent or not a plain value."""
        try:
            value = self.file.attrs[name]
        except (KeyError, OSError, TypeError):
            raise FormatError(f"{self.path}: {name}", "an attribute", "nothing",
                              "Was this written by uncrop?") from None  # fmt: skip
        return value.item() if isinstance(value, np.generic) else value

    def check_attributes(self) -> None:
        """Refuse other formats, newer versions and incomplete files."""
        if self.attribute("file_format") != FORMAT:
            raise FormatError(self.path, f"file_format {FORMAT}",
                              str(self.attribute("file_format")))  # fmt: skip
        version = str(self.attribute("format_version"))
        if version.split(".")[0] != str(VERSION[0]):
            raise BundleVersionError(
                self.path, f"format version {VERSION[0]}.x", version, "Update uncrop."
            )
        if "complete" not in self.file.attrs:
            raise FormatError(
                self.path, "a complete bundle", "one whose writing was cut off", "Write it again."
            )

    def dataset(self, path: str) -> Any | None:
        """Return a dataset of the schema after checking everything that HDF5 lets a file ask."""
        import h5py

        group = self.file
        parts = path.strip("/").split("/")
        for part in parts:
            if part not in group:
                return None
            # Soft and external links are how a file reaches outside itself.
            if type(group.get(part, getlink=True)) is not h5py.HardLink:
                raise UnsafeFileError(f"{self.path}:{path}", "data in the file itself", "a link")
            group = group[part]
        if not isinstance(group, h5py.Dataset):
            raise FormatError(f"{self.path}:{path}", "a dataset", "a group")
        self._check_storage(group, path)
        self._check_shape(group, BY_PATH[path])
        return group

    def _check_storage(self, dataset: Any, path: str) -> None:
        where = f"{self.path}:{path}"
        if dataset.is_virtual or dataset.external:
            raise UnsafeFileError(where, "data in the file itself", "data in another file")
        filters = dataset.id.get_create_plist()
        codes = {filters.get_filter(i)[0] for i in range(filters.get_nfilters())}
        if not codes <= set(_FILTERS):
            raise UnsafeFileError(where, "gzip and shuffle filters", "other filters")
        chunk = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize if dataset.chunks else 0
        if dataset.nbytes > _MAX_DATASET_BYTES or chunk > self.limits.member_bytes:
            raise UnsafeFileError(where, "data of ordinary size", f"{dataset.nbytes} bytes")

    def _check_shape(self, dataset: Any, entry: Entry) -> None:
        where = f"{self.path}:{entry.path}"
        if entry.dtype == "text":
            if dataset.dtype.kind != "S" or dataset.shape != ():
                raise FormatError(where, "a fixed-length string", f"{dataset.dtype}")
            return
        if dataset.dtype != np.dtype(entry.dtype):
            raise FormatError(where, entry.dtype, str(dataset.dtype))
        shape: tuple[str | int, ...] = entry.shape
        if shape == ("K",):
            shape = (3, 3) if dataset.ndim == 2 else ("N", 3, 3)
        if dataset.ndim != len(shape):
            raise FormatError(where, f"{len(shape)} axes", f"{dataset.ndim}")
        for symbol, n in zip(shape, dataset.shape, strict=True):
            expected = self._expected(symbol, n, entry)
            if n != expected:
                raise FormatError(where, f"{symbol} = {expected}", f"{n}")

    def _expected(self, symbol: str | int, n: int, entry: Entry) -> int:
        if isinstance(symbol, int):
            return symbol
        if symbol == "N+1":
            return self.sizes.get("N", n - 1) + 1
        key = symbol if symbol in ("N", "V") else f"{entry.path}:{symbol}"
        return self.sizes.setdefault(key, n)

    def get(self, path: str) -> Any | None:
        """Read a dataset; None if the bundle lacks it."""
        dataset = self.dataset(path)
        if dataset is None:
            return None
        return read_array(dataset, f"{self.path}:{path}")

    def require(self, path: str) -> Any:
        """Read a dataset that every bundle holds."""
        array = self.get(path)
        if array is None:
            raise FormatError(f"{self.path}:{path}", BY_PATH[path].meaning, "nothing")
        return array


def _read_crop(reader: _Reader) -> Crop | None:
    bbox, pad = reader.get("/crop/bbox"), reader.get("/crop/pad")
    if bbox is None or pad is None:
        return None
    sizes = {}
    for name in ("source_size", "crop_size"):
        value = reader.file["crop"].attrs.get(name)
        sizes[name] = None if value is None else Size(int(value[0]), int(value[1]))
    if sizes["crop_size"] is None:
        raise FormatError(f"{reader.path}:/crop", "the attribute crop_size", "nothing")
    box = BBox(*(int(v) for v in bbox))
    return Crop(box, int(pad[0]), int(pad[1]), sizes["source_size"], sizes["crop_size"])


def _read_intrinsics(reader: _Reader, path: str) -> Intrinsics:
    matrix = reader.get(path)
    dataset = reader.dataset(path)
    size = None if dataset is None else dataset.attrs.get("image_size")
    if matrix is None or size is None:
        raise FormatError(f"{reader.path}:{path}", "intrinsics with image_size", "nothing")
    return Intrinsics.from_matrix(matrix, Size(int(size[0]), int(size[1])))


def _read_record(reader: _Reader) -> dict[str, Any]:
    text = reader.require("/provenance/record")
    try:
        record = json.loads(bytes(text).decode("utf-8"))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise FormatError(f"{reader.path}:/provenance/record", "JSON", "something else")
    return record


def _provenance(record: dict[str, Any]) -> Provenance:
    inputs = tuple(InputFile(**i) for i in record.get("inputs", []))
    return Provenance(str(record.get("tracker")), inputs, tuple(record.get("steps", [])))


def _read_native(reader: _Reader) -> dict[str, NDArray[Any]]:
    names = [e.path.rsplit("/", 1)[1] for e in SCHEMA if e.path.startswith("/native/")]
    found = {name: reader.get(f"/native/{name}") for name in names}
    return {name: array for name, array in found.items() if array is not None}


def _read_meshes(reader: _Reader, n_frames: int) -> Meshes | None:
    faces, mean = reader.get("/mesh/faces"), reader.get("/mesh/mean")
    if faces is None or mean is None:
        return None
    vertices = reader.dataset("/mesh/vertices")
    return BundleMeshes(reader.path, faces, mean, n_frames, vertices is not None)


def _read_frames(reader: _Reader, space: str, n_frames: int) -> EncodedFrames | None:
    offsets = reader.get(f"/images/{space}/offsets")
    data = reader.dataset(f"/images/{space}/data")
    if offsets is None or data is None:
        return None
    where = f"{reader.path}:/images/{space}/offsets"
    if offsets[0] != 0 or offsets[-1] != data.shape[0] or np.any(np.diff(offsets) <= 0):
        raise FormatError(where, f"ascending offsets from 0 to {data.shape[0]}", "others")
    return EncodedFrames(reader.path, space, offsets, reader.limits)


def _read_video(reader: _Reader) -> BundleVideo | None:
    if reader.dataset("/images/video") is None:
        return None
    indices = reader.require("/frames/source_index")
    return BundleVideo(reader.path, float(reader.attribute("fps")), tuple(map(int, indices)))


def check_bundle(path: Path, limits: Limits = DEFAULT_LIMITS) -> list[Finding]:
    """Read a bundle whole and hold every dataset against its hash.

    Raises
    ------
    UncropError
        As `read_bundle`.

    """
    read_bundle(path, limits).require_consistent()
    findings, hashes = [], {}
    with open_bundle(path) as file:
        reader = _Reader(file, path, limits)
        for entry in SCHEMA:
            dataset = reader.dataset(entry.path)
            if dataset is None:
                continue
            hashes[entry.path] = str(dataset.attrs.get("sha256"))
            if _hash_of(dataset, entry, f"{path}:{entry.path}") != hashes[entry.path]:
                findings.append(_damaged(f"{path}:{entry.path}", "differs from its SHA-256."))
        if content_hash(hashes) != file.attrs.get("content_sha256"):
            findings.append(_damaged(str(path), "lacks data that it was written with."))
    return findings


def _damaged(where: str, message: str) -> Finding:
    return Finding("bundle-damaged", "error", where, message, fix="Write the bundle again.")


def _hash_of(dataset: Any, entry: Entry, where: str) -> str:
    """SHA-256 of a dataset, a few rows at a time."""
    if entry.dtype == "text":
        return hashlib.sha256(bytes(read_array(dataset, where, ()))).hexdigest()
    digest = hashlib.sha256(hash_header(dataset.shape, entry.dtype))
    row_bytes = int(np.prod(dataset.shape[1:], dtype=np.int64)) * dataset.dtype.itemsize
    step = max(1, _HASH_BYTES // max(1, row_bytes))
    for begin in range(0, dataset.shape[0], step):
        digest.update(read_array(dataset, where, slice(begin, begin + step)).tobytes())
    return digest.hexdigest()
