"""Track: the one record that every source produces and every target consumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError, MissingInputError
from converter.findings import Finding, counted
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.geometry.pose import Pose

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8, channels in OpenCV's order: blue, green, red."""

ImageSpace: TypeAlias = Literal["crop", "source"]


class Frames(Protocol):
    """Images that belong to a track, one per track frame, read when asked for."""

    @property
    def size(self) -> Size:
        """Size of every image, px; read from headers, without decoding."""

    @property
    def origin(self) -> str:
        """Where the images come from, for messages: a folder or a video."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name of one image inside its origin, for messages."""

    def read(self, index: int) -> Image:
        """Decode the image of track frame ``index`` (a position, not a frame id)."""

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Decode images one after the other, in ascending order, in bounded memory."""


class Meshes(Protocol):
    """One triangle mesh per track frame with common faces, read when asked for."""

    @property
    def faces(self) -> NDArray[np.int32]:
        """Triangles, shape (F, 3)."""

    def __len__(self) -> int: ...

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of track frame ``index``, shape (V, 3), world space, metres."""

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the vertices over all frames, shape (V, 3), metres."""


class DepthMaps(Protocol):
    """One depth map per track frame, of the crop, read when asked for."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint16]:
        """Map of track frame ``index``: (H, W), camera-space z in mm, 0 where nothing is."""


