"""A face parsing moved with the images: found by what its file names count, read in any colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.errors import ConventionError, MissingInputError
from converter.geometry.pixels import PixelAffine, Size
from converter.media.images import ImageFiles, read_image, read_size
from converter.media.resampling import resample_nearest
from converter.track import Image, Track

ParsingNames = Literal["auto", "frame", "image", "position"]

# Colours in OpenCV's channel order (process.py writes BGR arrays); exact equality is required.
HEAD, NECK, TORSO, BACKGROUND = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# INSTA's seg_mask: the label's grey value in the red channel (OpenCV channel 2).
# In the order of BiSeNet's labels: 1 to 13, 17 (hair), 18 (hat); 14, 15; 16.
INSTA_HEAD = (250, 240, 230, 210, 200, 190, 180, 170, 160, 150, 140, 130, 120, 80, 70)
INSTA_NECK = (110, 100)
INSTA_TORSO = (90,)


@dataclass(frozen=True, slots=True)
class Parsing:
    """A folder of parsing images, one per track frame.

    Attributes
    ----------
    paths
        File of every track frame.
    style
        ``gaussiantalker`` or ``insta`` colours.
    canvas_from_parsing
        Map onto the canvas.

    """

    paths: tuple[Path, ...]
    style: str
    canvas_from_parsing: PixelAffine

    @classmethod
    def find(cls, folder: Path, names: ParsingNames, track: Track, canvas: Canvas) -> Parsing:
        """Find the parsing of every frame.

        Raises
        ------
        MissingInputError
            If a frame has none.
        ConventionError
            If more than one way of numbering fits, the images are neither of source nor of crop
            size, or the colours are unknown.

        """
        paths = numbered_paths(folder, names, track)
        style = _style(read_image(paths[0]), str(paths[0]))
        size = read_size(paths[0])
        return cls(paths, style, canvas_map(size, track, canvas, str(paths[0])))

    def read(self, index: int, size: Size) -> Image:
        """Parsing of one track frame on the canvas, in GaussianTalker's colours."""
        image = read_image(self.paths[index])
        if self.style == "insta":
            image = _from_insta(image)
        elif _style(image, str(self.paths[index])) != self.style:
            raise ConventionError(str(self.paths[index]), "the colours of the others", "others")
        return resample_nearest(image, self.canvas_from_parsing[index], size, BACKGROUND)


def numbered_paths(
    folder: Path, names: ParsingNames, track: Track, ending: str = ".png"
) -> tuple[Path, ...]:
    """File ``<stem><ending>`` of every track frame; an off-by-one is never guessed."""
    ways = _ways_of_naming(track, folder, ending)
    tried = ways if names == "auto" else {str(names): ways.get(names, [])}
    lost = {
        way: [s for s in stems if not (folder / f"{s}{ending}").is_file()]
        for way, stems in tried.items()
    }
    fitting = [way for way, stems in tried.items() if stems and not lost[way]]
    if len(fitting) > 1:
        raise ConventionError(
            folder,
            "file names that fit one way of counting",
            f"names that fit {' and '.join(fitting)}",
            "Say which with --parsing-names.",
        )
    if not fitting:
        way = min(lost, key=lambda w: len(lost[w]) or len(track) + 1)
        first = lost[way][0] if lost[way] else "00000"
        raise MissingInputError(
            folder / f"{first}{ending}",
            "the parsing of a frame",
            f"nothing ({len(lost[way])} of {len(track)} missing, counting by {way})",
            "--parsing-names says what the names count: frame, image or position.",
        )
    return tuple(folder / f"{stem}{ending}" for stem in tried[fitting[0]])


def _ways_of_naming(track: Track, folder: Path, ending: str) -> dict[str, list[str]]:
    """File stem of every track frame, by each convention that is in use."""
    ways = {"frame": [f"{i:05d}" for i in track.frame_ids]}
    if track.source_indices is not None:
        ways["image"] = [f"{i + 1:05d}" for i in track.source_indices]
        ways["position"] = [str(i) for i in track.source_indices]
        # RobustVideoMatting writes 0000.png, 0001.png ...
        padded = [stem.zfill(4) for stem in ways["position"]]
        if (folder / f"{padded[0]}{ending}").is_file():
            ways["position"] = padded
        if isinstance(track.source_frames, ImageFiles):
            ways["image"] = [p.stem for p in track.source_frames.paths]
    if ways.get("image") == ways["frame"]:
        del ways["image"]
    return ways


def canvas_map(size: Size, track: Track, canvas: Canvas, where: str) -> PixelAffine:
    """Map onto the canvas for an image of source or of crop size."""
    source = None if track.crop is None else track.crop.source
    crop = canvas.track.intrinsics.size if canvas.base == "crop" else None
    if track.crop is not None:
        crop = track.crop.output
    if size == crop:
        return canvas.canvas_from_crop
    if size == source and canvas.base == "source":
        return canvas.window.canvas_from_image
    if size == source and track.crop is not None:
        return canvas.canvas_from_crop @ track.crop.crop_from_source
    raise ConventionError(
        where, f"an image of source size ({source}) or crop size ({crop})", f"{size}"
    )


def _style(image: Image, where: str) -> str:
    colours = {tuple(int(v) for v in c) for c in np.unique(image.reshape(-1, 3), axis=0)[:64]}
    if colours <= {HEAD, NECK, TORSO, BACKGROUND}:
        return "gaussiantalker"
    known = {0, *INSTA_HEAD, *INSTA_NECK, *INSTA_TORSO}
    if {c[2] for c in colours} <= known:
        return "insta"
    raise ConventionError(
        where,
        "GaussianTalker's four colours or INSTA's grey values, unblurred",
        f"{len(colours)} colours",
        "Parsing must be PNG and must not be resized with interpolation.",
    )


def _from_insta(image: Image) -> Image:
    table = np.full((256, 3), 255, np.uint8)
    for values, colour in ((INSTA_HEAD, HEAD), (INSTA_NECK, NECK), (INSTA_TORSO, TORSO)):
        table[list(values)] = colour
    return np.asarray(table[image[:, :, 2]], np.uint8)


def foreground(parsing: Image) -> NDArray[np.bool_]:
    """Where the parsing is not background, (H, W)."""
    front: NDArray[np.bool_] = np.any(parsing != np.array(BACKGROUND, np.uint8), axis=2)
    return front
