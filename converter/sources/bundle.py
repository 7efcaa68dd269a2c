"""Our own HDF5 bundle (docs/bundle.md) -> Track."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converter.errors import ConventionError, FormatError, MissingInputError
from converter.registry import ReadOptions
from converter.track import Frames, Track

_MAGIC = b"\x89HDF\r\n\x1a\n"


class Bundle:
    """Source ``bundle``."""

    name = "bundle"
    summary = "uncrop's own HDF5 bundle (track.h5)"

    def sniff(self, path: Path) -> bool:
        """Whether the file begins like HDF5 or is named so."""
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            return stream.read(8) == _MAGIC or path.suffix.lower() in (".h5", ".hdf5")

    def read(self, path: Path, options: ReadOptions) -> Track:
        """Read a bundle; ``options.source`` supplies source frames that it does not hold.

        Raises
        ------
        UncropError
            If the bundle is damaged, or the options do not fit it.

        """
        from converter.bundle.read import read_bundle

        track = read_bundle(path, options.limits)
        track.require_consistent()
        for option, value in (("--actor", options.actor), ("--bbox", options.bbox),
                              ("--begin-frames", options.begin_frames)):  # fmt: skip
            if value is not None:
                raise FormatError(
                    option,
                    "a tracker's folder to use it with",
                    f"the bundle {path}",
                    "A bundle holds these facts; convert the track again.",
                )
        if options.source is None:
            return track
        return replace(track, source_frames=_source_frames(track, options.source, options))


def _source_frames(track: Track, source: Path, options: ReadOptions) -> Frames:
    from converter.media.images import ImageFiles, list_images
    from converter.media.video import VideoFrames

    if not source.exists():
        raise MissingInputError(source, "what --source names", "nothing")
    if track.source_indices is None:
        raise MissingInputError(track.name, "the position of frames in the video", "none")
    indices = [int(i) for i in track.source_indices]
    frames: Frames
    if source.is_file():
        frames = VideoFrames(source, options.fps or track.fps, indices)
    else:
        files = list_images(source)
        if indices[-1] >= len(files):
            raise MissingInputError(source, f"{indices[-1] + 1} images", f"{len(files)}")
        frames = ImageFiles.of([files[i] for i in indices], options.limits)
    expected = None if track.crop is None else track.crop.source
    if expected is not None and frames.size != expected:
        raise ConventionError(source, f"{expected} frames", f"{frames.size}",
                              "Is it the video that was tracked?")  # fmt: skip
    return frames


SOURCE = Bundle()
