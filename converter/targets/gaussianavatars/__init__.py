"""GaussianAvatars (https://github.com/ShenhanQian/GaussianAvatars) dataset, and VHAP's own.

Tree (T is the timestep with five digits, from 0 without gaps; one camera, 00)::

    transforms.json  transforms_{train,val,test}.json    val is empty, as with VHAP's one camera
    images/T_00.png  fg_masks/T_00.png
    flame_param/T.npz  canonical_flame_param.npz
    NOTES.txt                         FLAME 2020, eyelids: what the files cannot say
    proof.jpg  track.h5  uncrop.json  the picture, the record, the manifest

Axes: transform_matrix is camera to world, OpenGL camera axes, metres; the world is the head's.
Pixels edge origin. GaussianAvatars reads camera_angle_x only (principal point at the centre, one
focal length); VHAP reads fl_x, fl_y, cx and ``h - cy``.
Loaders: GaussianAvatars scene/dataset_readers.py:189-352, scene/flame_gaussian_model.py:43-85;
VHAP vhap/data/nerf_dataset.py, vhap/util/camera.py:46-50.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.dataset.options import CanvasOptions, require_folder
from converter.dataset.target import FolderTarget
from converter.errors import TargetError


@dataclass(frozen=True)
class Options(CanvasOptions):
    """Options of --to gaussianavatars."""

    flavour: Literal["gaussianavatars", "vhap"] = "gaussianavatars"
    """Who reads it. gaussianavatars forces the principal point to the centre: the canvas puts it
    there. vhap takes any K: canvas auto writes the source frames as they are, crop the crops."""
    matte: Path | None = None
    """Mattes as grey PNG, 255 is the person, at source or crop size: images are put on white."""
    matte_names: Literal["auto", "frame", "image", "position"] = "auto"
    """What the matte's file names count: .frame numbers, images from 1, or places from 0 (0.png,
    or 0000.png as RobustVideoMatting has it)."""

    def require(self) -> None:
        """Raise UncropError for what no track could make right."""
        CanvasOptions.require(self)
        require_folder(self.matte, "--matte")
        if self.flavour == "vhap" and self.canvas in ("auto", "crop"):
            if self.scale is not None:
                raise TargetError("--scale", "no --scale with --flavour vhap", f"{self.scale:g}")
            if self.size is not None and not self.size.isdecimal():
                raise TargetError(
                    "--size", "one number with --flavour vhap: crops are square", self.size
                )


TARGET = FolderTarget(
    name="gaussianavatars",
    summary="dataset folder for GaussianAvatars, or with --flavour vhap for VHAP",
    options=Options,
    package=__name__,
)
