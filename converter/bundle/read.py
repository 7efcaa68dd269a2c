"""Reading bundles: only names of the schema are opened, and nothing is taken on trust."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bundle.contents import BundledFile, BundleMeshes, BundleVideo, EncodedFrames
from converter.bundle.hdf5 import BundleFile, Stored
from converter.bundle.record import parse_record
from converter.bundle.schema import (
    ATTRIBUTES,
    BY_KEY,
    BY_PATH,
    CONTENT_HASHES,
    SCHEMA,
    Entry,
    content_hash,
    hash_header,
)
from converter.bundle.upgrade import require_version
from converter.errors import (
    ConventionError,
    FormatError,
    UnsafeFileError,
    printable,
)
from converter.findings import Finding
from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import Pose
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import (
    CentralCameras,
    Flame,
    Frames,
    Meshes,
    Provenance,
    Track,
    VideoFile,
)

_ARRAYS_FACTOR = 2
"""How many times ``limits.file_bytes`` all arrays that are read at once may take."""

_RELATIVE = 1e-9
"""How far quantities may differ that a bundle gives twice: rounding, not pixels."""


def read_bundle(path: Path, limits: Limits = DEFAULT_LIMITS) -> Track:
    """Read a bundle; meshes and images stay in the file until asked for.

    What is read at once is compared with its SHA-256. The track is consistent.

    Raises
    ------
    MissingInputError
        If it is not there.
    FormatError
        If it is damaged, incomplete, or not a bundle.
    BundleVersionError
        If a newer version wrote it.
    UnsafeFileError
        If it links to other files, uses types and filters a bundle never has, or asks for more
        than the limits.
    ConventionError
        If its parts contradict each other.

    """
    with _opened(path, limits) as reader:
        track = _read_track(reader)
        track.require_consistent()
    return track


def read_cameras(path: Path, limits: Limits = DEFAULT_LIMITS) -> Track:
    """Read cameras, crop and times only: milliseconds for thousands of frames.

    Returns
    -------
    A track without FLAME, landmarks, meshes, images, findings and inputs.

    Raises
    ------
    UncropError
        As `read_bundle`, for the parts that are read.

    """
    with _opened(path, limits) as reader:
        track = _read_cameras(reader)
        track.require_consistent()
    return track


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[_Reader]:
    """Open a bundle whose parts are those that were written; errors in it name the file."""
    with BundleFile(Path(path), limits) as file:
        reader = _Reader(file)
        reader.require_unchanged()
        try:
            yield reader
        except ConventionError as error:
            if error.where.startswith(printable(path)):
                raise
            raise ConventionError(
                f"{path}: {error.where}", error.expected, error.found, error.remedy
            ) from None


def check_bundle(path: Path, limits: Limits = DEFAULT_LIMITS) -> list[Finding]:
    """Read a bundle whole and hold every dataset against its hash.

    Raises
    ------
    UncropError
        As `read_bundle`, where something else than data is wrong.

    """
    findings = []
    with BundleFile(Path(path), limits) as file:
        reader = _Reader(file)
        for entry in SCHEMA:
            stored = reader.stored(entry.path)
            if stored is None:
                continue
            expected = reader.digest(entry.path)
            try:
                if _digest(stored.blocks(), stored, entry) != expected:
                    findings.append(_damaged(stored.where, "its data differ from their SHA-256."))
            except FormatError as error:
                message = f"its data are damaged: {error.statement}"
                findings.append(_damaged(stored.where, message))
    if not findings:
        read_bundle(path, limits)
    return findings


class _Reader:
    """A bundle whose marks are right: format, version, complete."""

    def __init__(self, file: BundleFile) -> None:
        self.path, self.limits = file.path, file.limits
        self._file = file
        self._datasets: dict[str, Stored | None] = {}
        self._read_bytes = 0
        self._require_marks()
        n = self.required("/@n_frames")
        if not 0 < n <= self.limits.frames:
            raise UnsafeFileError(f"{self.path}: n_frames", f"1 to {self.limits.frames}", f"{n}")
        self._sizes: dict[str, int] = {"N": n}

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self._sizes["N"]

    def _require_marks(self) -> None:
        """Refuse other formats, newer versions and incomplete files."""
        self.required("/@file_format")
        self._version = require_version(self.path, self.required("/@format_version"))
        if self.optional("/@complete") is None:
            raise FormatError(
                self.path, "a complete bundle", "one whose writing was cut off", "Write it again."
            )

    def optional(self, key: str) -> Any:
        """Attribute of the schema, or None; raises FormatError if it has a value it may not."""
        attribute = BY_KEY[key]
        value = self._file.attribute(attribute)
        if value is not None and attribute.fixed not in (None, value):
            raise FormatError(f"{self.path}:{key}", f"{attribute.fixed}", f"{value}")
        return value

    def required(self, key: str) -> Any:
        """Attribute that every bundle has."""
        value = self.optional(key)
        if value is None:
            raise FormatError(
                f"{self.path}:{key}", BY_KEY[key].meaning, "nothing", "Was this written by uncrop?"
            )
        return value

    def size(self, key: str) -> Size | None:
        """Image size out of an attribute; None if there is none."""
        pair = self.optional(key)
        if pair is None:
            return None
        size = Size(*pair)
        if min(pair) < 1 or size.n_pixels > self.limits.image_pixels:
            raise UnsafeFileError(
                f"{self.path}:{key}",
                f"1 to {self.limits.image_pixels} pixels",
                f"{size}",
                "If it is genuine, raise the limit.",
            )
        return size

    def require_unchanged(self) -> None:
        """Raise FormatError unless exactly the parts and attributes are there that were written."""
        hashes = {e.path: self.digest(e.path) for e in SCHEMA if self.stored(e.path)}
        values = ((a.key, self.optional(a.key)) for a in ATTRIBUTES)
        attributes = {key: value for key, value in values if value is not None}
        for version, key in CONTENT_HASHES.items():
            must = self._version >= BY_KEY[key].since
            written = self.required(key) if must else self.optional(key)
            if written not in (None, content_hash(version, hashes, attributes)):
                raise FormatError(
                    self.path,
                    "the parts that were written",
                    "parts or attributes that were added, lost or changed",
                    "Write the bundle again.",
                )

    def digest(self, path: str) -> str:
        """SHA-256 that was written with a dataset."""
        return self._file.digest(path)

    def stored(self, path: str) -> Stored | None:
        """Find a dataset and check its shape; None if the bundle lacks it."""
        if path not in self._datasets:
            entry = BY_PATH[path]
            stored = self._file.dataset(entry)
            if stored is not None:
                self._require_shape(stored, entry)
            elif entry.required:
                raise FormatError(f"{self.path}:{path}", entry.meaning, "nothing")
            self._datasets[path] = stored
        return self._datasets[path]

    def _require_shape(self, stored: Stored, entry: Entry) -> None:
        shape: tuple[str | int, ...] = entry.shape
        if shape == ("K",):
            shape = (3, 3) if len(stored.shape) == 2 else ("N", 3, 3)
        if len(stored.shape) != len(shape):
            raise FormatError(stored.where, f"{len(shape)} axes", f"{len(stored.shape)}")
        for symbol, n in zip(shape, stored.shape, strict=True):
            if symbol in ("V", "F") and n > self.limits.mesh_vertices:
                raise UnsafeFileError(
                    stored.where,
                    f"at most {self.limits.mesh_vertices} vertices and faces",
                    f"{n}",
                    "If it is genuine, raise the limit.",
                )
            expected = self._expected(symbol, n)
            if n != expected:
                raise FormatError(stored.where, f"{symbol} = {expected}", f"{n}")

    def _expected(self, symbol: str | int, n: int) -> int:
        if isinstance(symbol, int):
            return symbol
        if symbol == "N+1":
            return self.n_frames + 1
        # Only these two are lengths that several datasets share.
        return self._sizes.setdefault(symbol, n) if symbol in ("N", "V") else n

    def get(self, path: str) -> NDArray[Any] | None:
        """Read a dataset and compare it with its hash; None if the bundle lacks it."""
        stored = self.stored(path)
        if stored is None:
            return None
        limit = _ARRAYS_FACTOR * self.limits.file_bytes
        if BY_PATH[path].dtype == "text":
            limit = self.limits.member_bytes
        self._read_bytes += stored.n_bytes
        if self._read_bytes > limit:
            raise UnsafeFileError(
                stored.where,
                f"at most {limit} bytes to read at once",
                f"{self._read_bytes}",
                "If it is genuine, raise the limit.",
            )
        array = stored.read()
        if _digest([array], stored, BY_PATH[path]) != self.digest(path):
            raise FormatError(
                stored.where,
                "the data that were written",
                "data that differ from their SHA-256",
                "They were damaged or edited; write the bundle again.",
            )
        return array

    def require(self, path: str) -> NDArray[Any]:
        """Read a dataset that this bundle has to hold."""
        array = self.get(path)
        if array is None:
            raise FormatError(f"{self.path}:{path}", BY_PATH[path].meaning, "nothing")
        return array

    def finite(self, path: str) -> NDArray[Any] | None:
        """Read numbers, all of them finite."""
        array = self.get(path)
        if array is not None and not np.isfinite(array).all():
            raise ConventionError(f"{self.path}:{path}", "finite numbers", "NaN or infinity")
        return array

    def together(self, *paths: str) -> bool:
        """Whether a bundle holds these datasets; raises FormatError if only some."""
        held = [self.stored(path) is not None for path in paths]
        if any(held) and not all(held):
            raise FormatError(f"{self.path}:{paths[held.index(False)]}",
                              BY_PATH[paths[held.index(False)]].meaning, "nothing")  # fmt: skip
        return all(held)


def _digest(blocks: Iterable[NDArray[Any]], stored: Stored, entry: Entry) -> str:
    digest = hashlib.sha256()
    if entry.dtype != "text":
        digest.update(hash_header(stored.shape, entry.dtype))
    for block in blocks:
        digest.update(block.data)
    return digest.hexdigest()


def _damaged(where: str, message: str) -> Finding:
    return Finding("bundle-damaged", "error", where, message, fix="Write the bundle again.")


def _read_cameras(reader: _Reader) -> Track:
    space = reader.required("/@image_space")
    if space not in ("crop", "source"):
        raise FormatError(f"{reader.path}: image_space", "crop or source", space)
    fps, crop = _read_fps(reader), _read_crop(reader)
    return Track(
        name=_read_name(reader),
        frame_ids=_read_counts(reader, "/frames/id"),
        w2c=Pose(reader.finite("/camera/R"), reader.finite("/camera/t")),  # type: ignore[arg-type]
        intrinsics=_read_intrinsics(reader, space, crop),
        image_space=space,
        crop=crop,
        source_indices=_read_indices(reader, fps),
        fps=fps,
        provenance=Provenance(str(reader.required("/@tracker"))),
    )


def _read_track(reader: _Reader) -> Track:
    # The record comes first: what it may take is counted from nothing.
    text = reader.require("/provenance/record").tobytes()
    record = parse_record(text, f"{reader.path}:/provenance/record", reader.limits)
    track = _read_cameras(reader)
    video = _read_file(reader, "/images/video")
    sound = _read_file(reader, "/images/sound") or video
    return replace(
        track,
        flame=Flame(**{name: reader.finite(f"/flame/{name}") for name in Flame.__slots__}),
        landmarks=_read_landmarks(reader, "/landmarks/face68"),
        dense_landmarks=_read_landmarks(reader, "/landmarks/mediapipe478"),
        meshes=_read_meshes(reader),
        crop_frames=_read_frames(reader, "crop"),
        source_frames=_read_source_frames(reader, video, track.source_indices, track.fps),
        video=_read_sound(reader, record.video, sound),
        central=_read_central(reader, track.crop),
        native=_read_native(reader),
        provenance=record.provenance,
        findings=record.findings,
    )


def _read_name(reader: _Reader) -> str:
    name = str(reader.required("/@name"))
    if not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", name):
        raise FormatError(f"{reader.path}: name", "letters, digits, - and _", name)
    return name


def _read_fps(reader: _Reader) -> float:
    fps = float(reader.required("/@fps"))
    if not 0 < fps < np.inf:
        raise ConventionError(f"{reader.path}: fps", "frames per second > 0", f"{fps}")
    return fps


def _read_counts(reader: _Reader, path: str) -> NDArray[np.int64]:
    """Read numbers that count from 0; with negative ones, differences could overflow."""
    counts = reader.require(path)
    if counts.min() < 0:
        raise ConventionError(f"{reader.path}:{path}", "0 or more", f"{counts.min()}")
    return counts


def _read_indices(reader: _Reader, fps: float) -> NDArray[np.int64] | None:
    """Read the positions in the source sequence, and compare them with the times."""
    if not reader.together("/frames/source_index", "/frames/time"):
        return None
    indices = _read_counts(reader, "/frames/source_index")
    where = f"{reader.path}:/frames/time"
    _require_equal(reader.require("/frames/time"), indices / fps, where, "source_index / fps")
    return indices


def _require_equal(found: NDArray[Any], expected: Any, where: str, what: str) -> None:
    """Raise ConventionError unless two ways to the same quantity agree."""
    scale = max(1.0, float(np.abs(expected).max()))
    # Not <=, so that NaN is refused.
    if not np.all(np.abs(found - expected) <= _RELATIVE * scale):
        raise ConventionError(where, what, "other numbers", "Two parts contradict each other.")


def _read_crop(reader: _Reader) -> Crop | None:
    if not reader.together("/crop/bbox", "/crop/pad", "/crop/crop_from_source"):
        return None
    where = f"{reader.path}:/crop"
    output, source = reader.size("/crop@crop_size"), reader.size("/crop@source_size")
    if output is None:
        raise FormatError(where, "the attribute crop_size", "nothing")
    box = BBox(*(int(v) for v in reader.require("/crop/bbox")))
    _require_box(box, source, f"{where}/bbox", reader.limits)
    pad_x, pad_y = (int(v) for v in reader.require("/crop/pad"))
    # A pad makes the cut square at most, so it is never longer than the longer side.
    if not 0 <= min(pad_x, pad_y) <= max(pad_x, pad_y) <= max(box.size.width, box.size.height):
        raise ConventionError(f"{where}/pad", "0 or more, at most a side of the bbox",
                              f"{pad_x} and {pad_y}")  # fmt: skip
    crop = Crop(box, pad_x, pad_y, source, output)
    _require_equal(reader.require("/crop/crop_from_source"), crop.crop_from_source.matrix,
                   f"{where}/crop_from_source", "the map that bbox, pad and crop_size give"
                   )  # fmt: skip
    return crop


def _require_box(box: BBox, source: Size | None, where: str, limits: Limits) -> None:
    ordered = 0 <= box.x_min < box.x_max and 0 <= box.y_min < box.y_max
    inside = source is None or (box.x_max <= source.width and box.y_max <= source.height)
    if not ordered or not inside or box.size.n_pixels > limits.image_pixels:
        frame = f"the {source} source frame" if source else "a source frame"
        raise ConventionError(
            where, f"x_min < x_max, y_min < y_max, inside {frame}", f"{box}"
        )  # fmt: skip


def _read_intrinsics(reader: _Reader, space: str, crop: Crop | None) -> Intrinsics:
    """Read K of both images, and return the tracker's own after comparing them."""
    found: dict[str, Intrinsics] = {}
    for name in ("crop", "source"):
        path = f"/camera/K_{name}"
        matrix, size = reader.finite(path), reader.size(f"{path}@image_size")
        if matrix is None:
            continue
        if size is None:
            raise FormatError(f"{reader.path}:{path}", "the attribute image_size", "nothing")
        found[name] = Intrinsics.from_matrix(matrix, size)
        expected = crop and (crop.output if name == "crop" else crop.source)
        if expected is not None and size != expected:
            raise ConventionError(f"{reader.path}:{path}@image_size", f"{expected}", f"{size}")
    if space not in found:
        raise FormatError(f"{reader.path}:/camera/K_{space}", "intrinsics", "nothing")
    if len(found) == 2:
        if crop is None:
            raise FormatError(f"{reader.path}:/crop", "the crop between two intrinsics", "nothing")
        mapped = found["source"].map(crop.crop_from_source, crop.output)
        if mapped.n_frames != found["crop"].n_frames:
            raise ConventionError(
                f"{reader.path}:/camera/K_source", "as many K as K_crop", "others"
            )
        _require_equal(found["crop"].matrix, mapped.matrix, f"{reader.path}:/camera/K_crop",
                       "K_source mapped to the crop")  # fmt: skip
    return found[space]


