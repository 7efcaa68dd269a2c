"""Writing bundles: whole or not at all, and the same bytes for the same track."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter import __version__
from converter.bundle.contents import BundleVideo, EncodedFrames
from converter.bundle.schema import (
    BY_PATH,
    FORMAT,
    SCHEMA,
    VERSION,
    Entry,
    content_hash,
    hash_header,
)
from converter.geometry.intrinsics import Intrinsics
from converter.media.atomic import replace_file
from converter.media.files import open_regular, read_bytes
from converter.media.images import ImageFiles, encode_image
from converter.media.video import VideoFrames
from converter.registry import Progress, no_progress
from converter.track import Flame, Frames, Meshes, Track

_CHUNK_BYTES = 1 << 20


def write_bundle(
    track: Track,
    path: Path,
    *,
    meshes: Literal["all", "mean"] = "all",
    with_images: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> None:
    """Write a bundle, whole or not at all; the same track gives the same bytes.

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

    Raises
    ------
    OutputError
        If the file exists or cannot be written.

    """
    import h5py

    with replace_file(path, overwrite=overwrite) as temporary, h5py.File(temporary, "w") as file:
        writer = _Writer(file, len(track), progress)
        _write_attributes(file, track)
        for name, array in _arrays(track):
            writer.put(name, array)
        _write_camera_attributes(file, track)
        if track.meshes is not None:
            writer.put_meshes(track.meshes, every=meshes == "all")
        if with_images:
            _write_images(writer, track)
        writer.put_text("/provenance/record", _record(track))
        writer.finish()


@dataclass
class _Writer:
    file: Any
    n_frames: int
    progress: Progress
    hashes: dict[str, str] = field(default_factory=dict)

    def put(self, path: str, array: NDArray[Any]) -> None:
        """Write one array with its hash, unit and meaning."""
        entry = BY_PATH[path]
        data = np.ascontiguousarray(array, dtype=entry.dtype)
        dataset = self.create(entry, data.shape)
        dataset[...] = data
        self.seal(dataset, entry, _digest(data))

    def create(self, entry: Entry, shape: tuple[int, ...]) -> Any:
        """Create an empty dataset, chunked by frame and compressed where that helps."""
        options: dict[str, Any] = {}
        if shape and np.prod(shape) > 64 and entry.dtype != "|u1":
            rows = max(1, _CHUNK_BYTES // max(1, int(np.prod(shape[1:])) * 8))
            if entry.path == "/mesh/vertices":
                rows = 1
            chunks = (min(rows, shape[0]), *shape[1:])
            options = {"chunks": chunks, "compression": "gzip", "shuffle": True}
        return self.file.create_dataset(entry.path, shape, entry.dtype, track_times=False,
                                        **options)  # fmt: skip

    def seal(self, dataset: Any, entry: Entry, sha256: str) -> None:
        """Attach what makes the dataset self-describing."""
        dataset.attrs["long_name"] = entry.meaning
        if entry.unit:
            dataset.attrs["units"] = entry.unit
        dataset.attrs["sha256"] = sha256
        self.hashes[entry.path] = sha256

    def put_text(self, path: str, text: str) -> None:
        """Write a fixed-length UTF-8 string, which every HDF5 tool shows as text."""
        import h5py

        data = text.encode("utf-8")
        dtype = h5py.string_dtype("utf-8", len(data))
        dataset = self.file.create_dataset(path, (), dtype, track_times=False)
        dataset[()] = data
        self.seal(dataset, BY_PATH[path], hashlib.sha256(data).hexdigest())

    def put_meshes(self, meshes: Meshes, *, every: bool) -> None:
        """Write faces, the mean, and one mesh after the other; memory stays at one mesh."""
        self.put("/mesh/faces", meshes.faces)
        self.put("/mesh/mean", meshes.mean)
        if not every:
            return
        entry = BY_PATH["/mesh/vertices"]
        shape = (len(meshes), *meshes.mean.shape)
        dataset = self.create(entry, shape)
        digest = hashlib.sha256(hash_header(shape, entry.dtype))
        for index in range(len(meshes)):
            vertices = np.ascontiguousarray(meshes.vertices(index), "<f4")
            dataset[index] = vertices
            digest.update(vertices.tobytes())
            self.progress("write meshes", index + 1, len(meshes))
        self.seal(dataset, entry, digest.hexdigest())

    def put_blobs(self, path: str, n_bytes: int, blobs: Iterator[bytes]) -> None:
        """Write bytes one after the other into one dataset of known length."""
        entry = BY_PATH[path]
        dataset = self.create(entry, (n_bytes,))
        digest = hashlib.sha256(hash_header((n_bytes,), entry.dtype))
        position = 0
        for blob in blobs:
            dataset[position : position + len(blob)] = np.frombuffer(blob, np.uint8)
            digest.update(blob)
            position += len(blob)
        self.seal(dataset, entry, digest.hexdigest())

    def finish(self) -> None:
        """Write the mark that everything before it is whole."""
        self.file.flush()
        self.file.attrs["n_frames"] = self.n_frames
        self.file.attrs["content_sha256"] = content_hash(self.hashes)
        self.file.attrs["complete"] = np.uint8(1)


def _digest(data: NDArray[Any]) -> str:
    return hashlib.sha256(hash_header(data.shape, data.dtype.str) + data.tobytes()).hexdigest()


def _write_attributes(file: Any, track: Track) -> None:
    file.attrs["NX_class"] = "NXroot"
    file.attrs["file_format"] = FORMAT
    file.attrs["format_version"] = f"{VERSION[0]}.{VERSION[1]}"
    file.attrs["creator"] = f"uncrop {__version__}"
    file.attrs["name"] = track.name
    file.attrs["tracker"] = track.provenance.tracker
    file.attrs["fps"] = float(track.fps)
    file.attrs["image_space"] = track.image_space
    for group in dict.fromkeys(entry.path.split("/")[1] for entry in SCHEMA):
        file.create_group(group).attrs["NX_class"] = "NXcollection"


def _write_camera_attributes(file: Any, track: Track) -> None:
    camera = file["camera"]
    camera.attrs["convention"] = "opencv_w2c"
    camera.attrs["axes"] = "x right, y down, z forward; x_cam = R x_world + t"
    camera.attrs["pixel_center"] = 0.5
    camera.attrs["pixel_origin"] = "edge: the first pixel's centre is (0.5, 0.5)"
    for space, path in (("crop", "/camera/K_crop"), ("source", "/camera/K_source")):
        if path in file:
            size = _mapped(track, space).size  # type: ignore[arg-type]
            file[path].attrs["image_size"] = np.array([size.width, size.height], "<i8")
    if track.crop is not None:
        crop = file["crop"]
        sizes = {"source_size": track.crop.source, "crop_size": track.crop.output}
        for name, value in sizes.items():
            if value is not None:
                crop.attrs[name] = np.array([value.width, value.height], "<i8")


def _mapped(track: Track, space: Literal["crop", "source"]) -> Intrinsics:
    return (track.in_crop() if space == "crop" else track.in_source()).intrinsics


def _arrays(track: Track) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every plain array of the track, by its path in the schema."""
    yield "/frames/id", track.frame_ids
    if track.source_indices is not None and track.times is not None:
        yield "/frames/source_index", track.source_indices
        yield "/frames/time", track.times
    yield "/camera/R", track.w2c.R
    yield "/camera/t", track.w2c.t
    crop = track.crop
    if track.image_space == "crop" or crop is not None:
        yield "/camera/K_crop", _mapped(track, "crop").matrix
    if track.image_space == "source" or (crop is not None and crop.source is not None):
        yield "/camera/K_source", _mapped(track, "source").matrix
    if crop is not None:
        box = crop.bbox
        yield "/crop/bbox", np.array([box.x_min, box.x_max, box.y_min, box.y_max])
        yield "/crop/pad", np.array([crop.pad_x, crop.pad_y])
        yield "/crop/crop_from_source", crop.crop_from_source.matrix
    for name in Flame.__slots__:
        block = getattr(track.flame, name)
        if block is not None:
            yield f"/flame/{name}", block
    if track.landmarks is not None:
        yield "/landmarks/face68", track.landmarks
    if track.dense_landmarks is not None:
        yield "/landmarks/mediapipe478", track.dense_landmarks
    for name, array in track.native.items():
        yield f"/native/{name}", array


