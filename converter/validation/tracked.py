"""A metrical-tracker track as its files are: read leniently, so that one defect hides no other."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UncropError
from converter.geometry.crop import BBox, Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import Pose
from converter.media.files import read_bytes, scan_folder
from converter.media.images import list_images, read_size, render_crop
from converter.media.meshes import Mesh, read_mesh
from converter.media.torch_series import TorchSeries
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.cameras import (
    K_LIMIT_PX,
    REWRITTEN_TRANSLATION_LIMIT_M,
    ROTATION_LIMIT,
    TRANSLATION_LIMIT_M,
    K_rewrites,
    boxed_rewrites,
    known_poses,
    same_pose,
    tracked_intrinsics,
    tracked_pose,
)
from converter.sources.metrical_tracker.evidence import (
    MIN_SHARE,
    CropDifferences,
    fitting_meanings,
    landmark_share,
)
from converter.sources.metrical_tracker.files import (
    N_LANDMARKS,
    FolderFiles,
    FrameFiles,
    TrackFiles,
)
from converter.sources.metrical_tracker.folders import TrackFolders, find_folders
from converter.sources.metrical_tracker.numbering import Images, Numbering, find_numbering
from converter.sources.metrical_tracker.payload import (
    FramePayload,
    frame_from,
    stacked,
    unusable_block,
)
from converter.sources.metrical_tracker.reader import box_of_corners, read_bbox_numbers
from converter.track import Flame, ImageSpace, Provenance, Track
from converter.validation.evidence import (
    CheckSkipped,
    Evidence,
    KeptMeshes,
    Pictures,
    only,
    spread,
)

T = TypeVar("T")
_N_SIZES = 12
_N_SHARE_FRAMES = 8
_LANDMARK_STEP = 6
"""Of landmark files of the usual size every sixth is read: of more than five lost faces in a row,
one is seen."""
_N_LANDMARKS_READ = 64
_CONSTANT = ("shape", "tex")


@dataclass(frozen=True, slots=True)
class FrameFile:
    """One .frame: what it holds, or why it cannot be read.

    Attributes
    ----------
    path, number
        The file, and the number that it is named by.
    payload
        What it holds, unusable numbers included; None if it cannot be read.
    error
        Why it cannot be read.
    unusable
        A block with numbers that are not finite, and what is wrong in it.

    """

    path: Path
    number: int
    payload: FramePayload | None = None
    error: UncropError | None = None
    unusable: tuple[str, str] | None = None


@dataclass
class _Files(TrackFiles):
    """The track's files, with each image decoded once."""

    pictures: Pictures = field(default_factory=lambda: Pictures(ReadOptions().limits))

    def decode(self, path: Path) -> NDArray[np.uint8]:
        return self.pictures(path)

    def numbered_images(self, crop: Crop | None) -> Images:
        if self.images:
            images = self.images
            return Images(str(images[0].parent), len(images), lambda i: self.decode(images[i]),
                          random_access=True)  # fmt: skip
        if crop is not None and self.source_files:
            files = self.source_files
            return Images(str(files[0].parent), len(files),
                          lambda i: render_crop(self.decode(files[i]), crop), True)  # fmt: skip
        return super().numbered_images(crop)


