"""Writing bundles: whole or not at all, and the same bytes for the same track."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter import __version__
from converter.bundle.contents import BundleMeshes, BundleVideo, EncodedFrames
from converter.bundle.read import check_bundle
from converter.bundle.record import record_text
from converter.bundle.schema import (
    ATTRIBUTES,
    BY_KEY,
    BY_PATH,
    CONTENT_HASHES,
    SCHEMA,
    VERSION,
    Entry,
    Value,
    content_hash,
    hash_header,
)
from converter.bundle.sink import Sink, new_hdf5
from converter.errors import ConventionError, FormatError, OutputError, TargetError, UncropError
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Size
from converter.media.atomic import replace_file
from converter.media.files import open_regular, read_bytes
from converter.media.image_headers import require_whole
from converter.media.images import ImageFiles, encode_image
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.video import VideoFrames
from converter.registry import Progress, no_progress
from converter.track import CentralCameras, Flame, Frames, Meshes, Track

_CHUNK_BYTES = 1 << 20
_TEXT_ATTRIBUTE_BYTES = 4096


def write_bundle(
    track: Track,
    path: Path,
    *,
    meshes: Literal["all", "mean"] = "all",
    with_images: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Write a bundle, whole or not at all; the same track gives the same bytes.

    The file is read back and compared with its hashes before it gets its name.

    Parameters
    ----------
    track
        The track.
    path
        The file.
    meshes
        All meshes, or only their mean.
    with_images
        Put the encoded images (and the video) in.
    overwrite
        Replace an existing file.
    progress
        Called per frame.
    limits
        Bounds under which it must be readable again.

    Raises
    ------
    OutputError
        If the file exists or cannot be written, or cannot be read back.
    ConventionError
        If the parts of the track contradict each other.
    TargetError
        If the track holds something that the schema has no place for.

    """
    track.require_consistent()
    require_places(track)
    with replace_file(path, overwrite=overwrite) as temporary:
        with _errors_of(path), new_hdf5(temporary) as (file, sink):
            writer = _Writer(file, sink, progress)
            _write_attributes(writer, track)
            _write_camera(writer, track)
            for name, array in _arrays(track):
                writer.put(name, array)
            if track.central is not None:
                _write_central(writer, track.central)
            if track.meshes is not None:
                writer.put_meshes(track.meshes, every=meshes == "all")
            if with_images:
                _write_images(writer, track, limits)
            writer.put_text("/provenance/record", record_text(track))
            writer.finish()
        _require_readable(temporary, path, limits)