def _record(track: Track) -> str:
    """Provenance and findings as JSON text."""
    record = {
        **asdict(track.provenance),
        "video": track.video.name if track.video else None,
        "findings": [asdict(f) for f in track.findings],
    }
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)


def _write_images(writer: _Writer, track: Track) -> None:
    if track.crop_frames is not None:
        _write_frames(writer, "crop", track.crop_frames)
    source = track.source_frames
    if isinstance(source, VideoFrames | BundleVideo):
        # The file itself: exact, and smaller than any re-encoding of its frames.
        _write_video(writer, Path(source.path))
    elif source is not None:
        _write_frames(writer, "source", source)


def _write_frames(writer: _Writer, space: str, frames: Frames) -> None:
    n = len(frames)

    def encoded(index: int) -> bytes:
        if isinstance(frames, ImageFiles):
            return read_bytes(frames.paths[index])
        if isinstance(frames, EncodedFrames):
            return frames.encoded(index)
        return encode_image(frames.read(index), ".png")

    lengths = [len(encoded(index)) for index in range(n)]
    writer.put(f"/images/{space}/offsets", np.concatenate([[0], np.cumsum(lengths)]))
    writer.put_blobs(f"/images/{space}/data", sum(lengths), (encoded(i) for i in range(n)))


def _write_video(writer: _Writer, path: Path) -> None:
    with os.fdopen(open_regular(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        blocks = iter(lambda: stream.read(_CHUNK_BYTES), b"")
        writer.put_blobs("/images/video", size, blocks)