def _read_central(reader: _Reader, crop: Crop | None) -> CentralCameras | None:
    paths = [f"/central/{name}" for name in ("R", "t", "K", "median_px", "max_px")]
    if not reader.together(*paths):
        return None
    R, t, K, median_px, max_px = (reader.finite(path) for path in paths)
    key = "/central/K@image_size"
    size, source = reader.size(key), None if crop is None else crop.source
    if size is None:
        raise FormatError(f"{reader.path}:/central/K", "the attribute image_size", "nothing")
    if source is not None and size != source.even:
        raise ConventionError(f"{reader.path}:{key}", f"{source.even}", f"{size}")
    k = Intrinsics.from_matrix(K, size)  # type: ignore[arg-type]
    if not k.is_central or k.fx != k.fy:
        raise ConventionError(f"{reader.path}:/central/K", "fx = fy, a central principal point",
                              "another K")  # fmt: skip
    return CentralCameras(Pose(R, t), k, median_px, max_px)  # type: ignore[arg-type]


def _read_landmarks(reader: _Reader, path: str) -> Floats | None:
    points = reader.get(path)
    if points is not None and np.isinf(points).any():
        raise ConventionError(f"{reader.path}:{path}", "numbers, or NaN where none", "infinity")
    return points


def _read_native(reader: _Reader) -> dict[str, NDArray[Any]]:
    names = [e.path.rsplit("/", 1)[1] for e in SCHEMA if e.path.startswith("/native/")]
    found = {name: reader.get(f"/native/{name}") for name in names}
    return {name: array for name, array in found.items() if array is not None}