@dataclass(frozen=True, slots=True)
class Flame:
    """FLAME coefficients as the tracker optimised them; a block that is absent is None.

    Attributes
    ----------
    shape, texture
        Constant over the track: (300,), (140,).
    expression, jaw, eyes, eyelids, light
        Per frame: (N, 100); jaw (N, 6) and eyes (N, 12; left then right) as 6D rotations whose six
        numbers are the first two rows; eyelids (N, 2; left, right); light (N, 9, 3), spherical
        harmonics.

    """

    shape: Floats | None = None
    texture: Floats | None = None
    expression: Floats | None = None
    jaw: Floats | None = None
    eyes: Floats | None = None
    eyelids: Floats | None = None
    light: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CentralCameras:
    """Cameras that show the source frames under a K whose principal point is the image centre.

    An estimate, kept beside the tracker's own cameras and never instead of them, for trainers that
    can hold no other K (`fitting.pose.refit_central`).

    Attributes
    ----------
    w2c
        World-to-camera poses, batch of N, as `Track.w2c`.
    intrinsics
        One central K with fx = fy, px of the source frame; of one with odd sides, without its last
        column or row.
    median_px, max_px
        (N,) how far the vertices of each frame's mesh are from where the tracker's cameras put
        them, source px.

    """

    w2c: Pose
    intrinsics: Intrinsics
    median_px: Floats
    max_px: Floats

    @property
    def residual_px(self) -> tuple[float, float]:
        """Median over frames of the medians; largest of all."""
        return float(np.median(self.median_px)), float(self.max_px.max())

    @property
    def residual_text(self) -> str:
        """The residual in words."""
        median, worst = self.residual_px
        return f"{median:.3f} px (median), {worst:.3f} px at most"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """The video behind a track, for its sound: its name, and how to get at the file."""

    name: str
    locate: Callable[[], Path]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file that went into a track: its path as given, size in bytes, and SHA-256."""

    path: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a track comes from: the tracker, the input files, and every step taken since."""

    tracker: str
    inputs: tuple[InputFile, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A tracked head: one rigid camera per frame, and whatever else the tracker left.

    Attributes
    ----------
    name
        Name of the track, safe as a file name.
    frame_ids
        (N,) int64, ascending; gaps are frames that the tracker lost.
    w2c
        World-to-camera poses, batch of N; the world is the head (FLAME space), metres.
    intrinsics
        K of the images of `image_space`; one for all frames, or a batch of N.
    image_space
        Which image K speaks of. `in_source` and `in_crop` are the only ways across.
    crop
        How the crops sit in the source frames; None when that is not known.
    source_indices, times
        (N,) position of each frame in the source sequence, counted from 0, and its time, seconds.
    fps
        Frames per second of the source sequence.
    landmarks
        (N, 68, 2) edge-origin px of the **crop**, NaN where the detector found no face; or None.
    dense_landmarks
        (N, 478, 2), MediaPipe, likewise.
    meshes, crop_frames, source_frames, video
        Read when asked for.
    depth
        Maps that the tracker rendered of its mesh through `w2c`; other poses make them wrong.
    central
        The same picture under a central K, where it was fitted; `w2c` and `intrinsics` stay the
        tracker's.
    native
        What only this tracker knows, kept for writing its own format back: name -> array.
    findings
        What was repaired, left out or doubted while reading.

    """

    name: str
    frame_ids: NDArray[np.int64]
    w2c: Pose
    intrinsics: Intrinsics
    image_space: ImageSpace
    crop: Crop | None
    source_indices: NDArray[np.int64] | None = None
    fps: float = 25.0
    flame: Flame = field(default_factory=Flame)
    landmarks: Floats | None = None
    dense_landmarks: Floats | None = None
    meshes: Meshes | None = None
    depth: DepthMaps | None = None
    crop_frames: Frames | None = None
    source_frames: Frames | None = None
    video: VideoFile | None = None
    central: CentralCameras | None = None
    native: dict[str, NDArray[Any]] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=lambda: Provenance("unknown"))
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.frame_ids)

    @property
    def times(self) -> Floats | None:
        """Time of each frame in the source sequence, seconds."""
        return None if self.source_indices is None else self.source_indices / self.fps

    def with_findings(self, findings: Sequence[Finding], steps: Sequence[str] = ()) -> Track:
        """Return the track with more findings, and more steps in its provenance."""
        provenance = replace(self.provenance, steps=(*self.provenance.steps, *steps))
        return replace(self, findings=(*self.findings, *findings), provenance=provenance)

    def require_crop(self) -> Crop:
        """Return `crop`.

        Raises
        ------
        MissingInputError
            If it is not known.

        """
        if self.crop is None:
            raise MissingInputError(
                self.name,
                "the crop (bbox.pt)",
                "none",
                "Give --bbox FILE, or --actor DIR if it lies in the actor folder.",
            )
        return self.crop

    def _require_size(self, size: Size | None) -> None:
        """Raise ConventionError unless K speaks of an image of ``size``, as far as it is known."""
        if size is not None and self.intrinsics.size != size:
            raise ConventionError(
                f"{self.name}: intrinsics",
                f"K of the {size} {self.image_space}",
                f"K of a {self.intrinsics.size} image",
                "Does the crop belong to this track?",
            )

    def _map(self, space: ImageSpace, affine: PixelAffine, size: Size) -> Track:
        return replace(self, intrinsics=self.intrinsics.map(affine, size), image_space=space)

    def in_source(self) -> Track:
        """Return the track with K of the source frame; the pose does not change.

        Raises
        ------
        MissingInputError
            If the crop, or the size of the source frame, is not known.
        ConventionError
            If K speaks of an image of another size than the crop.

        """
        if self.image_space == "source":
            return self
        crop = self.require_crop()
        if crop.source is None:
            raise MissingInputError(
                self.name,
                "the source frames or the video, for their size",
                "neither",
                "Give --source DIR_OR_VIDEO.",
            )
        self._require_size(crop.output)
        return self._map("source", crop.source_from_crop, crop.source)

    def in_crop(self) -> Track:
        """Return the track with K of the crop; the pose does not change.

        Raises
        ------
        MissingInputError
            If the crop is not known.
        ConventionError
            If K speaks of an image of another size than the source.

        """
        if self.image_space == "crop":
            return self
        crop = self.require_crop()
        self._require_size(crop.source)
        return self._map("crop", crop.crop_from_source, crop.output)

    def project(self, index: int, points: Floats) -> Floats:
        """Project world points (P, 3) through frame ``index`` to px of `image_space`, (P, 2)."""
        return self.intrinsics[index].project(self.w2c[index](points))

    def require_consistent(self) -> None:
        """Raise ConventionError unless the parts agree with each other.

        Frames are counted alike by all parts, ids ascend, poses are rotations, K is finite and
        speaks of the image of `image_space`.
        """
        n = len(self)
        if n == 0:
            raise ConventionError(self.name, "at least one frame", "none")
        if np.any(np.diff(self.frame_ids) <= 0):
            raise ConventionError(f"{self.name}: frame_ids", "ascending ids", "another order")
        if self.w2c.R.ndim != 3:
            raise ConventionError(f"{self.name}: w2c", "one pose per frame", "one pose")
        per_frame = {
            name: getattr(self.flame, name)
            for name in ("expression", "jaw", "eyes", "eyelids", "light")
        }
        lengths = {
            "w2c": len(self.w2c),
            "intrinsics": self.intrinsics.n_frames,
            "source_indices": None if self.source_indices is None else len(self.source_indices),
            "landmarks": None if self.landmarks is None else len(self.landmarks),
            "dense_landmarks": None if self.dense_landmarks is None else len(self.dense_landmarks),
            "meshes": None if self.meshes is None else len(self.meshes),
            "depth": None if self.depth is None else len(self.depth),
            "crop_frames": None if self.crop_frames is None else len(self.crop_frames),
            "source_frames": None if self.source_frames is None else len(self.source_frames),
            "central": None if self.central is None else len(self.central.w2c),
            **{f"flame.{k}": None if v is None else len(v) for k, v in per_frame.items()},
        }
        for what, length in lengths.items():
            if length is not None and length != n:
                raise ConventionError(f"{self.name}: {what}", counted(n, "frame"), f"{length}")
        self.w2c.require_rotation(f"{self.name}: w2c")
        if self.central is not None:
            self.central.w2c.require_rotation(f"{self.name}: central")
        if not np.isfinite(self.intrinsics.matrix).all():
            raise ConventionError(f"{self.name}: intrinsics", "finite numbers", "NaN or infinity")
        if np.any(np.less_equal(self.intrinsics.fx, 0) | np.less_equal(self.intrinsics.fy, 0)):
            raise ConventionError(f"{self.name}: intrinsics", "focal lengths > 0", "others")
        if self.crop is not None:
            in_crop = self.image_space == "crop"
            self._require_size(self.crop.output if in_crop else self.crop.source)
