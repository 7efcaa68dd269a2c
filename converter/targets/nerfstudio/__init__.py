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
from pathlib import Path
from typing import Any

from converter.dataset.scene import SceneOptions
from converter.findings import Finding
from converter.registry import Progress, Written
from converter.track import Track


@dataclass(frozen=True)
class Options(SceneOptions):
    """Options of ``--to nerfstudio``."""


class Nerfstudio:
    """Target ``nerfstudio``."""

    name = "nerfstudio"
    summary = "transforms.json with images, masks and points for nerfstudio and its relatives"
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
        from converter.targets.nerfstudio.dataset import write_dataset

        scene = make_scene(track, options)
        return write_dataset(scene, out, options, overwrite=overwrite, progress=progress)

    def check(self, out: Path) -> list[Finding]:
        """Re-read the dataset as nerfstudio does, and reproject."""
        from converter.targets.nerfstudio.check import check_dataset

        return check_dataset(out)


TARGET = Nerfstudio()
