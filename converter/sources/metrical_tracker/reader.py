"""Reading a whole metrical-tracker track."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, Size
from converter.media.archive import DAMAGED
from converter.media.depth import DepthFiles
from converter.media.files import read_bytes, sha256_of
from converter.media.images import (
    ImageFiles,
    read_size,
)
from converter.media.limits import Limits
from converter.media.meshes import MeshFiles
from converter.media.torch_series import TorchSeries
from converter.media.torchfile import read_torch
from converter.media.video import VideoFrames
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.cameras import (
    Cameras,
    leftover_frames,
    read_cameras,
    stated_size,
)
from converter.sources.metrical_tracker.config import require_fps
from converter.sources.metrical_tracker.evidence import landmark_residuals, settle_image_space
from converter.sources.metrical_tracker.files import (
    LARGEST_EDGE,
    N_DENSE_LANDMARKS,
    N_LANDMARKS,
    FrameFiles,
    TrackFiles,
)
from converter.sources.metrical_tracker.folders import find_folders
from converter.sources.metrical_tracker.lost_bbox import numbered_crops, recover_or_say
from converter.sources.metrical_tracker.numbering import (
    Images,
    Numbering,
    find_numbering,
    video_places,
)
from converter.sources.metrical_tracker.payload import FramePayload, frame_from, read_frame
from converter.track import Flame, Frames, InputFile, Provenance, Track, VideoFile

_BBOX_REMEDY = "Is it the tracker's own bbox.pt?"
# Measured: 0.62 one frame off, where the head moves 0.7 px per frame (spec, 3.10).
_LAG_RATIO = 0.8
_CONSTANT_RELATIVE = 1e-6


def read_track(path: Path, options: ReadOptions) -> Track:
    """Read a track from any of its folders.

    Raises
    ------
    UncropError
        One clear line; what can be repaired with certainty is repaired and becomes a Finding.

    """
    return _Reader(find_folders(path, options), options).read()


def read_bbox(path: Path, limits: Limits) -> BBox:
    """Read bbox.pt: ``[x_min, x_max, y_min, y_max]`` as array, tensor, list or numpy scalars.

    Source: datasets/generate_dataset.py:65-68, image.py:42.

    Raises
    ------
    FormatError, UnsafeFileError
        If the file is damaged or holds anything but four whole numbers.
    ConventionError
        If they are in another order.

    """
    bbox = read_bbox_numbers(path, limits)
    if bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max:
        box = box_of_corners(bbox)
        hint = f" Its corners would be {box}." if box else ""
        raise ConventionError(
            path,
            "x_min < x_max and y_min < y_max in the order x_min, x_max, y_min, y_max",
            f"{bbox}" + (", the order x_min, y_min, x_max, y_max" if box else ""),
            f"Use the bbox.pt that the tracker wrote.{hint}",
        )
    return bbox


def box_of_corners(bbox: BBox) -> BBox | None:
    """What ``bbox`` is if its numbers are x_min, y_min, x_max, y_max; None if they cannot be."""
    box = BBox(bbox.x_min, bbox.y_min, bbox.x_max, bbox.y_max)
    return box if box.x_min < box.x_max and box.y_min < box.y_max else None


def read_bbox_numbers(path: Path, limits: Limits) -> BBox:
    """Read the four numbers of bbox.pt in whatever order; raises as `read_bbox`."""
    content = read_torch(path, limits).content
    expected = "four whole numbers x_min, x_max, y_min, y_max"
    if not isinstance(content, list | tuple | np.ndarray):
        raise FormatError(path, expected, f"a {type(content).__name__}", _BBOX_REMEDY)
    try:
        values = np.asarray(content)
    except ValueError:  # lists in lists of different lengths
        raise FormatError(path, expected, "a ragged list", _BBOX_REMEDY) from None
    if values.dtype.kind not in "fiu":
        found = "text" if values.dtype.kind == "U" else f"{values.dtype.name} values"
        raise FormatError(path, expected, found, _BBOX_REMEDY)
    if values.size != 4 or not np.all(np.abs(values) <= LARGEST_EDGE) or np.any(values % 1):
        raise FormatError(path, expected, f"{values.tolist()}"[:80], _BBOX_REMEDY)
    return BBox(*(int(v) for v in values.ravel()))


def _or_skip(error: UncropError) -> UncropError:
    """Return the error of one frame; that of a damaged file with the other way out of it."""
    if error.remedy != DAMAGED:
        return error
    remedy = f"{DAMAGED} --skip-damaged leaves the frame out."
    return FormatError(error.where, error.expected, error.found, remedy)


@dataclass
class _Reader(TrackFiles):
    """Carries what several steps of one reading share."""

    findings: list[Finding] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    hashes: dict[Path, tuple[bytes, int]] = field(default_factory=dict)
    """SHA-256 and size of each .frame, if they are wanted."""

    def read(self) -> Track:
        self._check_options()
        self.findings += self.folders.findings
        payloads = self._payloads()
        ids = [int(p.path.stem) for p in payloads]
        crop_size = self._crop_size(payloads)
        crop = self._crop(crop_size, ids)
        cameras = read_cameras(payloads, crop_size, self.source_size, crop)
        self.findings += cameras.findings
        numbering = self._numbering(ids, crop)
        track = self._track(payloads, cameras, crop, numbering)
        track, evidence = settle_image_space(
            track, spread=self._looks_everywhere(), hold_intrinsics=self.options.hold_intrinsics
        )
        self.findings += evidence
        if numbering is not None and not numbering.by_content:
            self._check_stated_numbering(track, numbering)
        track.require_consistent()
        return track.with_findings(self.findings, self.steps)

    def _check_options(self) -> None:
        require_fps(self.options.fps)
        begin = self.options.begin_frames
        if begin is not None and begin < 0:
            raise ConventionError(
                "--begin-frames", "0 or more", f"{begin}",
                "It is the number of images before frame 0.",
            )  # fmt: skip

    # --- .frame files -------------------------------------------------------------------------

    def _payloads(self) -> list[FramePayload]:
        paths = self._frame_paths()
        payloads, damaged = [], []
        series = TorchSeries(self.options.limits)
        for index, path in enumerate(paths):
            try:
                payloads.append(self._payload(path, series))
            except UnsafeFileError:
                raise
            except UncropError as error:
                if not self.options.skip_damaged:
                    raise _or_skip(error) from None
                damaged.append((path, error))
            self.options.progress("read frames", index + 1, len(paths))
        if damaged:
            names = ", ".join(p.name for p, _ in damaged[:5])
            said = f"{len(damaged)} of {len(paths)} frames left out as damaged ({names})"
            self._warn("frames-damaged", self.folders.checkpoint, f"{said}: {damaged[0][1]}")
        if not payloads:
            raise FormatError(
                self.folders.checkpoint, "readable .frame files",
                f"none of {len(paths)}; {paths[0].name}: {damaged[0][1].found}",
            )  # fmt: skip
        self._note_variants(payloads)
        kept = self._with_meshes(self._without_leftovers(payloads))
        self.findings += _flame_findings(kept)
        return kept

    def _payload(self, path: Path, series: TorchSeries) -> FramePayload:
        data = read_bytes(path, self.options.limits)
        if self.options.hash_inputs:
            self.hashes[path] = hashlib.sha256(data).digest(), len(data)
        return _checked_id(frame_from(series.parse(data, path), path))

    def _frame_paths(self) -> list[Path]:
        found = FrameFiles.of(self.folders.checkpoint)
        if not found.paths:
            if len(found.stray) == 1:  # its error names the variant
                read_frame(self.folders.checkpoint / found.stray[0], self.options.limits)
            raise FormatError(
                self.folders.checkpoint,
                "frames named by number, like 00012.frame",
                ", ".join(found.stray[:5]),
            )
        if len(found.paths) > self.options.limits.frames:
            raise UnsafeFileError(
                self.folders.checkpoint, f"at most {self.options.limits.frames} frames",
                f"{len(found.paths)}", "If it is genuine, raise the limit.",
            )  # fmt: skip
        if found.stray:
            self._warn("files-stray", self.folders.checkpoint, "ignored, not named by a number: "
                       + ", ".join(found.stray[:5]))  # fmt: skip
        for a, b in found.twins:
            raise FormatError(
                self.folders.checkpoint, "one file per frame", f"{a.name} and {b.name}",
                "Remove the one that is not the tracker's.",
            )  # fmt: skip
        return list(found.paths)

    def _note_variants(self, payloads: list[FramePayload]) -> None:
        """Say what a fork's payloads hold that is not read, and what speaks of another frame."""
        unread = sorted({name for p in payloads for name in p.unread})
        if unread:
            self.findings.append(
                Finding("flame-unread", "info", "flame", f"{', '.join(unread[:8])}: blocks that "
                        "the tracker itself does not write are not read.")
            )  # fmt: skip
        renamed = [
            p for p in payloads
            if p.written_as is not None and p.written_as.isdecimal()
            and int(p.written_as) != int(p.path.stem)
        ]  # fmt: skip
        if renamed:
            first = renamed[0]
            self._warn(
                "frames-renamed",
                first.path,
                f"was written as {first.written_as}.frame"
                + (f", and {len(renamed) - 1} more have other names" if len(renamed) > 1 else "")
                + "; their frame_id fits the new name.",
                "They are taken by name.",
            )

    def _without_leftovers(self, payloads: list[FramePayload]) -> list[FramePayload]:
        leftovers = set(leftover_frames(payloads))
        if leftovers:
            names = ", ".join(payloads[i].path.name for i in sorted(leftovers))
            self._warn(
                "frames-leftover",
                self.folders.checkpoint,
                f"{names}: written by initialisation for a keyframe and never tracked.",
                "They are left out.",
            )
        kept = [p for i, p in enumerate(payloads) if i not in leftovers]
        ids = [int(p.path.stem) for p in kept]
        n_missing = ids[-1] - ids[0] + 1 - len(ids)
        if n_missing:
            self._warn(
                "frames-missing",
                self.folders.checkpoint,
                f"{n_missing} of {ids[-1] - ids[0] + 1} frames are missing.",
                "The others keep their images and times.",
            )
        return kept

    # --- images and sizes ---------------------------------------------------------------------

    def _crop_size(self, payloads: Sequence[FramePayload]) -> Size:
        """Size of the tracker's images, or what the frames state when there are none."""
        ids = (int(p.path.stem) for p in payloads)
        first = next((self.dumps[i] for i in ids if i in self.dumps), None)
        first = first or next(iter(self.images), None) or next(iter(self.dumps.values()), None)
        if first is not None:
            return read_size(first, self.options.limits)
        size = stated_size(payloads[0])
        if size is None:
            raise MissingInputError(
                payloads[0].path, "img_size, or the tracker's images", "neither",
                "Give --actor DIR (with images/).",
            )  # fmt: skip
        return size

    def _crop(self, size: Size, ids: Sequence[int]) -> Crop | None:
        """How the images were cut: by bbox.pt, or not at all; a lost one is recovered."""
        source, path = self.source_size, self.folders.bbox
        whole = self.whole_frame(size)
        if path is None or whole:
            if path is not None:
                self._warn("bbox-unused", path, f"is not applied: {whole}.")
            elif whole and self.folders.config.crop_image is not False:
                self._warn(
                    "source-cropped",
                    self.folders.source,
                    f"{whole}, {size}: nothing is known of the video that they were cut from.",
                    "For its resolution, give --source that video.",
                )
            if whole:
                return Crop.whole(source, size) if source else None
            return self._recovered(ids)
        bbox = read_bbox(path, self.options.limits)
        if source is not None:
            self._check_bbox(path, bbox, source)
        if size.width == size.height:
            return Crop.from_bbox(bbox, source, size)
        cut = bbox.clamped(source) if source else bbox
        if cut.size == size:  # non-square image_size: the tracker cuts and does not resize
            return Crop(cut, 0, 0, source, size)
        raise ConventionError(
            path,
            f"a box of {size}, the size of the tracker's images",
            f"{bbox}, of {cut.size}",
            "Images that are not square were cut without resizing, or resized from whole frames: "
            "in that case remove this bbox.pt, or set crop_image: false in the yaml.",
        )

    def _recovered(self, ids: Sequence[int]) -> Crop | None:
        """Find the lost bbox again from images and source frames, if it is certain."""
        sources: Frames | None = self.video
        if self.source_files:
            sources = ImageFiles.of(self.source_files, self.options.limits)
        begin = self.options.begin_frames
        begin = (self.folders.config.begin_frames or 0) if begin is None else begin
        crops: tuple[Frames, tuple[int, ...] | None] | None
        if self.images:
            crops = ImageFiles.of(self.images, self.options.limits), None
        else:
            crops = numbered_crops(self.dumps, ids, begin, self.options.limits)
        if crops is None or sources is None:
            return None
        where = self.folders.inputs
        crop, finding = recover_or_say(where, crops[0], crops[1], sources, self.options.progress)
        self.findings.append(finding)
        return crop

    def _check_bbox(self, path: Path, bbox: BBox, source: Size) -> None:
        """Say what about a bbox is not as the tracker writes it."""
        width, height = source.width, source.height
        inside = 0 <= bbox.x_min < bbox.x_max <= width and 0 <= bbox.y_min < bbox.y_max <= height
        if bbox.x_min >= width - 1 or bbox.y_min >= height - 1 or min(bbox.x_max, bbox.y_max) <= 0:
            raise ConventionError(
                path, f"a box inside the {source} source frames", f"{bbox}",
                "Was it made on a video of another resolution?",
            )  # fmt: skip
        if not inside:
            self._warn(
                "bbox-outside",
                path,
                f"{bbox} reaches beyond the {source} source frames, as a box made at another "
                "resolution does.",
                "The tracker would have cut what lies inside; so does this.",
            )

    def _looks_everywhere(self) -> bool:
        """Whether to look at source frames all over the track.

        Of a video the first ones do where it has exactly as many frames as there are images: at
        another rate it would not.
        """
        return self.video is None or len(self.video) != len(self.images)

    # --- numbering ----------------------------------------------------------------------------

    def _numbering(self, ids: list[int], crop: Crop | None) -> Numbering | None:
        config = self.folders.config
        stated, stated_by = self.options.begin_frames, "--begin-frames"
        if stated is None and config.begin_frames is not None:
            stated, stated_by = config.begin_frames, config.path.name if config.path else "yaml"
        images = self.numbered_images(crop)
        dumps = self.dumps if images.count else {}
        if stated is None and not any(i in dumps for i in ids):
            self._warn(
                "numbering-unknown",
                self.folders.checkpoint,
                "nothing shows which image belongs to which frame; landmarks and source frames "
                "are left out.",
                "Give --begin-frames N (the tracker's default is 0, its shipped configs say 1).",
            )
            return None
        numbering = find_numbering(ids, dumps, images, stated, stated_by, self.options.limits)
        if stated is not None and numbering.offset != stated:
            self._warn(
                "begin-frames",
                stated_by,
                f"begin_frames is {stated}, but the images show {numbering.offset}.",
                "The images decide.",
            )
        self._require_images(ids, numbering, images)
        name = self.image_name(ids[0] + numbering.offset)
        self.steps.append(numbering.sentence(ids[0], name))
        return numbering

    def _require_images(self, ids: list[int], numbering: Numbering, images: Images) -> None:
        first, last = ids[0] + numbering.offset, ids[-1] + numbering.offset
        if images.count and not 0 <= first <= last < images.count:
            frame = ids[0] if first < 0 else ids[-1]
            raise ConventionError(
                images.origin,
                f"an image for frame {frame:05d} (begin_frames {numbering.offset})",
                counted(images.count, "image"),
                "Is this the actor folder that was tracked, and the whole of it?",
            )

    def _check_stated_numbering(self, track: Track, numbering: Numbering) -> None:
        """Hold a begin_frames that no image confirms against landmarks and meshes."""
        if track.landmarks is None:
            return
        positions = [int(i) + numbering.offset for i in track.frame_ids]

        def landmarks_at(index: int, lag: int) -> Floats | None:
            return self.read_landmarks("kpt", positions[index] + lag, N_LANDMARKS)

        residuals = landmark_residuals(track, landmarks_at)
        best = min(residuals, key=lambda lag: residuals[lag], default=0)
        if best != 0 and residuals[best] < _LAG_RATIO * residuals[0]:
            raise ConventionError(
                numbering.evidence,
                "landmarks that fit their own frame's mesh best",
                f"{residuals[best]:.2f} px with those of begin_frames {numbering.offset + best}, "
                f"{residuals[0]:.2f} px with their own",
                f"Give --begin-frames {numbering.offset + best}, or the tracker's images.",
            )
        self.findings.append(
            Finding(
                "numbering-stated",
                "info",
                "frame numbering",
                f"rests on {numbering.evidence}; no image was there to confirm it.",
            )
        )

    def _source_indices(self, positions: list[int]) -> list[int]:
        """Positions in the source sequence, from positions in sorted(images)."""
        if not self.images:
            return positions
        names = [self.images[p].stem for p in positions]
        if self.source_files:
            places = {p.stem: i for i, p in enumerate(self.source_files)}
            lost = [n for n in names if n not in places]
            if lost:
                raise MissingInputError(
                    f"{self.folders.source}",
                    f"source frames named like the images, e.g. {lost[0]}",
                    f"none for {len(lost)} of {len(names)} frames",
                    "Give --source with the frames this track was made from, or the video.",
                )
            return [places[n] for n in names]
        shown = video_places(self.images)
        return [shown[p] for p in positions]

    # --- the record ---------------------------------------------------------------------------

    def _track(
        self,
        payloads: list[FramePayload],
        cameras: Cameras,
        crop: Crop | None,
        numbering: Numbering | None,
    ) -> Track:
        ids = [int(p.path.stem) for p in payloads]
        positions = None if numbering is None else [i + numbering.offset for i in ids]
        indices = None if positions is None else self._source_indices(positions)
        return Track(
            name=_safe_name(self.folders.name),
            frame_ids=np.array(ids, np.int64),
            w2c=cameras.w2c,
            intrinsics=cameras.intrinsics,
            image_space=cameras.image_space,
            crop=crop,
            source_indices=None if indices is None else np.array(indices, np.int64),
            fps=self.fps,
            flame=_flame(payloads),
            landmarks=self._landmarks("kpt", positions, N_LANDMARKS),
            dense_landmarks=self._landmarks("kpt_dense", positions, N_DENSE_LANDMARKS),
            meshes=self._meshes(ids),
            depth=self._depth(ids, cameras.intrinsics.size if crop is None else crop.output),
            crop_frames=self._crop_frames(ids, positions),
            source_frames=None if indices is None else self._source_frames(indices),
            video=self._sound(),
            native=_native(payloads),
            provenance=Provenance("metrical-tracker", self._inputs(payloads)),
        )

    def _landmarks(self, folder: str, positions: list[int] | None, n_points: int) -> Floats | None:
        """Landmarks of all frames in edge-origin px of the crop; NaN where there are none.

        kpt/ holds whole numbers in index coordinates, kpt_dense/ normalised x size, edge origin.
        A failed detection is stored as zeros; NaN is taken as one.
        """
        base = self.folders.actor / folder if self.folders.actor else None
        if base is None or not base.is_dir() or positions is None:
            return None
        try:
            found = [self.read_landmarks(folder, p, n_points) for p in positions]
        except FormatError as error:
            if folder == "kpt":
                raise
            # 68 points in kpt_dense is a known slip of the tracker's older versions (issue 35).
            self._warn("landmarks-dense", error.where, error.statement,
                       "The dense landmarks are left out.")  # fmt: skip
            return None
        points = np.full((len(found), n_points, 2), np.nan)
        for index, array in enumerate(found):
            if array is not None:
                points[index] = array
        n_lost = sum(array is None for array in found)
        if n_lost and folder == "kpt":
            absent = sum(not (base / f"{self.image_name(p)}.npy").is_file() for p in positions)
            lost = f" ({counted(absent, 'file')} missing)"
            why = lost if absent else ": the detector found no face"
            self._warn(
                "landmarks-missing", base, f"{n_lost} of {len(found)} frames have none{why}."
            )
        return points

    def _mesh_path(self, frame_id: int) -> Path:
        return _either(self.folders.output / "mesh" / f"{frame_id:05d}.ply", ".obj")

    def _with_meshes(self, payloads: list[FramePayload]) -> list[FramePayload]:
        """With --skip-damaged, leave out frames without a mesh, unless none has one."""
        if not self.options.skip_damaged:
            return payloads
        has = [self._mesh_path(int(p.path.stem)).is_file() for p in payloads]
        if all(has) or not any(has):
            return payloads
        lost = [p.path.stem for p, there in zip(payloads, has, strict=True) if not there]
        self._warn("frames-damaged", self.folders.output / "mesh", f"{counted(len(lost), 'frame')} "
                   f"without a mesh left out ({', '.join(lost[:5])}).")  # fmt: skip
        return [p for p, there in zip(payloads, has, strict=True) if there]

    def _depth(self, ids: list[int], size: Size) -> DepthFiles | None:
        """The tracker's renderings of its mesh, if they are there for every frame."""
        folder = self.folders.output / "depth"
        paths = [folder / f"{i:05d}.png" for i in ids]
        lost = [p for p in paths if not p.is_file()]
        if len(lost) == len(paths):
            return None
        if lost:
            self._warn("depth-missing", lost[0], f"is missing, as are {len(lost)} of {len(paths)} "
                       "depth maps.", "Depth is left out.")  # fmt: skip
            return None
        found = read_size(paths[0], self.options.limits)
        if found != size:
            self._warn("depth-size", paths[0], f"is {found}, the crops are {size}.",
                       "Depth is left out.")  # fmt: skip
            return None
        return DepthFiles(tuple(paths), size, self.options.limits)

    def _meshes(self, ids: list[int]) -> MeshFiles | None:
        folder = self.folders.output / "mesh"
        paths = [self._mesh_path(i) for i in ids]
        lost = [p for p in paths if not p.is_file()]
        if len(lost) == len(paths):
            self._warn("meshes-missing", folder, "there are no meshes of these frames.")
            return None
        if lost:
            raise MissingInputError(
                lost[0],
                "the mesh of this frame",
                f"nothing ({len(lost)} of {len(paths)} missing)",
                "Track these frames again; --skip-damaged leaves them out.",
            )  # fmt: skip
        return MeshFiles(tuple(paths), self.options.limits)

    def _crop_frames(self, ids: list[int], positions: list[int] | None) -> Frames | None:
        self._note_stray_dumps(ids)
        if self.images and positions is not None:
            return ImageFiles.of([self.images[p] for p in positions], self.options.limits)
        if all(i in self.dumps for i in ids):
            return ImageFiles.of([self.dumps[i] for i in ids], self.options.limits)
        return None

    def _note_stray_dumps(self, ids: list[int]) -> None:
        stray = [i for i in self.dumps if i > ids[-1]]
        if stray:
            names = ", ".join(f"{i:05d}.png" for i in stray[:9])
            self.findings.append(
                Finding(
                    "dumps-stray",
                    "info",
                    str(self.folders.output / "input"),
                    f"{names} belong to no frame; camera initialisation leaves 00101, 00201 ... "
                    "behind.",
                    fix="They are ignored.",
                )  # fmt: skip
            )

    def _source_frames(self, indices: list[int]) -> Frames | None:
        if self.source_files:
            return ImageFiles.of([self.source_files[i] for i in indices], self.options.limits)
        if self.video is not None:
            return VideoFrames(self.folders.source or "", self.fps, indices)
        return None

    def _sound(self) -> VideoFile | None:
        video = self.folders.video
        return None if video is None else VideoFile(video.name, lambda: video)

    def _inputs(self, payloads: list[FramePayload]) -> tuple[InputFile, ...]:
        """What went in, by hash; all .frame files together as one entry."""
        if not self.options.hash_inputs:
            return ()
        together, n_bytes = hashlib.sha256(), 0
        for payload in payloads:
            digest, size = self.hashes[payload.path]
            together.update(payload.path.name.encode() + digest)
            n_bytes += size
        name = f"checkpoint/*.frame ({counted(len(payloads), 'file')})"
        frames = InputFile(name, n_bytes, together.hexdigest())
        single = [self.folders.bbox, self.folders.config.path, self.folders.video]
        if self.folders.source is not None and self.folders.source.is_file():
            single.append(self.folders.source)
        files = [
            InputFile(p.name, p.stat().st_size, sha256_of(p))
            for p in dict.fromkeys(p for p in single if p is not None)
        ]
        return (frames, *files)

    def _warn(self, check: str, where: object, message: str, fix: str = "") -> None:
        self.findings.append(Finding(check, "warning", str(where), message, fix=fix))


