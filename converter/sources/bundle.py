"""Our own HDF5 bundle (docs/bundle.md) -> Track."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converter.bundle.schema import MAGIC, SUFFIXES
from converter.errors import ConventionError, FormatError, MissingInputError
from converter.findings import counted
from converter.registry import ReadOptions
from converter.track import Frames, Track, VideoFile


class Bundle:
    """Source ``bundle``."""

    name = "bundle"
    summary = "uncrop's own HDF5 bundle (track.h5)"

    def sniff(self, path: Path) -> bool:
        """Whether the file begins like HDF5 or is named so."""
        if not path.is_file():
            return False
        if path.suffix.lower() in SUFFIXES:
            return True
        try:
            with path.open("rb") as stream:
                return stream.read(len(MAGIC)) == MAGIC
        except OSError:
            return False

    def read(self, path: Path, options: ReadOptions) -> Track:
        """Read a bundle; ``options.source`` supplies source frames that it does not hold.

        Without it, what the bundle holds is the track, unchanged.

        Raises
        ------
        UncropError
            If the bundle is damaged, or the options do not fit it.

        """
        from converter.bundle.read import read_bundle

        for option, value in (("--actor", options.actor), ("--bbox", options.bbox),
                              ("--begin-frames", options.begin_frames)):  # fmt: skip
            if value is not None:
                raise FormatError(
                    option,
                    "a tracker's folder to use it with",
                    f"the bundle {path}",
                    "A bundle holds these facts; convert the track again.",
                )
        track = read_bundle(path, options.limits)
        if options.fps is not None:
            track = replace(track, fps=options.fps)
        return track if options.source is None else _with_source(track, options.source, options)


def _with_source(track: Track, source: Path, options: ReadOptions) -> Track:
    """Return the track with other source frames, and their size where it was not known."""
    frames = _source_frames(track, source, options)
    crop, where = track.crop, f"{source}"
    if crop is not None and crop.source is not None and frames.size != crop.source:
        raise ConventionError(
            where, f"{crop.source} frames", f"{frames.size}", "Is it the video that was tracked?"
        )
    if crop is not None and crop.source is None:
        # The tracker's slices end one pixel before the border; without frames nobody knew it.
        if crop.bbox.clamped(frames.size) != crop.bbox:
            raise ConventionError(
                where,
                f"frames that hold the bbox {crop.bbox}",
                f"{frames.size}",
                "Convert the track again with --source.",
            )
        crop = replace(crop, source=frames.size)
    video = VideoFile(source.name, lambda: source) if source.is_file() else track.video
    found = replace(track, source_frames=frames, crop=crop, video=video)
    return found.with_findings((), [f"source frames taken from {source.name}"])


def _source_frames(track: Track, source: Path, options: ReadOptions) -> Frames:
    from converter.media.images import ImageFiles, list_images
    from converter.media.video import VideoFrames

    if not source.exists():
        raise MissingInputError(source, "what --source names", "nothing", "Check its spelling.")
    if track.source_indices is None:
        raise MissingInputError(
            track.name,
            "the position of each frame in the video",
            "none",
            "Convert the track again, with the tracker's images beside it.",
        )
    indices = [int(i) for i in track.source_indices]
    if source.is_file():
        return VideoFrames(source, track.fps, indices, options.limits)
    files = list_images(source)
    if max(indices) >= len(files):
        raise MissingInputError(source, counted(max(indices) + 1, "image"), f"{len(files)}")
    return ImageFiles.of([files[i] for i in indices], options.limits)


SOURCE = Bundle()
