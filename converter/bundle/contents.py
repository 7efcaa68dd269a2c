"""The parts of a bundle that stay in the file until they are asked for."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UnsafeFileError
from converter.geometry.pixels import Size
from converter.media.files import open_regular
from converter.media.images import decode_image
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.video import VideoFrames
from converter.track import Image

_COPY_BYTES = 1 << 22


def open_bundle(path: Path) -> Any:
    """Open an HDF5 file for reading.

    Raises
    ------
    MissingInputError, UnsafeFileError
        If it is not there, or not a regular file.
    FormatError
        If it is not HDF5, or cut off.

    """
    import h5py

    os.close(open_regular(path))  # refuses what is not a regular file, without blocking
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        found = str(error).split("(")[-1].rstrip(")")
        raise FormatError(path, "a whole HDF5 file", found) from None


def read_array(dataset: Any, where: str, selection: Any = ...) -> Any:
    """Read from a dataset; raises FormatError where the file is damaged."""
    try:
        return dataset[selection]
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(where, "readable data", str(error).splitlines()[0]) from None


@dataclass(frozen=True)
class BundleMeshes:
    """`converter.track.Meshes` inside a bundle; the mean for every frame if it holds no others."""

    path: Path
    faces: NDArray[np.int32]
    mean: NDArray[np.float32]
    n_frames: int
    every: bool

    def __len__(self) -> int:
        return self.n_frames

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of one frame, (V, 3), metres."""
        if not self.every:
            return self.mean
        return np.asarray(read_array(self._dataset, f"{self.path}:/mesh/vertices", index), "<f4")

    @cached_property
    def _dataset(self) -> Any:
        return open_bundle(self.path)["mesh/vertices"]


@dataclass(frozen=True)
class EncodedFrames:
    """`converter.track.Frames` inside a bundle."""

    path: Path
    space: str
    offsets: NDArray[np.int64]
    limits: Limits = DEFAULT_LIMITS

    @cached_property
    def size(self) -> Size:
        """Size of the images."""
        return Size.of(self.read(0))

    @cached_property
    def _dataset(self) -> Any:
        return open_bundle(self.path)[f"images/{self.space}/data"]

    @property
    def origin(self) -> str:
        """The bundle and the group inside it."""
        return f"{self.path}:/images/{self.space}"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def name(self, index: int) -> str:
        """Position of the image."""
        return str(index)

    def encoded(self, index: int) -> bytes:
        """PNG or JPEG bytes of one image."""
        begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
        if end - begin > self.limits.file_bytes:
            raise UnsafeFileError(self.origin, "images of ordinary size", f"{end - begin} bytes")
        return bytes(read_array(self._dataset, f"{self.origin}/data", slice(begin, end)))

    def read(self, index: int) -> Image:
        """Decode one image."""
        return decode_image(self.encoded(index), f"{self.origin}[{index}]", self.limits)

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode images one after the other."""
        return (self.read(index) for index in indices)


@dataclass(frozen=True)
class BundleVideo:
    """`converter.track.Frames` over a video inside a bundle.

    The video is copied to a temporary file when first asked for, since decoders want to seek.
    """

    bundle: Path
    fps: float
    indices: tuple[int, ...]

    @cached_property
    def path(self) -> Path:
        """The temporary copy; it goes away with this object."""
        handle, name = tempfile.mkstemp(prefix="uncrop-", suffix=".video")
        weakref.finalize(self, Path(name).unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as copy, open_bundle(self.bundle) as file:
            data, where = file["images/video"], f"{self.bundle}:/images/video"
            for begin in range(0, data.shape[0], _COPY_BYTES):
                copy.write(bytes(read_array(data, where, slice(begin, begin + _COPY_BYTES))))
        return Path(name)

    @cached_property
    def _frames(self) -> VideoFrames:
        return VideoFrames(self.path, self.fps, self.indices)

    @property
    def size(self) -> Size:
        """Size of the frames."""
        return self._frames.size

    @property
    def origin(self) -> str:
        """The bundle and the dataset inside it."""
        return f"{self.bundle}:/images/video"

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """Name of one frame."""
        return self._frames.name(index)

    def read(self, index: int) -> Image:
        """Decode one frame."""
        return self._frames.read(index)

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode frames one after the other."""
        return self._frames.stream(indices)
