"""FlashAvatar (https://github.com/USTC3DV/FlashAvatar-code) folders: copied into its clone.

Tree (NAME is the track's name, I counts frames from 0 without gaps, J = I + 1; five digits)::

    dataset/NAME/imgs/J.jpg
    dataset/NAME/alpha/J.jpg                    the matte, grey; with --matte
    dataset/NAME/parsing/J_neckhead.png  J_mouth.png    0 or 255; with --parsing
    metrical-tracker/output/NAME/checkpoint/I.frame     numpy arrays, and no other file
    proof.jpg  track.h5  uncrop.json            the picture, the record, the manifest

Axes: the opencv block of every .frame, world to camera, x right, y down, z forward, metres; R is
transposed by the loader. Pixels edge origin; the principal point is the image centre, K and shape
are those of 00000.frame. img_size is (height, width) as the tracker has it, but the loader takes it
for (width, height): that is what is written where images are not square.
Loader: scene/__init__.py (``Scene_mica``), whose background is 512 x 512.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.dataset.options import CanvasChoice, CanvasOptions, require_bounds, require_folder
from converter.dataset.target import FolderTarget


@dataclass(frozen=True)
class Options(CanvasOptions):
    """Options of --to flashavatar."""

    canvas: CanvasChoice = "crop"
    """Which part of the picture is written. FlashAvatar loads 512x512 only; other sizes are
    written with a warning that names the line to change there.
    crop: the tracker's own field of view, cut from the source frames where there are any.
    window: native pixels around the principal point; give --size 512.
    padded: the whole source frame at native scale, borders repeated to centre it.
    full: the source frames as they are; the pose is refitted to a principal point in the centre.
    auto: full, window or crop, whichever first fits."""
    matte: Path | None = None
    """Mattes as grey PNG, 255 is the person, at source or crop size: they become alpha/."""
    matte_names: Literal["auto", "frame", "image", "position"] = "auto"
    """What the matte's file names count: .frame numbers, images from 1, or places from 0 (0.png,
    or 0000.png as RobustVideoMatting has it)."""
    parsing: Path | None = None
    """Face parsing, PNG at source or crop size: BiSeNet's labels (0 to 18), INSTA's grey values, or
    FlashAvatar's own pairs N_neckhead.png and N_mouth.png."""
    parsing_names: Literal["auto", "frame", "image", "position"] = "auto"
    """What the parsing's file names count, as for the matte's."""
    quality: int = 95
    """JPEG quality of the written images, 1 to 100."""

    def require(self) -> None:
        """Raise UncropError for what no track could make right."""
        CanvasOptions.require(self)
        require_bounds(("--quality", self.quality, 1, 100))
        require_folder(self.matte, "--matte")
        require_folder(self.parsing, "--parsing")


TARGET = FolderTarget(
    name="flashavatar",
    summary="dataset and tracker folders for FlashAvatar",
    options=Options,
    package=__name__,
)