def _checked_id(payload: FramePayload) -> FramePayload:
    """Refuse a renamed file: its camera belongs to another image."""
    if payload.frame_id is not None and payload.frame_id != int(payload.path.stem):
        raise ConventionError(
            f"{payload.path}: frame_id",
            f"{int(payload.path.stem)}, as the file is named",
            f"{payload.frame_id}",
            "A renamed .frame holds another image's camera; restore the tracker's names.",
        )
    return payload


def _either(path: Path, other_suffix: str) -> Path:
    """``path``, or its neighbour of another suffix where only that exists."""
    other = path.with_suffix(other_suffix)
    return other if other.is_file() and not path.is_file() else path


def _safe_name(name: str) -> str:
    """Name for output files: letters, digits, - and _ only."""
    return re.sub(r"[^0-9A-Za-z_-]", "_", name)[:64] or "track"


def _stacked(payloads: list[FramePayload], block: str) -> Floats | None:
    """Return one FLAME block over all frames, or None where a frame lacks it."""
    values = [p.flame[block] for p in payloads if block in p.flame]
    if len(values) != len(payloads):
        return None
    other = next((p for p in payloads if p.flame[block].shape != values[0].shape), None)
    if other is not None:
        raise ConventionError(
            f"{other.path}: flame.{block}",
            f"{values[0].size} numbers, as in {payloads[0].path.name}",
            f"{other.flame[block].size}",
            "Frames of two different runs are in this folder; separate them.",
        )
    return np.stack(values)