@dataclass(frozen=True, slots=True, eq=False)
class StoredCameras:
    """The cameras of all usable frames as they are stored, and what became of them.

    Attributes
    ----------
    ids
        (N,) frame ids.
    K, pose
        (N, 3, 3), and poses: the opencv block.
    size
        Size of the images that the camera blocks speak of.
    has_block
        (N,) whether there is a camera block that makes a camera.
    block_K, block_pose
        K and poses by the camera blocks; NaN where there is none.
    K_off
        (N,) largest difference of both K, px; NaN where there is no block.
    K_cause
        Per frame: "" where both agree, the name of a known rewrite, "unknown", or "no block".
    K_text
        Name of a rewrite -> what happened.
    pose_cause
        Per frame: "" where both agree, "invalid" for what is no rotation, a sentence for a known
        rewrite, "unknown", or "no block".

    """

    ids: NDArray[np.int64]
    K: Floats
    pose: Pose
    size: Size
    has_block: NDArray[np.bool_]
    block_K: Floats  # noqa: N815
    block_pose: Pose
    K_off: Floats
    K_cause: NDArray[np.str_]
    K_text: dict[str, str]
    pose_cause: NDArray[np.str_]

    @property
    def K_believed(self) -> Floats:
        """K, from the camera block where the stored one differs: no script rewrites that."""
        known = ~np.isin(self.K_cause, ("", "no block"))
        return np.where(known[:, None, None], self.block_K, self.K)

    @property
    def pose_believed(self) -> Pose:
        """Poses, from the camera block where the stored one differs."""
        known = self.has_block & ~np.isin(self.pose_cause, ("", "no block"))
        return Pose(
            np.where(known[:, None, None], self.block_pose.R, self.pose.R),
            np.where(known[:, None], self.block_pose.t, self.pose.t),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ForkMeaning:
    """A rewrite of K that only landmarks tell.

    Attributes
    ----------
    what
        How K is to be read.
    track
        The track with K read so.
    share
        Share of the landmarks on the mesh with K as it is stored.

    """

    what: str
    track: Track
    share: float


class Tracked(Evidence):
    """A metrical-tracker track, read file by file; what is refused is kept as a fact.

    Parameters
    ----------
    path
        Any of its folders.
    options
        What the user says about it.
    thorough
        Whether to look at every frame.

    Raises
    ------
    UncropError
        If there is no track, or more than one.

    """

    def __init__(self, path: Path, options: ReadOptions, *, thorough: bool) -> None:
        self.path = path
        self.options = options
        self.thorough = thorough
        self.damaged = {}
        self.folders: TrackFolders = find_folders(path, options)
        self.listing = FrameFiles.of(self.folders.checkpoint)
        self.pictures = Pictures(options.limits)
        self.files = _Files(self.folders, options, self.pictures)
        self.numbering_error: UncropError | None = None
        self.bbox_error: UncropError | None = None
        self.crop_reason = "there is no bbox.pt"
        self.crop_differences: CropDifferences | None = None
        """What comparing images with the source gave; several checks read it."""
        self.reading_seconds = 0.0
        self._npy: dict[str, dict[str, os.DirEntry[str]]] = {}
        if len(self.listing.paths) > options.limits.frames:
            raise FormatError(
                self.folders.checkpoint, f"at most {options.limits.frames} frames",
                f"{len(self.listing.paths)}", "If it is genuine, raise the limit.",
            )  # fmt: skip

    def attempt(self, function: Callable[[], T]) -> T | None:
        """Call; an error is kept as damage, and gives None."""
        try:
            return function()
        except UncropError as error:
            self.damaged.setdefault(error.where, error)
            return None

    # --- .frame files -------------------------------------------------------------------------

    @cached_property
    def frames(self) -> list[FrameFile]:
        """Every .frame that is named by a number, each read once."""
        began = time.perf_counter()
        series, found = TorchSeries(self.options.limits), []
        kept: dict[str, Floats] = {}
        for index, path in enumerate(self.listing.paths):
            found.append(self._frame(path, series))
            _share(found[-1].payload, kept)
            self.options.progress("read frames", index + 1, len(self.listing.paths))
        self.reading_seconds = time.perf_counter() - began
        return found

    def _frame(self, path: Path, series: TorchSeries) -> FrameFile:
        number = int(path.stem)
        try:
            stored = series.parse(read_bytes(path, self.options.limits), path)
            payload = frame_from(stored, path, finite=False)
        except UncropError as error:
            return FrameFile(path, number, error=error)
        return FrameFile(path, number, payload, unusable=unusable_block(payload))

    @cached_property
    def payloads(self) -> list[FramePayload]:
        """What the readable frames hold, in order of their numbers; one per number."""
        found: dict[int, FramePayload] = {}
        for frame in self.frames:
            if frame.payload is not None:
                found.setdefault(frame.number, frame.payload)
        return list(found.values())

    @cached_property
    def usable(self) -> list[FramePayload]:
        """Those whose numbers are finite; raises CheckSkipped if there are none."""
        bad = {frame.path for frame in self.frames if frame.unusable is not None}
        usable = [p for p in self.payloads if p.path not in bad]
        if not usable:
            raise CheckSkipped("no .frame is readable")
        return usable

    @cached_property
    def usable_ids(self) -> list[int]:
        """Frame ids of `usable`, in its order."""
        return [int(p.path.stem) for p in self.usable]

    @cached_property
    def numbers(self) -> list[int]:
        """Numbers of all .frame files, readable or not, ascending."""
        return sorted({frame.number for frame in self.frames})

    # --- images -------------------------------------------------------------------------------

    @cached_property
    def image_sizes(self) -> dict[Path, Size]:
        """Sizes, by their headers, of the tracker's images and of its dumps of tracked frames."""
        dumps = [self.files.dumps[i] for i in self.numbers if i in self.files.dumps]
        found = {}
        for paths in (dumps, self.files.images):
            for path in paths if self.thorough else spread(paths, _N_SIZES):
                size = self.attempt(lambda path=path: read_size(path, self.options.limits))  # type: ignore[misc]
                if size is not None:
                    found[path] = size
        return found

    @cached_property
    def image_size(self) -> Size | None:
        """Size of the tracker's images: the most common one; None if there are none."""
        sizes = Counter(self.image_sizes.values())
        return sizes.most_common(1)[0][0] if sizes else None

    @cached_property
    def stated_size(self) -> Size | None:
        """What most frames say in img_size."""
        sizes = Counter(p.img_size for p in self.payloads if p.img_size is not None)
        return sizes.most_common(1)[0][0] if sizes else None

    @cached_property
    def source_size(self) -> Size | None:
        """Size of the source frames; None if there are none that can be read."""
        return self.attempt(lambda: self.files.source_size)

    def positions_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in the image sequence, by the numbering; raises CheckSkipped."""
        if self.offset is None:
            raise CheckSkipped("nothing shows which image belongs to which frame")
        return numbers + self.offset

    # --- the crop -----------------------------------------------------------------------------

    @cached_property
    def bbox(self) -> BBox | None:
        """The four numbers of bbox.pt, in whatever order; None if there are none."""
        path = self.folders.bbox
        if path is None:
            return None
        try:
            return read_bbox_numbers(path, self.options.limits)
        except UncropError as error:
            self.bbox_error = error
            self.crop_reason = "bbox.pt cannot be read"
            return None

    @cached_property
    def crop(self) -> Crop | None:
        """How the images were cut, as far as it is known; `crop_reason` says why it is not."""
        size = self.image_size or self.stated_size
        if size is None:
            self.crop_reason = "the size of the tracker's images is not known"
            return None
        try:
            return self._crop(size)
        except UncropError as error:
            self.crop_reason = str(error)
            return None

    def _crop(self, size: Size) -> Crop | None:
        source, bbox = self.source_size, self.bbox
        if self.is_whole:
            return Crop.whole(source, size) if source else None
        if bbox is None:
            return None
        if bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max:
            bbox = box_of_corners(bbox)
            if bbox is None:
                self.crop_reason = f"bbox {self.bbox} is no box"
                return None
        if size.width == size.height:
            return Crop.from_bbox(bbox, source, size)
        cut = bbox.clamped(source) if source else bbox
        if cut.size == size:
            return Crop(cut, 0, 0, source, size)
        self.crop_reason = f"bbox {bbox} cannot be the box of {size} images"
        return None

    @cached_property
    def is_whole(self) -> str:
        """Why the images are whole frames, resized; empty if they are not."""
        size = self.image_size
        if size is None:
            return ""
        return self.attempt(lambda: self.files.whole_frame(size)) or ""

    # --- numbering ----------------------------------------------------------------------------

    @cached_property
    def stated_offset(self) -> tuple[int | None, str]:
        """begin_frames as said by the user or the yaml, and who said it."""
        config = self.folders.config
        if self.options.begin_frames is not None:
            return self.options.begin_frames, "--begin-frames"
        return config.begin_frames, config.path.name if config.path else "yaml"

    @cached_property
    def numbering(self) -> Numbering | None:
        """Which image belongs to which frame; None if it is not known, see `numbering_error`."""
        stated, stated_by = self.stated_offset
        images = self.files.numbered_images(self.crop)
        dumps = self.files.dumps if images.count else {}
        if stated is None and not any(i in dumps for i in self.numbers):
            return None
        try:
            return find_numbering(
                self.numbers, dumps, images, stated, stated_by, self.options.limits,
                read_dump=self.files.decode,
            )  # fmt: skip
        except UncropError as error:
            self.numbering_error = error
            return None

    @cached_property
    def offset(self) -> int | None:
        """``position in sorted(images) - frame id``: by the numbering, or the likeliest."""
        if self.numbering is not None:
            return self.numbering.offset
        if self.numbering_error is None:
            return None
        stated = self.stated_offset[0]
        if stated is not None:
            return stated
        # All images were tracked, but for those before the first frame.
        n_before = len(self.files.image_names) - 1 - self.numbers[-1]
        return n_before if 0 <= n_before <= 2 else 0

    # --- cameras ------------------------------------------------------------------------------

    @cached_property
    def cameras(self) -> StoredCameras:
        """The cameras of all usable frames; raises CheckSkipped if there are none."""
        payloads = self.usable
        pose = Pose(stacked([p.R for p in payloads]), stacked([p.t for p in payloads]))
        K = stacked([p.K for p in payloads])
        n, size = len(payloads), self._block_size(payloads)
        has_block = np.zeros(n, bool)
        block_K, block_R = np.full((n, 3, 3), np.nan), np.full((n, 3, 3), np.nan)
        block_t = np.full((n, 3), np.nan)
        whole = [i for i, p in enumerate(payloads) if p.camera is not None]
        if whole:
            blocks = [payloads[i] for i in whole]
            poses = tracked_pose(blocks)
            intrinsics = tracked_intrinsics(blocks, size)
            if intrinsics is not None:
                usable = np.isfinite(poses.R).all(axis=(-1, -2)) & (intrinsics.fx > 0)
                has_block[whole] = usable
                block_K[whole], block_R[whole] = intrinsics.matrix, poses.R
                block_t[whole] = poses.t
        block_pose = Pose(block_R, block_t)
        K_off = np.abs(K - block_K).max(axis=(-1, -2))
        K_cause, K_text = self._K_causes(K, block_K, K_off, has_block, size)
        pose_cause = _pose_causes(pose, block_pose, has_block)
        return StoredCameras(
            np.array(self.usable_ids, np.int64),
            K, pose, size, has_block, block_K, block_pose, K_off, K_cause, K_text, pose_cause,
        )  # fmt: skip

    def _block_size(self, payloads: list[FramePayload]) -> Size:
        """Size at which most camera blocks agree with opencv.K; that of the images if none does."""
        stated, actual = self.stated_size, self.image_size
        other = actual or stated
        swapped = Size(other.height, other.width) if other else None
        # Of known images only another resolution is in question: a swap is a defect of K.
        sizes = (
            (stated, swapped) if actual is None else (actual, None if stated == swapped else stated)
        )
        candidates = list(dict.fromkeys(s for s in sizes if s is not None))
        if not candidates:
            raise CheckSkipped("neither img_size nor an image says how large the crops are")
        blocks = [p for p in payloads if p.camera is not None]
        fallback = actual or candidates[0]
        if not blocks:
            return fallback
        K = stacked([p.K for p in blocks])

        def n_agreeing(size: Size) -> int:
            tracked = tracked_intrinsics(blocks, size)
            if tracked is None:
                return 0
            return int((np.abs(K - tracked.matrix).max(axis=(-1, -2)) <= K_LIMIT_PX).sum())

        best = max(candidates, key=n_agreeing)
        return best if n_agreeing(best) else fallback

    def _K_causes(
        self,
        K: Floats,
        block_K: Floats,
        off: Floats,
        has_block: NDArray[np.bool_],
        size: Size,
    ) -> tuple[NDArray[np.str_], dict[str, str]]:
        causes = np.where(has_block, "", "no block").astype("U16")
        wrong = np.flatnonzero(has_block & ~(off <= K_LIMIT_PX))
        if not len(wrong):
            return causes, {}
        causes[wrong] = "unknown"
        k = block_K[wrong]
        tracked = Intrinsics(k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2], size)
        crop = self.crop
        texts: dict[str, str] = {}
        for rewrite in (*K_rewrites(K[wrong], tracked, crop), *boxed_rewrites(K[wrong], tracked)):
            explained = rewrite.explains(K[wrong]) & (causes[wrong] == "unknown")
            if explained.any():
                causes[wrong[explained]] = rewrite.name
                texts.setdefault(rewrite.name, rewrite.cause)
        return causes, texts

    # --- the record ---------------------------------------------------------------------------

    @cached_property
    def track(self) -> Track:
        """The usable frames with the cameras that are believed; raises CheckSkipped."""
        if self.fork_meaning is not None:
            return self.fork_meaning.track
        cameras = self.cameras
        return self.track_with(cameras.K_believed, cameras.pose_believed)

    @cached_property
    def fork_meaning(self) -> ForkMeaning | None:
        """What a K without a camera block beside it means, where it does not mean the crop's."""
        cameras = self.cameras
        if cameras.has_block.any() or self.says_source:
            return None
        stored = self.track_with(cameras.K, cameras.pose)
        points, meshes = self.all_landmarks(), self.meshes
        if points is None or meshes is None:
            return None
        found = np.asarray(np.isfinite(points).all(axis=(1, 2)))
        there = [i for i in self.with_mesh_files if found[i]]
        picked = [i for i in spread(there, _N_SHARE_FRAMES)
                  if self.attempt(partial(meshes.vertices, i)) is not None]  # fmt: skip
        share = landmark_share(only(stored, picked)) if picked else None
        if share is None or share >= MIN_SHARE:
            return None
        try:
            # All landmarks, since their movement over the track tells more than eight frames.
            fitting = fitting_meanings(only(stored, there))
        except UncropError:  # a damaged mesh, which is another check's finding
            return None
        if len(fitting) != 1:
            return None
        what, meant = fitting[0]
        return ForkMeaning(what, replace(meant, landmarks=points), share)

    def track_with(self, K: Floats, pose: Pose) -> Track:
        """Return the usable frames with these cameras."""
        cameras = self.cameras
        space, size = self._space(cameras)
        intrinsics = Intrinsics(K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], size)
        return Track(
            name=self.folders.name,
            frame_ids=cameras.ids,
            w2c=pose,
            intrinsics=intrinsics,
            image_space=space,
            crop=self.crop,
            fps=self.files.fps,
            flame=self._flame,
            landmarks=self.landmarks,
            meshes=self.meshes,
            provenance=Provenance("metrical-tracker"),
        )

    @cached_property
    def says_source(self) -> bool:
        """Whether, without a camera block, img_size says that K is that of the source frames."""
        actual, stated = self.image_size, self.stated_size
        rewritten = stated is not None and stated != actual and stated == self.source_size
        return rewritten and actual is not None and not self.cameras.has_block.any()

    def _space(self, cameras: StoredCameras) -> tuple[ImageSpace, Size]:
        stated = self.stated_size
        if self.says_source and stated is not None:
            return "source", stated
        return "crop", self.image_size or cameras.size

    @cached_property
    def _flame(self) -> Flame:
        def block(name: str) -> list[Floats]:
            found = [p.flame[name] for p in self.usable if name in p.flame]
            same = len(found) == len(self.usable) and len({f.shape for f in found}) == 1
            return found if same else []

        blocks = {name: block(name) for name in ("shape", "exp", "jaw", "eyelids")}
        moving = {n: stacked(b) for n, b in blocks.items() if b and n != "shape"}
        return Flame(
            shape=blocks["shape"][0] if blocks["shape"] else None,
            expression=moving.get("exp"),
            jaw=moving.get("jaw"),
            eyelids=moving.get("eyelids"),
        )

    @cached_property
    def landmark_status(self) -> dict[int, str]:
        """Frame id -> "found", "zeros" for a failed detection, "missing", "damaged", or "unread".

        "unread" is a file that was left out of the sample, see `landmarks`.
        """
        _ = self.landmarks
        return self._landmark_status

    @cached_property
    def landmarks(self) -> Floats | None:
        """Landmarks (N, 68, 2) of the usable frames; NaN where there are none, or not read yet.

        The tracker's own failed detections are float64, and what holds another number of points is
        of another size as well: so every file of an unusual size is read, and of the others every
        sixth (more of a short track). If one of those is not as it should be, all are read.
        """
        self._landmark_status: dict[int, str] = {}
        self.landmark_errors: dict[int, UncropError] = {}
        folder = self.folders.actor / "kpt" if self.folders.actor else None
        if folder is None or not folder.is_dir() or self.offset is None:
            return None
        self._landmarks = np.full((len(self.usable), N_LANDMARKS, 2), np.nan)
        sizes = self._npy_sizes("kpt")
        there: dict[int, int] = {}
        for index, number in enumerate(self.usable_ids):
            size = sizes.get(self.files.image_name(number + self.offset))
            self._landmark_status[number] = "missing" if size is None else "unread"
            if size is not None:
                there[index] = size
        usual = Counter(there.values()).most_common(1)[0][0] if there else 0
        alike = [index for index, size in there.items() if size == usual]
        sampled = alike[:: max(min(len(alike) // _N_LANDMARKS_READ, _LANDMARK_STEP), 1)]
        self._read_landmarks(index for index, size in there.items() if size != usual)
        if self.thorough or not self._read_landmarks(sampled):
            self._read_landmarks(alike)
        return self._landmarks

    def all_landmarks(self) -> Floats | None:
        """`landmarks`, with every file read: for checks that a sample would not do for."""
        if self.landmarks is not None:
            self._read_landmarks(range(len(self.usable)))
        return self.landmarks

    def _read_landmarks(self, indices: Iterable[int]) -> bool:
        """Read those that are there and were not read yet; return whether all are good."""
        good = True
        for index in indices:
            number = self.usable_ids[index]
            if self._landmark_status[number] != "unread":
                continue
            try:
                found = self.files.read_landmarks("kpt", number + (self.offset or 0), N_LANDMARKS)
            except UncropError as error:
                status = "damaged"
                self.landmark_errors[number] = error
            else:
                status = "zeros" if found is None else "found"
                if found is not None:
                    self._landmarks[index] = found
            self._landmark_status[number] = status
            good &= status == "found"
        return good

    def npy_names(self, folder: str) -> set[str]:
        """Names, without suffix, of the landmark files of kpt or kpt_dense."""
        return set(self._npy_entries(folder))

    def _npy_sizes(self, folder: str) -> dict[str, int]:
        """Name, without suffix -> bytes; -1 where that cannot be told."""
        return {name: _bytes_of(entry) for name, entry in self._npy_entries(folder).items()}

    def _npy_entries(self, folder: str) -> dict[str, os.DirEntry[str]]:
        actor = self.folders.actor
        if folder not in self._npy and actor is not None and (actor / folder).is_dir():
            entries = scan_folder(actor / folder)
            self._npy[folder] = {e.name[:-4]: e for e in entries if e.name.endswith(".npy")}
        return self._npy.get(folder, {})

    def files_of(self, folder: str, *suffixes: str) -> Mapping[int, Path] | None:
        """Frame id -> file, of a folder of the output; None if there is no such folder.

        Where a frame has files of several suffixes, the one of the last suffix counts.
        """
        path = self.folders.output / folder
        if not path.is_dir():
            return None
        names = sorted(entry.name for entry in scan_folder(path))
        found: dict[int, str] = {}
        for suffix in suffixes:
            stems = ((n[: -len(suffix)], n) for n in names if n.lower().endswith(suffix))
            found |= {int(s): n for s, n in stems if s.isascii() and s.isdecimal()}
        return FolderFiles(path, found)

    @cached_property
    def mesh_files(self) -> Mapping[int, Path]:
        """Frame id -> mesh."""
        return self.files_of("mesh", ".obj", ".ply") or {}

    @cached_property
    def meshes(self) -> KeptMeshes | None:
        """Meshes of the usable frames, each read once; None if there is none."""
        ids, files, first = self.usable_ids, self.mesh_files, None
        for number in (i for i in ids if i in files):
            first = self.attempt(lambda path=files[number]: read_mesh(path, self.options.limits))  # type: ignore[misc]
            if first is not None:
                break
        if first is None:
            return None
        reference: Mesh = first

        def read(index: int) -> NDArray[np.float32]:
            path = files.get(ids[index])
            if path is None:
                raise FormatError(self.folders.output / "mesh", f"{ids[index]:05d}.ply", "none")
            vertices = read_mesh(path, self.options.limits).vertices
            if vertices.shape != reference.vertices.shape:
                raise FormatError(
                    path, f"{len(reference.vertices)} vertices like the first mesh",
                    f"{len(vertices)}",
                )  # fmt: skip
            return vertices

        kept = KeptMeshes(first.faces, read)
        kept.n_frames = len(ids)
        return kept

    @cached_property
    def with_mesh_files(self) -> list[int]:
        """Positions of the usable frames that have a mesh file."""
        return [i for i, number in enumerate(self.usable_ids) if number in self.mesh_files]

    @cached_property
    def source_names(self) -> list[Path]:
        """Source frames, when they are a folder."""
        source = self.folders.source
        return list_images(source) if source is not None and source.is_dir() else []


def _share(payload: FramePayload | None, kept: dict[str, Floats]) -> None:
    """Keep one copy of what is the same in every frame: two thirds of its numbers."""
    for name in _CONSTANT if payload is not None else ():
        found, before = payload.flame.get(name), kept.get(name)  # type: ignore[union-attr]
        if found is None:
            continue
        if before is not None and found.tobytes() == before.tobytes():
            payload.flame[name] = before  # type: ignore[union-attr]
        else:
            kept[name] = found


def _bytes_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere
        return -1


def _pose_causes(stored: Pose, block: Pose, has_block: NDArray[np.bool_]) -> NDArray[np.str_]:
    defects = stored.rotation_defect()
    causes = np.where(has_block, "unknown", "no block").astype("U64")
    same = same_pose(stored, block, TRANSLATION_LIMIT_M) & has_block
    causes[same] = ""
    if not same.all() and has_block.any():
        for cause, written in known_poses(block):
            meant = same_pose(stored, written, REWRITTEN_TRANSLATION_LIMIT_M)
            causes[meant & (causes == "unknown")] = cause
        # With another translation beside it, which pose-differs names.
        turned = Pose(np.swapaxes(block.R, -1, -2), stored.t)
        meant = same_pose(stored, turned, TRANSLATION_LIMIT_M)
        causes[meant & (causes == "unknown")] = "R is transposed"
    causes[~(defects <= ROTATION_LIMIT)] = "invalid"
    return causes
