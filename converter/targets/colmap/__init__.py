"""COLMAP model (https://colmap.github.io/format.html) with its images.

Tree (N is the tracker's frame, five digits)::

    sparse/0/cameras.txt  images.txt  points3D.txt      and the same as .bin
    images/N.jpg  masks/N.jpg.png     masks with --matte: 0 is ignored
    proof.jpg  track.h5  uncrop.json  the picture, the record, the manifest

Axes: qvec, tvec are world to camera, x right, y down, z forward, as they are in the track; metres.
PINHOLE, edge-origin pixels, ids from 1. points3D holds the mean mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.dataset.scene import SceneOptions
from converter.findings import Finding
from converter.registry import Progress, Written
from converter.track import Track


@dataclass(frozen=True)
class Options(SceneOptions):
    """Options of ``--to colmap``."""


class Colmap:
    """Target ``colmap``."""

    name = "colmap"
    summary = "COLMAP model, text and binary, with images and masks"
    options = Options

    def require(self, track: Track, options: Any) -> None:
        """Raise TargetError or MissingInputError if the track lacks what the dataset needs."""
        from converter.dataset.scene import make_scene

        make_scene(track, options)

    def write(
        self, track: Track, out: Path, options: Any, *, overwrite: bool, progress: Progress
    ) -> Written:
        """Write the dataset whole or not at all; see `dataset.write_dataset`."""
        from converter.dataset.scene import make_scene
        from converter.targets.colmap.dataset import write_dataset

        scene = make_scene(track, options)
        return write_dataset(scene, out, options, overwrite=overwrite, progress=progress)

    def check(self, out: Path) -> list[Finding]:
        """Re-read the text and the binary model, and reproject."""
        from converter.targets.colmap.check import check_dataset

        return check_dataset(out)


TARGET = Colmap()
