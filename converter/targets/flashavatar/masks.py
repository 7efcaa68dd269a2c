"""The two masks that FlashAvatar's loss looks at, from a face parsing: head with neck, and mouth.

BiSeNet's labels (https://github.com/zllrunning/face-parsing.PyTorch, trained on CelebAMask-HQ): 1
to 13 face, 11 the mouth between the lips, 14 neck, 15 necklace, 16 clothes, 17 hair, 18 hat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.dataset.parsing import (
    INSTA_HEAD,
    INSTA_NECK,
    INSTA_TORSO,
    ParsingNames,
    canvas_map,
    numbered_paths,
)
from converter.errors import ConventionError
from converter.geometry.pixels import PixelAffine, Size
from converter.media.files import scan_folder
from converter.media.images import read_image, read_size
from converter.media.resampling import resample_nearest
from converter.track import Image, Track

Grey = NDArray[np.uint8]
Style = Literal["pairs", "labels", "insta"]

HEAD_ENDING, MOUTH_ENDING = "_neckhead.png", "_mouth.png"
_LABELS = 19
_MOUTH, _CLOTHES = 11, 16
_INSTA_MOUTH = INSTA_HEAD[_MOUTH - 1]


@dataclass(frozen=True, slots=True)
class FaceMasks:
    """A folder of parsing images, one (or a pair) per track frame.

    Attributes
    ----------
    heads, mouths
        File of every track frame; the same one unless they are pairs.
    style
        What the pixels say.
    canvas_from_mask
        Map onto the canvas.

    """

    heads: tuple[Path, ...]
    mouths: tuple[Path, ...]
    style: Style
    canvas_from_mask: PixelAffine

    @classmethod
    def find(cls, folder: Path, names: ParsingNames, track: Track, canvas: Canvas) -> FaceMasks:
        """Find the parsing of every frame.

        Raises
        ------
        MissingInputError
            If a frame has none.
        ConventionError
            If more than one way of numbering fits, the images are neither of source nor of crop
            size, or tell no mouth apart.

        """
        if any(entry.name.endswith(HEAD_ENDING) for entry in scan_folder(folder)):
            heads = numbered_paths(folder, names, track, HEAD_ENDING)
            mouths = numbered_paths(folder, names, track, MOUTH_ENDING)
            style: Style = "pairs"
        else:
            heads = mouths = numbered_paths(folder, names, track)
            style = _style(read_image(heads[0]), heads[0])
        where = str(heads[0])
        return cls(heads, mouths, style, canvas_map(read_size(heads[0]), track, canvas, where))

    def read(self, index: int, size: Size) -> tuple[Grey, Grey]:
        """Head with neck, and mouth (H, W) of one track frame on the canvas: 0 or 255."""
        image = read_image(self.heads[index])
        if self.style == "pairs":
            mouth = read_image(self.mouths[index])
            return self._draw(image[..., 2] > 127, index, size), self._draw(
                mouth[..., 2] > 127, index, size
            )
        found = _style(image, self.heads[index])
        if found != self.style:
            raise ConventionError(self.heads[index], f"{self.style}, as the others", found)
        grey = image[..., 2]
        if self.style == "labels":
            head, is_mouth = (grey > 0) & (grey != _CLOTHES), grey == _MOUTH
        else:
            head, is_mouth = np.isin(grey, INSTA_HEAD + INSTA_NECK), grey == _INSTA_MOUTH
        return self._draw(head, index, size), self._draw(is_mouth, index, size)

    def _draw(self, mask: NDArray[np.bool_], index: int, size: Size) -> Grey:
        """Nothing is outside the picture."""
        image = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
        drawn = resample_nearest(image, self.canvas_from_mask[index], size, (0, 0, 0))
        return np.ascontiguousarray(drawn[..., 0])


def _style(image: Image, where: Path) -> Style:
    values = set(np.unique(image[..., 2]).tolist())
    grey = bool(np.all(image == image[..., 2:]))
    if grey and 1 < max(values) < _LABELS:
        return "labels"
    if max(values) > 1 and values <= {0, *INSTA_HEAD, *INSTA_NECK, *INSTA_TORSO}:
        return "insta"
    raise ConventionError(
        where, "BiSeNet's labels 0 to 18 or INSTA's grey values, unblurred",
        f"{len(values)} other values" if len(values) > 2 else f"the values {sorted(values)}",
        "GaussianTalker's colours tell no mouth apart; JPEG and interpolation destroy labels.",
    )  # fmt: skip
