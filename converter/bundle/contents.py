"""The parts of a bundle that stay in the file until they are asked for."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.bundle.hdf5 import Stored
from converter.errors import FormatError, OutputError, UnsafeFileError
from converter.geometry.pixels import Size
from converter.media.images import decode_image
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.video import VideoFrames
from converter.track import Image


@dataclass(frozen=True)
class BundleMeshes:
    """`converter.track.Meshes` inside a bundle.

    Attributes
    ----------
    faces, mean
        Triangles (F, 3), and the mean of the vertices (V, 3), metres.
    n_frames
        Number of frames.
    every
        The mesh of every frame; where a bundle holds only the mean, it stands for all.

    """

    faces: NDArray[np.int32]
    mean: NDArray[np.float32]
    n_frames: int
    every: Stored | None

    def __len__(self) -> int:
        return self.n_frames

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of one frame, (V, 3), metres; raises FormatError where they are damaged."""
        index = range(self.n_frames)[index]
        if self.every is None:
            return self.mean
        vertices: NDArray[np.float32] = self.every.rows(index, index + 1)[0]
        if not np.isfinite(vertices).all():
            raise FormatError(f"{self.every.where}[{index}]", "finite numbers", "NaN or infinity")
        return vertices


@dataclass(frozen=True)
class EncodedFrames:
    """`converter.track.Frames` inside a bundle: PNG or JPEG files one after the other."""

    data: Stored
    offsets: NDArray[np.int64]
    size: Size
    limits: Limits = DEFAULT_LIMITS

    @property
    def origin(self) -> str:
        """The bundle and the dataset inside it."""
        return self.data.where

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def name(self, index: int) -> str:
        """Position of the image."""
        return str(range(len(self))[index])

    def encoded(self, index: int) -> bytes:
        """PNG or JPEG bytes of one image."""
        index = range(len(self))[index]
        begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
        if end - begin > self.limits.file_bytes:
            raise UnsafeFileError(
                f"{self.origin}[{index}]", "an image of ordinary size", f"{end - begin} bytes"
            )
        return self.data.rows(begin, end).tobytes()

    def read(self, index: int) -> Image:
        """Decode one image; raises FormatError if its size is not that of all."""
        where = f"{self.origin}[{index}]"
        image = decode_image(self.encoded(index), where, self.limits)
        if Size.of(image) != self.size:
            raise FormatError(where, f"{self.size} like all images", f"{Size.of(image)}")
        return image

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode images one after the other."""
        return (self.read(index) for index in indices)


@dataclass(frozen=True)
class BundledFile:
    """A file inside a bundle, byte for byte."""

    data: Stored

    @cached_property
    def path(self) -> Path:
        """A temporary copy, since decoders want to seek; it goes away with this object.

        Raises
        ------
        OutputError
            If there is no room for it.

        """
        try:
            with tempfile.NamedTemporaryFile(
                prefix="uncrop-", suffix=".video", delete=False
            ) as copy:
                weakref.finalize(self, Path(copy.name).unlink, missing_ok=True)
                for block in self.data.blocks():
                    copy.write(block.data)
        except OSError as error:
            raise OutputError(
                tempfile.gettempdir(), f"room for the video of {self.data.where}",
                str(error.strerror), "Set TMPDIR to a folder with room.",
            ) from None  # fmt: skip
        return Path(copy.name)


@dataclass(frozen=True)
class BundleVideo:
    """`converter.track.Frames` over a video inside a bundle."""

    file: BundledFile
    fps: float
    indices: tuple[int, ...]
    limits: Limits = DEFAULT_LIMITS

    @cached_property
    def frames(self) -> VideoFrames:
        """The frames of the temporary copy."""
        return VideoFrames(self.file.path, self.fps, self.indices, self.limits)

    @property
    def size(self) -> Size:
        """Size of the frames."""
        return self.frames.size

    @property
    def origin(self) -> str:
        """The bundle and the dataset inside it."""
        return self.file.data.where

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """``frame K``, where K counts extracted frames from 0."""
        return f"frame {self.indices[index]}"

    def read(self, index: int) -> Image:
        """Decode one frame."""
        return self.frames.read(index)

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode frames one after the other."""
        return self.frames.stream(indices)
