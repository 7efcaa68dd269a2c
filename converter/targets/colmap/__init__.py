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

from converter.dataset.options import SceneOptions
from converter.dataset.target import FolderTarget


@dataclass(frozen=True)
class Options(SceneOptions):
    """Options of --to colmap."""


TARGET = FolderTarget(
    name="colmap",
    summary="COLMAP model, text and binary, with images and masks",
    options=Options,
    package=__name__,
    plan="converter.dataset.scene:make_scene",
)