def require_places(track: Track) -> None:
    """Raise TargetError if the schema has no place for something of the track."""
    lost = [name for name in track.native if f"/native/{name}" not in BY_PATH]
    if lost:
        raise TargetError(
            f"{track.name}: native", "what docs/bundle.md lists", ", ".join(sorted(lost)),
            "Nothing is left out silently.",
        )  # fmt: skip


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into OutputError."""
    try:
        yield
    except UncropError:
        raise
    except OSError as error:
        raise OutputError(path, "a place that can be written", f"{error.strerror}") from error


def _require_readable(temporary: Path, path: Path, limits: Limits) -> None:
    try:
        found = [finding.message for finding in check_bundle(temporary, limits)]
    except UncropError as error:
        found = [str(error).replace(str(temporary), str(path))]
    if found:
        raise OutputError(path, "a bundle that can be read back", found[0].rstrip("."))


@dataclass
class _Writer:
    file: Any
    sink: Sink
    progress: Progress
    hashes: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Value] = field(default_factory=dict)

    def put(self, path: str, array: NDArray[Any]) -> None:
        """Write one array with its hash, unit and meaning."""
        entry = BY_PATH[path]
        data = np.ascontiguousarray(array, dtype=entry.dtype)
        if not np.array_equal(data, array, equal_nan=data.dtype.kind == "f"):
            raise ConventionError(path, f"numbers that {entry.dtype} can hold", f"{array.dtype}")
        dataset = self.create(entry, data.shape)
        dataset[...] = data
        self.seal(dataset, entry, hashlib.sha256(hash_header(data.shape, entry.dtype)), [data.data])

    def create(self, entry: Entry, shape: tuple[int, ...]) -> Any:
        """Create an empty dataset, chunked by frame and compressed where that helps."""
        options: dict[str, Any] = {}
        row = int(np.prod(shape[1:])) * np.dtype(entry.dtype).itemsize
        if entry.dtype != "|u1" and row * shape[0] > 512:
            rows = 1 if entry.path == "/mesh/vertices" else max(1, _CHUNK_BYTES // row)
            options = {
                "chunks": (min(rows, shape[0]), *shape[1:]), "compression": "gzip", "shuffle": True
            }  # fmt: skip
        return self.file.create_dataset(entry.path, shape, entry.dtype, track_times=False,
                                        **options)  # fmt: skip

    def seal(self, dataset: Any, entry: Entry, digest: Any, blocks: Iterable[Any] = ()) -> None:
        """Attach what makes the dataset self-describing, and its hash (after ``blocks``)."""
        for block in blocks:
            digest.update(block)
        self.sink.require()
        self.hashes[entry.path] = digest.hexdigest()
        self.text(dataset, "long_name", entry.meaning)
        if entry.unit:
            self.text(dataset, "units", entry.unit)
        self.text(dataset, "sha256", self.hashes[entry.path])

    def attribute(self, key: str, value: Value | None = None) -> None:
        """Write an attribute of the schema; the value may be left out where it is fixed."""
        attribute = BY_KEY[key]
        value = attribute.fixed if value is None else value
        holder = self.file[attribute.path]
        if isinstance(value, str):
            self.text(holder, attribute.name, value)
        else:
            dtype = "<f8" if attribute.kind == "float" else "<i8"
            holder.attrs.create(attribute.name, np.array(value, dtype))
        if value is not None:
            self.attributes[key] = value

    def size(self, key: str, size: Size) -> None:
        """Write the size of an image as an attribute."""
        self.attribute(key, [size.width, size.height])

    def text(self, holder: Any, name: str, text: str) -> None:
        """Write a fixed-length string: those of any length lie in a heap of their own."""
        import h5py

        data = text.encode("utf-8", "replace")
        if not 0 < len(data) <= _TEXT_ATTRIBUTE_BYTES or "\0" in text or data.decode() != text:
            raise ConventionError(f"{holder.name}@{name}", "a short text", f"{text!r:.60}")
        holder.attrs.create(name, data, (), h5py.string_dtype("utf-8", len(data)))

    def put_text(self, path: str, data: bytes) -> None:
        """Write a fixed-length UTF-8 string, which every HDF5 tool shows as text."""
        import h5py

        dtype = h5py.string_dtype("utf-8", len(data))
        dataset = self.file.create_dataset(path, (), dtype, track_times=False)
        dataset[()] = data
        self.seal(dataset, BY_PATH[path], hashlib.sha256(data))

    def put_meshes(self, meshes: Meshes, *, every: bool) -> None:
        """Write faces, the mean, and one mesh after the other; memory stays at one mesh."""
        self.put("/mesh/faces", meshes.faces)
        self.put("/mesh/mean", meshes.mean)
        if not every or (isinstance(meshes, BundleMeshes) and meshes.every is None):
            return
        entry = BY_PATH["/mesh/vertices"]
        shape = (len(meshes), *meshes.mean.shape)
        dataset = self.create(entry, shape)
        digest = hashlib.sha256(hash_header(shape, entry.dtype))
        for index in range(len(meshes)):
            vertices = np.ascontiguousarray(meshes.vertices(index), "<f4")
            dataset[index] = vertices
            self.sink.require()
            digest.update(vertices.data)
            self.progress("write meshes", index + 1, len(meshes))
        self.seal(dataset, entry, digest)

    def put_blobs(self, path: str, n_bytes: int, blobs: Iterator[bytes]) -> None:
        """Write bytes one after the other into one dataset of known length.

        Raises
        ------
        FormatError
            If they are more or fewer: a file changed meanwhile.

        """
        entry = BY_PATH[path]
        dataset = self.create(entry, (n_bytes,))
        digest = hashlib.sha256(hash_header((n_bytes,), entry.dtype))
        position = 0
        for blob in blobs:
            if position + len(blob) > n_bytes:
                break
            dataset[position : position + len(blob)] = np.frombuffer(blob, np.uint8)
            self.sink.require()
            digest.update(blob)
            position += len(blob)
        else:
            if position == n_bytes:
                self.seal(dataset, entry, digest)
                return
        raise FormatError(path, f"{n_bytes} bytes as at first", "others",
                          "A file was changed while it was read.")  # fmt: skip

    def finish(self) -> None:
        """Write the mark that everything before it is whole."""
        for version, key in CONTENT_HASHES.items():
            self.attribute(key, content_hash(version, self.hashes, self.attributes))
        self.file.flush()
        self.attribute("/@complete")


def _write_attributes(writer: _Writer, track: Track) -> None:
    root = writer.file
    writer.text(root, "NX_class", "NXroot")
    writer.text(root, "default", "camera")
    for group in dict.fromkeys(entry.path.split("/")[1] for entry in SCHEMA):
        created = root.create_group(group, track_order=False)
        writer.text(created, "NX_class", "NXdata" if group == "camera" else "NXcollection")
    writer.text(root["camera"], "signal", "t")
    for attribute in ATTRIBUTES:
        if attribute.fixed is not None and attribute.name != "complete":
            writer.attribute(attribute.key)
    writer.attribute("/@format_version", f"{VERSION[0]}.{VERSION[1]}")
    writer.attribute("/@creator", f"uncrop {__version__}")
    writer.attribute("/@name", track.name)
    writer.attribute("/@tracker", track.provenance.tracker)
    writer.attribute("/@fps", float(track.fps))
    writer.attribute("/@image_space", track.image_space)
    writer.attribute("/@n_frames", len(track))


def _write_camera(writer: _Writer, track: Track) -> None:
    """Write K of both images, as far as the crop is known, and the crop."""
    crop = track.crop
    known = {
        "crop": track.image_space == "crop" or crop is not None,
        "source": track.image_space == "source" or (crop is not None and crop.source is not None),
    }
    for space in ("crop", "source"):
        if known[space]:
            k = _intrinsics(track, space)
            writer.put(f"/camera/K_{space}", k.matrix)
            writer.size(f"/camera/K_{space}@image_size", k.size)
    if crop is None:
        return
    box = crop.bbox
    writer.put("/crop/bbox", np.array([box.x_min, box.x_max, box.y_min, box.y_max]))
    writer.put("/crop/pad", np.array([crop.pad_x, crop.pad_y]))
    writer.put("/crop/crop_from_source", crop.crop_from_source.matrix)
    writer.size("/crop@crop_size", crop.output)
    if crop.source is not None:
        writer.size("/crop@source_size", crop.source)


def _write_central(writer: _Writer, central: CentralCameras) -> None:
    writer.put("/central/R", central.w2c.R)
    writer.put("/central/t", central.w2c.t)
    writer.put("/central/K", central.intrinsics.matrix)
    writer.size("/central/K@image_size", central.intrinsics.size)
    writer.put("/central/median_px", central.median_px)
    writer.put("/central/max_px", central.max_px)


def _intrinsics(track: Track, space: str) -> Intrinsics:
    return (track.in_crop() if space == "crop" else track.in_source()).intrinsics


def _arrays(track: Track) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every other plain array of the track, by its path in the schema."""
    yield "/frames/id", track.frame_ids
    if track.source_indices is not None and track.times is not None:
        yield "/frames/source_index", track.source_indices
        yield "/frames/time", track.times
    yield "/camera/R", track.w2c.R
    yield "/camera/t", track.w2c.t
    for name in Flame.__slots__:
        block = getattr(track.flame, name)
        if block is not None:
            yield f"/flame/{name}", block
    if track.landmarks is not None:
        yield "/landmarks/face68", track.landmarks
    if track.dense_landmarks is not None:
        yield "/landmarks/mediapipe478", track.dense_landmarks
    for name, array in sorted(track.native.items()):
        yield f"/native/{name}", array


