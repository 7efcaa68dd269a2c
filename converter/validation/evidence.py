"""What checks ask of a track, each fact established once and kept: the common half.

`Evidence` holds a `converter.track.Track` and what is read for it on the way;
`converter.validation.tracked` adds the files of a metrical-tracker track, read leniently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UncropError
from converter.findings import Finding, Severity
from converter.geometry.pixels import Floats, Size
from converter.media.images import read_image
from converter.media.limits import Limits
from converter.track import Image, Track

T = TypeVar("T")
_CACHED_BYTES = 128 * 2**20
_N_NAMED = 5


class CheckSkipped(Exception):  # noqa: N818 - it is no error of the input
    """Raised by a check that has nothing to look at; says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check established, before it becomes a `converter.validation.report.CheckResult`.

    Attributes
    ----------
    findings
        What it found; their ``check`` is filled in later.
    n_examined
        How many frames, files or pictures it looked at.
    frame_ids
        Frames at which something is wrong.

    """

    findings: tuple[Finding, ...] = ()
    n_examined: int = 0
    frame_ids: tuple[int, ...] = ()


def finding(
    severity: Severity,
    where: object,
    message: str,
    measured: float | None = None,
    limit: float | None = None,
    unit: str = "",
    fix: str = "",
) -> Finding:
    """Return a finding of a check that does not know its own id yet."""
    return Finding("", severity, str(where), message, measured, limit, unit, fix)


def named(frame_ids: Sequence[int] | NDArray[np.int64]) -> str:
    """``00003, 00007 and 12 more``."""
    shown = ", ".join(f"{int(i):05d}" for i in frame_ids[:_N_NAMED])
    more = len(frame_ids) - _N_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def spread(items: Sequence[T], n: int) -> list[T]:
    """Up to ``n`` of the items, evenly spread, the first and the last included."""
    picks = np.unique(np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int))
    return [items[int(i)] for i in picks]


class Pictures:
    """Decodes each image once while it is needed: the last ones are kept, up to 128 MB."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: dict[Path, Image] = {}
        self._n_bytes = 0
        self.n_decoded = 0
        self.seen: set[Path] = set()

    def __call__(self, path: Path) -> Image:
        """Decode, or return what was decoded; raises as `converter.media.images.read_image`."""
        image = self._kept.pop(path, None)
        if image is None:
            image = read_image(path, self._limits)
            self.n_decoded += 1
            self.seen.add(path)
            self._n_bytes += image.nbytes
        self._kept[path] = image
        while self._n_bytes > _CACHED_BYTES and len(self._kept) > 1:
            self._n_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return image


@dataclass(frozen=True)
class KeptFrames:
    """`converter.track.Frames` over files that a `Pictures` decodes."""

    paths: tuple[Path, ...]
    size: Size
    decode: Callable[[Path], Image]

    @property
    def origin(self) -> str:
        """Folder of the images."""
        return str(self.paths[0].parent)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """File name of one image."""
        return self.paths[index].name

    def read(self, index: int) -> Image:
        """Decode one image; raises FormatError if its size differs from the others'."""
        image = self.decode(self.paths[index])
        if Size.of(image) != self.size:
            raise FormatError(
                self.paths[index], f"{self.size} like the other images", f"{Size.of(image)}"
            )
        return image

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode images one after the other."""
        return (self.read(index) for index in indices)


class KeptMeshes:
    """`converter.track.Meshes` of which each is read once."""

    def __init__(self, faces: NDArray[np.int32], read: Callable[[int], NDArray[np.float32]]):
        self.faces = faces
        self._read = read
        self._kept: dict[int, NDArray[np.float32]] = {}
        self.n_frames = 0

    def __len__(self) -> int:
        return self.n_frames

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of one frame."""
        if index not in self._kept:
            if len(self._kept) > 400:  # 5,023 vertices: 24 MB
                self._kept.clear()
            self._kept[index] = self._read(index)
        return self._kept[index]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean over all frames."""
        total: Floats = sum(self.vertices(i).astype(np.float64) for i in range(len(self)))  # type: ignore[assignment]
        return (total / len(self)).astype(np.float32)


class Evidence:
    """A track that could be read whole, e.g. from a bundle.

    Parameters
    ----------
    track
        The track.
    thorough
        Whether to look at every frame.

    """

    def __init__(self, track: Track, *, thorough: bool) -> None:
        self._track = track
        self.thorough = thorough
        self.damaged: dict[str, UncropError] = {}
        """What could not be read while checks looked at it."""

    @property
    def track(self) -> Track:
        """The track, with the cameras that are believed."""
        return self._track

    @cached_property
    def in_crop(self) -> Track:
        """The track with K of the crop, in which landmarks are; raises CheckSkipped."""
        try:
            return self.track.in_crop()
        except UncropError as error:
            raise CheckSkipped(f"K cannot be had in the crop: {error}") from None

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) frame ids of the track."""
        return self.track.frame_ids

    def sample(self, indices: Sequence[int], n: int) -> list[int]:
        """``n`` of the indices, or all of them if the validation is thorough."""
        return list(indices) if self.thorough else spread(indices, n)

    def vertices(self, index: int) -> Floats | None:
        """Mesh of one frame, (V, 3), metres; None if it is not there or damaged."""
        meshes = self.track.meshes
        if meshes is None:
            return None
        try:
            return meshes.vertices(index).astype(np.float64)
        except UncropError as error:
            self.damaged.setdefault(error.where, error)
            return None

    @property
    def with_landmarks(self) -> list[int]:
        """Positions of the frames that have landmarks, as far as they were read."""
        points = self.track.landmarks
        if points is None:
            return []
        return [int(i) for i in np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))]

    def require_landmarks(self) -> Floats:
        """Landmarks (N, 68, 2), edge-origin px of the crop; raises CheckSkipped."""
        points = self.track.landmarks
        if points is None or not self.with_landmarks:
            raise CheckSkipped("there are no landmarks")
        return points

    @property
    def with_mesh_files(self) -> list[int]:
        """Positions of the frames that have a mesh."""
        return list(range(len(self.ids))) if self.track.meshes is not None else []

    def comparable(self, n: int) -> list[int]:
        """Positions of ``n`` frames with landmarks and a readable mesh; raises CheckSkipped."""
        self.require_landmarks()
        meshes = set(self.with_mesh_files)
        there = [i for i in self.with_landmarks if i in meshes]
        picked = [i for i in self.sample(there, n) if self.vertices(i) is not None]
        if not picked:
            raise CheckSkipped("no frame has both landmarks and a mesh that can be read")
        return picked


def only(track: Track, picked: Sequence[int]) -> Track:
    """Return the track with landmarks at these frames only."""
    if track.landmarks is None:
        return track
    points = np.full_like(track.landmarks, np.nan)
    points[list(picked)] = track.landmarks[list(picked)]
    return replace(track, landmarks=points)
