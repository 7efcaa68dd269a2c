"""INSTA (https://github.com/Zielon/INSTA) dataset, for INSTA-pytorch and GaussianBlendshapes too.

Tree (N is the tracker's frame, five digits)::

    transforms.json transforms_{train,test,val}.json   K, camera to world, paths of every frame
    images/N.png       RGBA; alpha is the matte, or 255
    meshes/N.obj       the frame's mesh, metres;  canonical.obj: the mean of all
    flame/exp/N.txt    100 expression coefficients, one per line
    seg_mask/N.png     with --seg-mask
    depth/N.png        16 bits, mm, if the tracker's depth/ is there; moved with the images
    checkpoint/N.frame as metrical-tracker writes them, K rewritten: GaussianBlendshapes reads these
    proof.jpg  track.h5  uncrop.json   the picture, the record, the manifest

Axes: transform_matrix is camera to world, OpenCV camera axes (x right, y down, z forward), metres:
no flip, unlike NeRF's. Pixels edge origin; the principal point is honoured. Loader: INSTA,
instant-ngp/src/nerf_loader.cu, which takes the focal length from x_fov in degrees before fl_x;
writer that is imitated: INSTA, scripts/transforms.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converter.dataset.options import SceneOptions, Space, require_bounds, require_folder
from converter.dataset.target import FolderTarget


@dataclass(frozen=True)
class Options(SceneOptions):
    """Options of --to insta."""

    space: Space = "crop"
    """Which images are written.
    crop: the tracker's crops, cut from the source frames where there are any.
    source: the source frames as they are.
    window: native pixels around the principal point, which is then the image centre.
    auto: source where there are source frames, else crop."""
    seg_mask: Path | None = None
    """Face parsing in INSTA's grey values, PNG at source or crop size, named as the mattes are."""
    test: int | None = None
    """Frames at the end that are kept for testing. Default: 350, or a tenth of a short track."""

    def require(self) -> None:
        """Raise UncropError for what no track could make right."""
        SceneOptions.require(self)
        require_folder(self.seg_mask, "--seg-mask")
        if self.test is not None:
            require_bounds(("--test", self.test, 1, 1_000_000))


TARGET = FolderTarget(
    name="insta",
    summary="folder for INSTA, INSTA-pytorch and GaussianBlendshapes",
    options=Options,
    package=__name__,
)
