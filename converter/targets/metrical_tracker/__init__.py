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
    proof.jpg  track.h5  uncrop.json  the picture, the record, the manifest

Axes: opencv block x right, y down, z forward, world to camera; camera block pytorch3d's. Metres.
Pixels: K edge origin; kpt in index coordinates (0.5 px less); img_size is (height, width).
What is written: the tracker's `save_checkpoint`, tracker.py:186-210.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.findings import Finding
from converter.registry import Progress, Written
from converter.targets.metrical_tracker.options import Options
from converter.track import Track


class MetricalTracker:
    """Target ``metrical_tracker``."""

    name = "metrical_tracker"
    summary = "metrical-tracker's own folders, for repaired, re-cropped and imported tracks"
    options = Options

    def require(self, track: Track, options: Any) -> None:
        """Raise TargetError or MissingInputError if the layout cannot hold the track."""
        from converter.targets.metrical_tracker.plan import make_plan

        make_plan(track, options)

    def write(
        self, track: Track, out: Path, options: Any, *, overwrite: bool, progress: Progress
    ) -> Written:
        """Write the folders whole or not at all; see `dataset.write_dataset`."""
        from converter.targets.metrical_tracker.dataset import write_dataset
        from converter.targets.metrical_tracker.plan import make_plan

        plan = make_plan(track, options)
        return write_dataset(plan, out, options, overwrite=overwrite, progress=progress)

    def check(self, out: Path) -> list[Finding]:
        """Re-read every file as the tracker's consumers do, and reproject both camera blocks."""
        from converter.targets.metrical_tracker.check import check_dataset

        return check_dataset(out)


TARGET = MetricalTracker()
