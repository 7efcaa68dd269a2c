"""The video's sound, cut to the frames of a dataset."""

from __future__ import annotations

from collections.abc import Iterable

from converter.media.audio import extract_wav
from converter.media.manifest import DatasetFolder
from converter.track import Track

Part = tuple[str, float, float | None]
"""File name, begin and end in seconds of the video; None: to its end."""


def write_sound(track: Track, dataset: DatasetFolder, parts: Iterable[Part]) -> bool:
    """Write parts of the sound as 16 kHz mono .wav; False if the track has no sound."""
    if track.video is None:
        return False
    path = track.video.locate()
    for name, start, stop in parts:
        if not extract_wav(path, dataset.root / name, start_s=start, end_s=stop):
            return False
        dataset.add(name)
    return True
