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

from converter.dataset.target import FolderTarget
from converter.targets.gaussiantalker.options import Options

TARGET = FolderTarget(
    name="gaussiantalker",
    summary="dataset folder for GaussianTalker (also read by ER-NeRF and its relatives)",
    options=Options,
    package=__name__,
    plan="converter.targets.gaussiantalker.plan:make_plan",
)
