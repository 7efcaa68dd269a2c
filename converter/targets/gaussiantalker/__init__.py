"""GaussianTalker (https://github.com/KU-CVLAB/GaussianTalker) dataset.

Tree (N is img_id, from 0; loader scene/talking_dataset_readers.py)::

    track_params.pt            euler, trans, vertices, focal: CPU tensors, float32
    transforms_{train,val}.json  focal_len, cx, cy, frames (img_id, aud_id, transform_matrix)
    ori_imgs/N.jpg  N.lms      image; 68 landmarks "x y", index coordinates
    au.csv                     AU45 (blink), one row per img_id
    aud.wav aud_train.wav aud_novel.wav       when the video has sound, 16 kHz mono
    aud_ds.npy parsing/ torso_imgs/ gt_imgs/ bc.jpg   when their inputs are given
    proof.jpg  track.h5  uncrop.json          the picture, the record, the manifest

Axes: OpenGL camera from E = Rx(theta) Ry(phi) Rz(-psi); ten world units per metre; pixels edge
origin; principal point = image centre, one focal length for all frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.findings import Finding
from converter.registry import Progress, Written
from converter.targets.gaussiantalker.options import Options
from converter.track import Track


class GaussianTalker:
    """Target ``gaussiantalker``."""

    name = "gaussiantalker"
    summary = "dataset folder for GaussianTalker (also read by ER-NeRF and its relatives)"
    options = Options

    def require(self, track: Track, options: Any) -> None:
        """Raise TargetError or MissingInputError if the track lacks what the dataset needs."""
        from converter.targets.gaussiantalker.plan import make_plan

        make_plan(track, options)

    def write(
        self, track: Track, out: Path, options: Any, *, overwrite: bool, progress: Progress
    ) -> Written:
        """Write the dataset whole or not at all; see `dataset.write_dataset`."""
        from converter.targets.gaussiantalker.dataset import write_dataset
        from converter.targets.gaussiantalker.plan import make_plan

        plan = make_plan(track, options)
        return write_dataset(plan, out, options, overwrite=overwrite, progress=progress)

    def check(self, out: Path) -> list[Finding]:
        """Re-read the dataset as GaussianTalker's loader does, and reproject."""
        from converter.targets.gaussiantalker.check import check_dataset

        return check_dataset(out)


TARGET = GaussianTalker()
