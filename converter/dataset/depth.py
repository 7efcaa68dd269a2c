"""The tracker's depth maps, moved with the images: nearest neighbour, as depths must not mix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.findings import Finding
from converter.geometry.pixels import PixelAffine, Size
from converter.media.resampling import resample_nearest
from converter.track import DepthMaps, Track

_LIMIT_M = 0.1


@dataclass(frozen=True, slots=True)
class Depth:
    """Depth maps of the crops, and how they lie on the written images.

    What they hold is z in the camera, which stays what it is as long as the pose does, whatever
    becomes of K.
    """

    maps: DepthMaps
    canvas_from_crop: PixelAffine

    def read(self, index: int, size: Size) -> NDArray[np.uint16]:
        """Depth (H, W) of one track frame on the written image, mm; 0 outside the crop."""
        return resample_nearest(self.maps.read(index), self.canvas_from_crop[index], size, 0)


def depth_on(track: Track, canvas_from_crop: PixelAffine) -> tuple[Depth | None, list[Finding]]:
    """Depth of a track on its written images; None if it has none, or one that is not its own."""
    if track.depth is None:
        return None, []
    middle = len(track) // 2
    seen = track.depth.read(middle)
    seen = seen[seen > 0]
    if track.meshes is None or not len(seen):
        return None, [_left_out(track, "it shows nothing in the middle of the track")]
    z = track.w2c[middle](track.meshes.vertices(middle).astype(np.float64))[:, 2]
    off = abs(float(np.median(seen)) / 1000 - float(np.median(z)))
    if not off <= _LIMIT_M:
        return None, [_left_out(track, f"it lies {off:.3f} m off the mesh")]
    return Depth(track.depth, canvas_from_crop), []


def _left_out(track: Track, why: str) -> Finding:
    return Finding("depth-left-out", "warning", f"{track.name}: depth", f"{why}; left out.",
                   fix="Is it of another run, or in another unit than mm?")  # fmt: skip