def _read_meshes(reader: _Reader) -> Meshes | None:
    every = reader.stored("/mesh/vertices")
    if not reader.together("/mesh/faces", "/mesh/mean", *["/mesh/vertices"] * (every is not None)):
        return None
    faces, mean = reader.require("/mesh/faces"), reader.finite("/mesh/mean")
    n_vertices = 0 if mean is None else len(mean)
    if faces.size and not 0 <= faces.min() <= faces.max() < n_vertices:
        raise ConventionError(f"{reader.path}:/mesh/faces",
                              f"faces that index {n_vertices} vertices", "others")  # fmt: skip
    return BundleMeshes(faces, mean, reader.n_frames, every)  # type: ignore[arg-type]


def _read_frames(reader: _Reader, space: str) -> EncodedFrames | None:
    path = f"/images/{space}"
    if not reader.together(f"{path}/offsets", f"{path}/data"):
        return None
    data, offsets = reader.stored(f"{path}/data"), reader.require(f"{path}/offsets")
    size = reader.size(f"{path}/data@image_size")
    if data is None or size is None:
        raise FormatError(f"{reader.path}:{path}/data", "the attribute image_size", "nothing")
    # Compared, not subtracted: differences could overflow.
    ascending = bool(np.all(offsets[1:] > offsets[:-1]))
    if offsets[0] != 0 or offsets[-1] != data.shape[0] or not ascending:
        raise FormatError(
            f"{reader.path}:{path}/offsets",
            f"ascending offsets from 0 to {data.shape[0]}",
            "others",
        )
    return EncodedFrames(data, offsets, size, reader.limits)


def _read_file(reader: _Reader, path: str) -> BundledFile | None:
    stored = reader.stored(path)
    return None if stored is None else BundledFile(stored)


def _read_source_frames(
    reader: _Reader, video: BundledFile | None, indices: NDArray[np.int64] | None, fps: float
) -> Frames | None:
    images = _read_frames(reader, "source")
    if images is not None or video is None:
        return images
    if indices is None:
        raise FormatError(
            f"{reader.path}:/frames/source_index", "positions in the video", "nothing"
        )
    return BundleVideo(video, fps, tuple(indices.tolist()), reader.limits)


def _read_sound(reader: _Reader, name: str | None, file: BundledFile | None) -> VideoFile | None:
    """Return the video behind the track; without the file its name is of no use."""
    return None if name is None or file is None else VideoFile(name, lambda: file.path)