def _write_images(writer: _Writer, track: Track, limits: Limits) -> None:
    if track.crop_frames is not None:
        _write_frames(writer, "crop", track.crop_frames, limits)
    source, video = track.source_frames, None
    if isinstance(source, VideoFrames | BundleVideo):
        # The file itself: exact, and smaller than any re-encoding of its frames.
        video = Path(source.path if isinstance(source, VideoFrames) else source.file.path)
        _write_file(writer, "/images/video", video, track)
    elif source is not None:
        _write_frames(writer, "source", source, limits)
    sound = None if track.video is None else track.video.locate()
    if sound is not None and (video is None or not sound.samefile(video)):
        _write_file(writer, "/images/sound", sound, track)


def _write_frames(writer: _Writer, space: str, frames: Frames, limits: Limits) -> None:
    n = len(frames)
    with ExitStack() as stack:
        lengths, encoded = _encoded(frames, stack, limits)

        def blobs() -> Iterator[bytes]:
            for index in range(n):
                yield encoded(index)
                writer.progress(f"write {space} images", index + 1, n)

        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        writer.put(f"/images/{space}/offsets", offsets)
        writer.put_blobs(f"/images/{space}/data", int(offsets[-1]), blobs())
        writer.size(f"/images/{space}/data@image_size", frames.size)
        writer.text(writer.file[f"/images/{space}"], "NX_class", "NXcollection")


def _encoded(
    frames: Frames, stack: ExitStack, limits: Limits
) -> tuple[list[int], Callable[[int], bytes]]:
    """Return the lengths of the encoded images, and a function that gives each of them."""
    if isinstance(frames, EncodedFrames):
        return np.diff(frames.offsets).tolist(), frames.encoded
    if isinstance(frames, ImageFiles):
        paths = frames.paths
        lengths = [_file_size(p) for p in paths]
        return lengths, lambda index: _whole_image(paths[index], frames.size, limits)
    # Encoding twice would cost more than writing twice.
    spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    lengths = [
        spool.write(encode_image(image, ".png")) for image in frames.stream(range(len(frames)))
    ]
    spool.seek(0)
    return lengths, lambda index: spool.read(lengths[index])


def _file_size(path: Path) -> int:
    descriptor = open_regular(path)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _whole_image(path: Path, size: Size, limits: Limits) -> bytes:
    """Bytes of an image that goes in as it is, undecoded."""
    data = read_bytes(path, limits)
    header = require_whole(data, str(path), limits)
    if header.size != size:
        raise FormatError(path, f"{size} like the other images", f"{header.size}")
    return data


def _write_file(writer: _Writer, path: str, file: Path, track: Track) -> None:
    """Copy a file; it must still be the one whose hash was taken when the track was read."""
    known = {i.sha256 for i in track.provenance.inputs if i.path == file.name}
    digest = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
            yield block

    with os.fdopen(open_regular(file), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        writer.put_blobs(path, size, blocks())
    if known and digest.hexdigest() not in known:
        raise FormatError(file, "the file that was read at first", "another",
                          "It was changed meanwhile. Run this again.")  # fmt: skip
