"""The files of one track: which there are, in which order, and what one of them holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from converter.errors import FormatError
from converter.geometry.crop import Crop
from converter.geometry.pixels import Floats, Size, pixels_from_index
from converter.media.arrays import read_npy
from converter.media.files import scan_folder
from converter.media.images import ImageFiles, list_images, read_image, read_size, render_crop
from converter.media.video import VideoFrames
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.folders import TrackFolders
from converter.sources.metrical_tracker.numbering import Images
from converter.track import Image

N_LANDMARKS = 68
N_DENSE_LANDMARKS = 478
LARGEST_EDGE = 1e6
"""Coordinates beyond it, px, are no coordinates."""
_DEFAULT_FPS = 25.0
_SAME_GREY_LEVELS = 3.0


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """The .frame files of a folder.

    Attributes
    ----------
    paths
        Those named by a number, in its order.
    stray
        Names of the others.
    twins
        Pairs of ``paths`` with the same number: 7.frame and 00007.frame.

    """

    paths: tuple[Path, ...]
    stray: tuple[str, ...]
    twins: tuple[tuple[Path, Path], ...]

    @classmethod
    def of(cls, checkpoint: Path) -> FrameFiles:
        """List a checkpoint folder."""
        names = sorted(e.name for e in scan_folder(checkpoint) if e.name.endswith(".frame"))
        numbered = [n for n in names if re.fullmatch(r"\d{1,12}\.frame", n, re.ASCII)]
        known = set(numbered)
        numbered.sort(key=lambda name: int(name[:-6]))
        paths = tuple(checkpoint / name for name in numbered)
        numbers = [int(name[:-6]) for name in numbered]
        twins = [(paths[i], paths[i + 1]) for i in range(len(paths) - 1)
                 if numbers[i] == numbers[i + 1]]  # fmt: skip
        return cls(paths, tuple(n for n in names if n not in known), tuple(twins))


@dataclass(frozen=True, slots=True)
class FolderFiles(Mapping[int, Path]):
    """Frame id -> file, of one folder. Thousands of paths are made only where they are wanted."""

    folder: Path
    names: dict[int, str]

    def __getitem__(self, number: int) -> Path:
        return self.folder / self.names[number]

    def __contains__(self, number: object) -> bool:
        return number in self.names

    def __iter__(self) -> Iterator[int]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass
class TrackFiles:
    """Everything that lies in a track's folders, listed when it is asked for."""

    folders: TrackFolders
    options: ReadOptions

    @cached_property
    def images(self) -> list[Path]:
        """The tracker's processed images, in its order."""
        return list_images(self.folders.actor / "images") if self.folders.actor else []

    @cached_property
    def dumps(self) -> Mapping[int, Path]:
        """Frame id -> the image the tracker dumped for it."""
        folder = self.folders.output / "input"
        if not folder.is_dir():
            return {}
        names = sorted(e.name for e in scan_folder(folder))
        numbered = re.compile(r"\d{1,12}\.png", re.ASCII)
        return FolderFiles(folder, {int(n[:-4]): n for n in names if numbered.fullmatch(n)})

    @cached_property
    def source_files(self) -> list[Path]:
        """Source frames, when they are a folder."""
        source = self.folders.source
        return list_images(source) if source is not None and source.is_dir() else []

    @cached_property
    def video(self) -> VideoFrames | None:
        """Source frames, when they are a video; all of them."""
        source = self.folders.source
        return VideoFrames(source, self.fps) if source is not None and source.is_file() else None

    @property
    def fps(self) -> float:
        """Frames per second of the source sequence."""
        if self.options.fps is not None:
            return self.options.fps
        return self.folders.config.fps or _DEFAULT_FPS

    @cached_property
    def source_size(self) -> Size | None:
        """Size of the source frames; None if there are none."""
        if self.source_files:
            return read_size(self.source_files[0], self.options.limits)
        return self.video.size if self.video is not None else None

    def decode(self, path: Path) -> Image:
        """Decode one image."""
        return read_image(path, self.options.limits)

    def whole_frame(self, size: Size) -> str:
        """Why the images must be whole frames, resized; empty if they need not be."""
        config, source = self.folders.config, self.source_size
        if self.folders.bbox_given:
            return ""
        if config.crop_image is False:
            return f"{config.path and config.path.name} says crop_image: false"
        # Without a box nothing less than equal pixels will do: a box that leaves out the last row
        # and column alone makes images that look the same.
        limit = 0.0 if self.folders.bbox is None else _SAME_GREY_LEVELS
        if source == size and self._source_differs_by <= limit:
            return "the source frames are the tracker's images themselves"
        return ""

    @cached_property
    def _source_differs_by(self) -> float:
        """Mean difference of an image and the source frame of its name, grey levels; inf if none.

        Tracks of readily cropped frames may have the crops for source.
        """
        for image in self.images:
            other = self._source_named(image.stem)
            if other is not None:
                own = self.decode(image).astype(np.int16)
                return float(np.mean(np.abs(own - other))) if own.shape == other.shape else np.inf
        return np.inf

    def _source_named(self, stem: str) -> Image | None:
        """Source frame of an image's name, which of a video is ffmpeg's number."""
        if stem in self._source_stems:
            return self.decode(self._source_stems[stem])
        is_number = re.fullmatch(r"\d{1,12}", stem, re.ASCII)
        if self.video is None or not is_number or not 0 < int(stem) <= len(self.video):
            return None
        return self.video.read(int(stem) - 1)

    @cached_property
    def _source_stems(self) -> dict[str, Path]:
        return {path.stem: path for path in self.source_files}

    @cached_property
    def image_names(self) -> list[str]:
        """Names, without suffix, of the images in the tracker's order, from whatever is left."""
        if self.images or self.source_files:
            return [p.stem for p in self.images or self.source_files]
        kpt = self.folders.actor / "kpt" if self.folders.actor else None
        names = sorted(p.stem for p in kpt.glob("*.npy")) if kpt is not None else []
        if names and all(re.fullmatch(r"\d{5}", n, re.A) for n in names):
            # ffmpeg's numbers; files that are missing must not shift the ones behind them.
            first = min(int(names[0]), 1)
            return [f"{n:05d}" for n in range(first, int(names[-1]) + 1)]
        return names

    def image_name(self, position: int) -> str:
        """Name of an image; ffmpeg counts from 00001."""
        names = self.image_names
        return names[position] if 0 <= position < len(names) else f"{position + 1:05d}"

    def numbered_images(self, crop: Crop | None) -> Images:
        """Images in the order that frames count."""
        origin = str(self.folders.source)
        if self.images:
            files = ImageFiles.of(self.images, self.options.limits)
            return Images(files.origin, len(files), files.read, random_access=True)
        if crop is not None and self.source_files:
            sources = ImageFiles.of(self.source_files, self.options.limits)
            return Images(origin, len(sources), lambda i: render_crop(sources.read(i), crop), True)
        if crop is not None and self.video is not None:
            video = self.video
            return Images(origin, len(video), lambda i: render_crop(video.read(i), crop), False)
        return Images("nowhere", 0, lambda _: np.zeros((0, 0, 3), np.uint8), False)

    def read_landmarks(self, folder: str, position: int, n_points: int) -> Floats | None:
        """Landmarks (n_points, 2) of one image, edge-origin px of the crop; None if it has none."""
        if self.folders.actor is None or position < 0:
            return None
        path = self.folders.actor / folder / f"{self.image_name(position)}.npy"
        if not path.is_file():
            return None
        array = read_npy(path, self.options.limits)
        if array.shape != (n_points, 2) or array.dtype.kind not in "fiu":
            raise FormatError(
                path, f"{n_points}x2 float", f"{'x'.join(map(str, array.shape))} {array.dtype}",
                f"Is it from {folder}/ of this track?",
            )  # fmt: skip
        points = array.astype(np.float64)
        if not points.any() or not np.all(np.abs(points) < LARGEST_EDGE):
            return None
        return pixels_from_index(points) if folder == "kpt" else points
