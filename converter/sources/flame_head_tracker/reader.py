"""Reading a whole flame-head-tracker track."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.errors import (
    ConventionError,
    FormatError,
    MissingInputError,
    UncropError,
    UnsafeFileError,
)
from converter.findings import Finding, counted
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import (
    Pose,
    matrix_from_rotation_vector,
    rotation_6d_from_matrix,
)
from converter.media.files import sha256_of
from converter.media.images import ImageFiles, list_images
from converter.media.video import VideoFrames, probe
from converter.registry import ReadOptions
from converter.sources.flame_head_tracker import alignment, cameras
from converter.sources.flame_head_tracker.frames import ResultImages
from converter.sources.flame_head_tracker.results import (
    DEFAULT_FOV_DEG,
    Result,
    find_results,
    fitted_image,
    is_realigned,
    read_result,
)
from converter.track import Flame, Frames, Image, InputFile, Provenance, Track, VideoFile
from fitting.similarity import Similarity

TRACKER = "flame-head-tracker"
_DEFAULT_FPS = 25.0
_SAMPLING_HZ = (30.0, 25.0, 24.0, 20.0, 15.0, 12.5, 12.0, 10.0, 5.0)
_MUCH_BETTER = 0.7
_N_SAMPLES = 3
_SHAPE_RELATIVE = 1e-6
# Roughly where FLAME's neck turns the head, and how far above it the head reaches.
_NECK_M = np.array([0.0, -0.09, -0.03])
_HEAD_M = np.array([[x, y, z] for x in (-0.08, 0.08) for y in (-0.1, 0.1) for z in (-0.09, 0.09)])


def read_track(path: Path, options: ReadOptions) -> Track:
    """Read a track; with ``options.source`` its cameras reach the original frames.

    Raises
    ------
    UncropError
        One clear line; what cannot be carried over becomes a Finding.

    """
    for option, value in (("--actor", options.actor), ("--bbox", options.bbox),
                          ("--begin-frames", options.begin_frames)):  # fmt: skip
        if value is not None:
            raise FormatError(
                option, "a metrical-tracker track to use it with", f"{path}",
                "flame-head-tracker has no such thing; give --source VIDEO.",
            )  # fmt: skip
    folder, files = find_results(path)
    return _Reader(folder, files, options).read()


@dataclass(frozen=True, slots=True)
class _Source:
    """The original frames: all of them, and which one each result is."""

    frames: Frames
    indices: NDArray[np.int64]
    fps: float
    video: VideoFile | None


@dataclass
class _Reader:
    """Carries what several steps of one reading share."""

    folder: Path
    files: list[tuple[int, Path]]
    options: ReadOptions
    findings: list[Finding] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def read(self) -> Track:
        results = self._results()
        paths = tuple(r.path for r in results)
        size = Size.of(fitted_image(paths[0], self.options.limits))
        fitted = ResultImages(paths, size, self.options.limits)
        realigned = is_realigned(paths[0], self.options.limits)
        w2c, k = cameras.poses(results), cameras.fitted_intrinsics(results, size)
        self._note(results, w2c, k)
        fids = np.array([r.fid for r in results], np.int64)
        source = self._source(fids, fitted if realigned else None)
        landmarks = self._landmarks(results)
        track = Track(
            name=re.sub(r"[^0-9A-Za-z_-]", "_", self.folder.absolute().name)[:64] or "track",
            frame_ids=fids,
            w2c=w2c,
            intrinsics=k,
            image_space="crop",
            crop=None,
            source_indices=fids if source is None else source.indices,
            fps=(self.options.fps or _DEFAULT_FPS) if source is None else source.fps,
            flame=_flame(results),
            landmarks=None if landmarks is None else landmarks * [size.width, size.height],
            crop_frames=fitted,
            video=None if source is None else source.video,
            provenance=Provenance(TRACKER, self._inputs(paths)),
        )
        placed = self._placed(track, results, landmarks, source, realigned)
        placed.require_consistent()
        return placed.with_findings(self.findings, self.steps)

    # --- results ------------------------------------------------------------------------------

    def _results(self) -> list[Result]:
        results, damaged = [], []
        for done, (fid, path) in enumerate(self.files, start=1):
            try:
                results.append(read_result(path, fid, self.options.limits))
            except UncropError as error:
                if not self.options.skip_damaged or isinstance(error, UnsafeFileError):
                    raise
                damaged.append((path, error))
            self.options.progress("read frames", done, len(self.files))
        if damaged:
            names = ", ".join(p.name for p, _ in damaged[:5])
            self._warn("frames-damaged", self.folder, f"{len(damaged)} of {len(self.files)} "
                       f"frames left out as damaged ({names}): {damaged[0][1]}")  # fmt: skip
        if not results:
            raise FormatError(self.folder, "readable results", f"none of {len(self.files)}")
        return results

    def _note(self, results: Sequence[Result], w2c: Pose, k: Intrinsics) -> None:
        """Say what is missing, assumed, and cannot be carried over."""
        first, last = results[0].fid, results[-1].fid
        if last - first + 1 > len(results):
            self._warn("frames-missing", self.folder, f"{last - first + 1 - len(results)} of "
                       f"{last - first + 1} frames are missing: no face was found.",
                       "The others keep their images and times.")  # fmt: skip
        n_assumed = sum(r.fov_deg is None for r in results)
        if n_assumed:
            self._warn("fov-assumed", self.folder, f"{n_assumed} of {len(results)} results do not "
                       f"say their field of view; {DEFAULT_FOV_DEG:g} degrees, the default of "
                       "their release, are taken.",
                       "If update_fov was called, every distance is wrong.")  # fmt: skip
        shapes = np.stack([r.shape for r in results])
        spread = float(np.abs(shapes - shapes[0]).max())
        if spread > _SHAPE_RELATIVE * float(np.abs(shapes).max(initial=0.0)):
            fix = "The first frame's is kept. Were they tracked as single images?"
            self._warn("flame-varies", self.folder, "shape differs between frames.", fix)
        self._note_neck(results, w2c, k)
        self.findings.append(
            Finding("flame-unread", "info", "flame", "eyelids: the tracker has none; texture "
                    "(BFM) and light are of another model and are left out.")
        )  # fmt: skip

    def _note_neck(self, results: Sequence[Result], w2c: Pose, k: Intrinsics) -> None:
        """The neck turns the head apart from the camera; no other format here holds that."""
        necks = np.stack([r.neck for r in results])
        if not necks.any():
            return
        turned = matrix_from_rotation_vector(necks)
        moved = (_HEAD_M - _NECK_M) @ np.swapaxes(turned, -1, -2) + _NECK_M
        off = np.linalg.norm(k.project(w2c(moved)) - k.project(w2c(_HEAD_M)), axis=-1)
        worst = float(np.nanmax(off))
        self._warn(
            "neck-lost", "neck_pose",
            f"turns the head by up to {np.degrees(np.linalg.norm(necks, axis=1).max()):.1f} "
            "degrees (photometric mode) and is left out: cameras alone cannot hold it. Without "
            f"FLAME the change is about {worst:.0f} px of the {k.size} square at most.",
            "Track in landmark mode for cameras that hold the whole motion.",
        )  # fmt: skip

    def _landmarks(self, results: Sequence[Result]) -> Floats | None:
        """Landmarks (N, 68, 2) as parts of the fitted image's sides; NaN where there are none."""
        if all(r.landmarks is None for r in results):
            self._warn("landmarks-missing", self.folder, "no result holds lmks_68.")
            return None
        lost = np.full((68, 2), np.nan)
        return np.stack([lost if r.landmarks is None else r.landmarks for r in results])

    # --- the original frames ------------------------------------------------------------------

    def _source(self, fids: NDArray[np.int64], cuts: Frames | None) -> _Source | None:
        path = self.options.source
        if path is None:
            return None
        if not path.exists():
            raise MissingInputError(path, "what --source names", "nothing", "Check its spelling.")
        if path.is_dir():
            return self._source_folder(path, fids)
        rate = probe(path, self.options.limits).rate_hz
        whole = VideoFrames(path, rate, limits=self.options.limits)
        sampled = self.options.fps or (
            self._sampling(whole, rate, fids, cuts) if cuts is not None else rate
        )
        if not 0 < sampled <= rate * 1.001:
            raise ConventionError("--fps", f"at most {rate:g}, the video's own rate",
                                  f"{sampled:g}")  # fmt: skip
        indices = _sampled(fids, rate, sampled)
        if indices[-1] >= len(whole):
            raise MissingInputError(
                path, f"frame {indices[-1]} of the video, for {fids[-1]}",
                counted(len(whole), "frame"),
                "Is it the video that was tracked? Give --fps if it was sampled at a lower rate.",
            )  # fmt: skip
        frames = VideoFrames(path, rate, indices.tolist(), self.options.limits)
        return _Source(frames, indices, rate, VideoFile(path.name, lambda: path))

    def _source_folder(self, path: Path, fids: NDArray[np.int64]) -> _Source:
        files = list_images(path)
        if fids[-1] >= len(files):
            raise MissingInputError(path, counted(int(fids[-1]) + 1, "image"), f"{len(files)}")
        frames = ImageFiles.of([files[int(i)] for i in fids], self.options.limits)
        return _Source(frames, fids, self.options.fps or _DEFAULT_FPS, None)

    def _sampling(
        self, whole: VideoFrames, rate: float, fids: NDArray[np.int64], cuts: Frames
    ) -> float:
        """The rate at which the tracker sampled the video, by content: it is saved nowhere."""
        rates = [rate, *(hz for hz in _SAMPLING_HZ if hz < 0.999 * rate)]
        picks = np.unique(np.linspace(0, len(fids) - 1, _N_SAMPLES).round().astype(int))
        wanted = {hz: _sampled(fids, rate, hz)[picks] for hz in rates}
        wanted = {hz: places for hz, places in wanted.items() if places[-1] < len(whole)}
        if len(wanted) < 2:
            return rate
        needed = sorted({int(i) for places in wanted.values() for i in places})
        pictures = dict(zip(needed, VideoFrames(whole.path, rate, needed).stream(
            range(len(needed))), strict=True))  # fmt: skip
        cost = {
            hz: sum(
                alignment.mismatch(cuts.read(int(p)), pictures[int(i)])
                for p, i in zip(picks, places, strict=True)
            )
            for hz, places in wanted.items()
        }
        best = min(cost, key=lambda hz: cost[hz])
        if rate in cost and cost[best] > _MUCH_BETTER * cost[rate]:
            return rate
        self.steps.append(
            f"the video's {rate:g} frames a second were sampled at {best:g}, by comparing "
            f"{counted(len(picks), 'image')}"
        )
        return best

    def _placed(
        self,
        track: Track,
        results: Sequence[Result],
        landmarks: Floats | None,
        source: _Source | None,
        realigned: bool,
    ) -> Track:
        """The track with cameras of the original frames, as far as these are there."""
        if not realigned:
            return self._squeezed(track, results, landmarks, source)
        if source is None:
            self._warn(
                "squares-only", track.name, "its cameras speak of the rotated squares that the "
                "tracker cut; where these lie in the video is not saved.",
                "Give --source VIDEO to bring them into the original frames.",
            )  # fmt: skip
            return track
        cuts = track.crop_frames
        if cuts is None:
            return track
        found, said = alignment.find_squares(
            cuts, source.frames, self.folder.name, self.options.progress
        )
        self.findings += said
        alignment.require_own_frames(cuts, found, self._neighbour(source))
        maps = [r.similarity for r in found]
        placed = self._in_frames(track, maps, source)
        if placed.landmarks is not None:
            known = np.flatnonzero(np.isfinite(placed.landmarks).all(axis=(1, 2)))
            self.findings += alignment.name_formula(
                [maps[i] for i in known], [placed.landmarks[i] for i in known], cuts.size.width
            )
        return placed

    def _in_frames(self, track: Track, maps: list[Similarity], source: _Source) -> Track:
        size = source.frames.size
        w2c, k = cameras.in_frames(track.w2c, track.intrinsics, maps, size)
        points = track.landmarks
        if points is not None:
            points = np.stack([m(p) for m, p in zip(maps, points, strict=True)])
        scales = np.array([m.scale for m in maps])
        self.steps.append(
            f"cameras moved from the squares into the {size} frames: scale {scales.min():.3f} to "
            f"{scales.max():.3f}, roll {np.degrees([m.angle for m in maps]).min():.1f} to "
            f"{np.degrees([m.angle for m in maps]).max():.1f} degrees"
        )
        return replace(
            track,
            w2c=w2c,
            intrinsics=k,
            image_space="source",
            crop=Crop.whole(size, size),
            landmarks=points,
            crop_frames=None,
            source_frames=source.frames,
        )

    def _squeezed(
        self,
        track: Track,
        results: Sequence[Result],
        landmarks: Floats | None,
        source: _Source | None,
    ) -> Track:
        """``realign=False``: the whole frame, squeezed to a square for the tracker."""
        frames = track.crop_frames if source is None else source.frames
        if frames is None:
            return track
        size = frames.size
        k = cameras.fitted_intrinsics(results, size)
        self.steps.append(f"fitted to whole frames squeezed to a square; fx {np.mean(k.fx):.2f}, "
                          f"fy {np.mean(k.fy):.2f} px of the {size} frame")  # fmt: skip
        points = None if landmarks is None else landmarks * [size.width, size.height]
        return replace(
            track,
            intrinsics=k,
            image_space="source",
            crop=Crop.whole(size, size),
            landmarks=points,
            crop_frames=None,
            source_frames=frames,
        )

    def _neighbour(self, source: _Source) -> Callable[[int, int], Image | None]:
        """How `alignment.require_own_frames` reads the frame beside one."""
        frames = source.frames
        positions = {int(i): n for n, i in enumerate(source.indices)}

        def read(index: int, step: int) -> Image | None:
            place = int(source.indices[index]) + step
            if isinstance(frames, VideoFrames):
                return self._video_frame(frames, source.fps, place)
            return frames.read(positions[place]) if place in positions else None

        return read

    def _video_frame(self, frames: VideoFrames, rate: float, place: int) -> Image | None:
        if place < 0:
            return None
        try:
            return VideoFrames(frames.path, rate, [place], self.options.limits).read(0)
        except UncropError:
            return None

    @cached_property
    def _version(self) -> str:
        return "v1.1 to v3.3" if self.files[0][1].suffix == ".npy" else "v3.4 or later"

    def _inputs(self, paths: Sequence[Path]) -> tuple[InputFile, ...]:
        """What went in, by hash; all results together as one entry."""
        if not self.options.hash_inputs:
            return ()
        together, n_bytes = hashlib.sha256(), 0
        for path in paths:
            together.update(path.name.encode() + bytes.fromhex(sha256_of(path)))
            n_bytes += path.stat().st_size
        name = f"{self.folder.name} ({counted(len(paths), 'file')} of {self._version})"
        inputs = [InputFile(name, n_bytes, together.hexdigest())]
        source = self.options.source
        if source is not None and source.is_file():
            inputs.append(InputFile(source.name, source.stat().st_size, sha256_of(source)))
        return tuple(inputs)

    def _warn(self, check: str, where: object, message: str, fix: str = "") -> None:
        self.findings.append(Finding(check, "warning", str(where), message, fix=fix))


def _sampled(fids: NDArray[np.int64], rate: float, sampled: float) -> NDArray[np.int64]:
    """Frame of the video behind each fid: ``int(fid rate / sampled)`` (tracker_video.py)."""
    indices: NDArray[np.int64] = np.floor(fids * (rate / sampled) + 1e-9).astype(np.int64)
    return indices


def _flame(results: Sequence[Result]) -> Flame:
    eyes = [r.eyes for r in results if r.eyes is not None]
    return Flame(
        shape=results[0].shape,
        expression=np.stack([r.expression for r in results]),
        jaw=_rows(np.stack([r.jaw for r in results])),
        eyes=None
        if len(eyes) < len(results)
        else np.concatenate([_rows(np.stack(eyes)[:, :3]), _rows(np.stack(eyes)[:, 3:])], axis=1),
    )


def _rows(vectors: Floats) -> Floats:
    """Two rows of the rotation matrices of rotation vectors (N, 3): (N, 6)."""
    return rotation_6d_from_matrix(matrix_from_rotation_vector(vectors))
