"""The layout of metrical-tracker itself (https://github.com/Zielon/metrical-tracker), written back.

Tree (NAME is the track's name, I a frame id, S a source index + 1, both with five digits)::

    NAME.yml                          actor, begin_frames, fps, image_size, crop_image
    input/NAME/bbox.pt                x_min, x_max, y_min, y_max, when the track has a crop
    input/NAME/images/S.png           the crops, in the order in which frames count them
    input/NAME/kpt/S.npy  kpt_dense/S.npy      landmarks; zeros where there are none
    input/NAME/video.mp4  source/S.png         with --with-source
    output/NAME/checkpoint/I.frame    numpy arrays under numpy 1.x names, both camera blocks
    output/NAME/input/I.png           the crop again, under the frame's own number
    output/NAME/mesh/I.ply
    output/NAME/depth/I.png           if the track has depth; moved with the crops
    proof.jpg  track.h5  uncrop.json  the picture, the record, the manifest

Axes: opencv block x right, y down, z forward, world to camera; camera block pytorch3d's. Metres.
Pixels: K edge origin; kpt in index coordinates (0.5 px less); img_size is (height, width).
What is written: the tracker's `save_checkpoint`, tracker.py:186-210.
"""

from __future__ import annotations

from converter.dataset.target import FolderTarget
from converter.targets.metrical_tracker.options import Options

TARGET = FolderTarget(
    name="metrical_tracker",
    summary="metrical-tracker's own folders, for repaired, re-cropped and imported tracks",
    options=Options,
    package=__name__,
    plan="converter.targets.metrical_tracker.plan:make_plan",
)
