"""flame_params.json for SplattingAvatar, IMavatar, MonoGaussianAvatar and PointAvatar.

Tree (N is the tracker's frame, unpadded)::

    flame_params.json        frames, shape_params, intrinsics
    image/N.png  mask/N.png  splattingavatar: the matte is also the image's alpha
    proof.jpg  track.h5  uncrop.json  the picture, the record, the manifest

Per frame: file_path "./image/N", world_mat 3x4, expression (50), pose (15: global, neck, jaw, eyes
as rotation vectors), bbox and flame_keypoints in [-1, 1]. S = diag(1, -1, -1):

=================== ============== =================================
reader              rotation       intrinsics
=================== ============== =================================
splattingavatar     ``S R``        ``-fx/w  fy/h  cx/w  cy/h``
imavatar            ``S R``        the same, cx and cy less 0.5 px
monogaussianavatar  ``S R``        as splattingavatar
pointavatar         ``S R^T``      as splattingavatar
=================== ============== =================================

translation ``4 S t``: their FLAME is scaled by 4. Loaders: IMavatar preprocess/DECA/optimize.py and
code/datasets/real_dataset.py; SplattingAvatar scene/dataset_readers.py:280-294; PointAvatar
code/datasets/real_dataset.py:126-130.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.dataset.options import require_folder, require_side
from converter.dataset.target import FolderTarget
from converter.errors import TargetError

Flavour = Literal["splattingavatar", "imavatar", "monogaussianavatar", "pointavatar"]


@dataclass(frozen=True)
class Options:
    """Options of --to flame_params."""

    flavour: Flavour = "splattingavatar"
    """Who reads it: they disagree on the rotation and on where pixels begin."""
    space: Literal["auto", "crop", "source"] = "auto"
    """Which images are written. auto: the tracker's crops. source: the source frames, for
    splattingavatar only; the others need square images."""
    size: int | None = None
    """Side of the crops, px. Default: the tracker's."""
    matte: Path | None = None
    """Mattes as grey PNG, 255 is the person, at source or crop size: mask/, and alpha."""
    matte_names: Literal["auto", "frame", "image", "position"] = "auto"
    """What the matte's file names count: .frame numbers, images from 1, or places from 0 (0.png,
    or 0000.png as RobustVideoMatting has it)."""

    def require(self) -> None:
        """Raise UncropError for what no track could make right."""
        if self.space == "source" and self.flavour != "splattingavatar":
            raise TargetError("--space source", f"square images for {self.flavour}",
                              "source frames", "Leave --space out.")  # fmt: skip
        if self.size is not None:
            require_side(self.size)
        require_folder(self.matte, "--matte")


TARGET = FolderTarget(
    name="flame_params",
    summary="flame_params.json for SplattingAvatar, IMavatar, MonoGaussianAvatar, PointAvatar",
    options=Options,
    package=__name__,
)
