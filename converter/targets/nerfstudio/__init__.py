"""nerfstudio (https://docs.nerf.studio, "Data conventions") dataset.

Tree (N is the tracker's frame, five digits)::

    transforms.json   camera_model OPENCV without distortion, frames, ply_file_path
    images/N.jpg  masks/N.png         masks with --matte: 0 is ignored
    head.ply                          the mean mesh as points, coloured
    proof.jpg  track.h5  uncrop.json  the picture, the record, the manifest

Axes: transform_matrix is camera to world, OpenGL camera axes, metres; the world is the head's.
Pixels edge origin. ``orientation_override: none`` keeps the world as it is; centring and scaling
are options of the loader. Loader: nerfstudio/data/dataparsers/nerfstudio_dataparser.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from converter.dataset.options import SceneOptions
from converter.dataset.target import FolderTarget


@dataclass(frozen=True)
class Options(SceneOptions):
    """Options of --to nerfstudio."""


TARGET = FolderTarget(
    name="nerfstudio",
    summary="transforms.json with images, masks and points for nerfstudio and its relatives",
    options=Options,
    package=__name__,
    plan="converter.dataset.scene:make_scene",
)