def _flame(payloads: list[FramePayload]) -> Flame:
    shape, texture = _stacked(payloads, "shape"), _stacked(payloads, "tex")
    return Flame(
        shape=None if shape is None else shape[0],
        texture=None if texture is None else texture[0],
        expression=_stacked(payloads, "exp"),
        jaw=_stacked(payloads, "jaw"),
        eyes=_stacked(payloads, "eyes"),
        eyelids=_stacked(payloads, "eyelids"),
        light=_stacked(payloads, "sh"),
    )


def _flame_findings(payloads: list[FramePayload]) -> list[Finding]:
    """What `_flame` cannot keep: blocks that some frames lack, constants that are not constant."""
    findings = []
    for block in sorted({name for p in payloads for name in p.flame}):
        n_frames = sum(block in p.flame for p in payloads)
        if n_frames < len(payloads):
            findings.append(
                Finding("flame-partial", "warning", f"flame.{block}",
                        f"is there in {n_frames} of {len(payloads)} frames only.",
                        fix="It is left out.")
            )  # fmt: skip
        elif block in ("shape", "tex"):
            stacked = np.stack([p.flame[block] for p in payloads])
            spread = float(np.max(np.abs(stacked - stacked[0]), initial=0.0))
            limit = _CONSTANT_RELATIVE * float(np.max(np.abs(stacked), initial=0.0))
            if spread > limit:
                findings.append(
                    Finding("flame-varies", "warning", f"flame.{block}", "differs between frames; "
                            "the tracker keeps it for a whole track.", spread, limit,
                            fix="The first frame's is kept. Were two runs mixed in one folder?")
                )  # fmt: skip
    return findings


def _native(payloads: list[FramePayload]) -> dict[str, NDArray[Any]]:
    """What only the tracker's own format holds: its camera block and step counter."""
    native: dict[str, NDArray[Any]] = {}
    blocks = [p.camera for p in payloads if p.camera is not None]
    if len(blocks) == len(payloads):
        native["camera_R6"] = np.stack([b.R6 for b in blocks])
        native["camera_t"] = np.stack([b.t for b in blocks])
        native["camera_fl"] = np.array([b.fl for b in blocks])
        native["camera_pp"] = np.stack([b.pp for b in blocks])
    steps = [p.global_step for p in payloads if p.global_step is not None]
    if len(steps) == len(payloads):
        native["global_step"] = np.array(steps, np.float64)
    return native
