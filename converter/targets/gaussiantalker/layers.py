"""Parsing, background, torso: the layers that need a face parsing, moved with the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError, MissingInputError
from converter.geometry.pixels import PixelAffine, Size
from converter.media.images import ImageFiles, read_image, read_size, resample, resample_nearest
from converter.targets.gaussiantalker.canvas import Canvas
from converter.track import Image, Track

ParsingNames = Literal["auto", "frame", "image", "position"]

# Colours in OpenCV's channel order (process.py writes BGR arrays); exact equality is required.
HEAD, NECK, TORSO, BACKGROUND = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# INSTA's seg_mask: the label's grey value in the red channel (OpenCV channel 2).
_INSTA_HEAD = (250, 240, 230, 210, 200, 190, 180, 170, 160, 150, 140, 130, 120, 80, 70)
_INSTA_NECK = (110, 100)
_INSTA_TORSO = (90,)

_FAR_FROM_FOREGROUND_PX = 5
_BACKGROUND_STEP = 20


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
        paths = _numbered_paths(folder, names, track)
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
        return resample_nearest(image, self.canvas_from_parsing, size, BACKGROUND)


def _numbered_paths(folder: Path, names: ParsingNames, track: Track) -> tuple[Path, ...]:
    """Parsing file of every track frame; an off-by-one is never guessed."""
    ways = _ways_of_naming(track)
    tried = ways if names == "auto" else {str(names): ways.get(names, [])}
    lost = {
        way: [s for s in stems if not (folder / f"{s}.png").is_file()]
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
            folder / f"{first}.png",
            "the parsing of a frame",
            f"nothing ({len(lost[way])} of {len(track)} are missing, counting by {way})",
            "--parsing-names says what the names count: frame, image or position.",
        )
    return tuple(folder / f"{stem}.png" for stem in tried[fitting[0]])


def _ways_of_naming(track: Track) -> dict[str, list[str]]:
    """File stem of every track frame, by each convention that is in use."""
    ways = {"frame": [f"{i:05d}" for i in track.frame_ids]}
    if track.source_indices is not None:
        ways["image"] = [f"{i + 1:05d}" for i in track.source_indices]
        ways["position"] = [str(i) for i in track.source_indices]
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
    known = {0, *_INSTA_HEAD, *_INSTA_NECK, *_INSTA_TORSO}
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
    for values, colour in ((_INSTA_HEAD, HEAD), (_INSTA_NECK, NECK), (_INSTA_TORSO, TORSO)):
        table[list(values)] = colour
    return np.asarray(table[image[:, :, 2]], np.uint8)


def foreground(parsing: Image) -> NDArray[np.bool_]:
    """Where the parsing is not background, (H, W)."""
    front: NDArray[np.bool_] = np.any(parsing != np.array(BACKGROUND, np.uint8), axis=2)
    return front


def torso_image(image: Image, parsing: Image) -> Image:
    """Neck and torso with alpha 255, everything else transparent black; (H, W, 4), blue first."""
    body = np.all(parsing == np.array(NECK, np.uint8), axis=2)
    body |= np.all(parsing == np.array(TORSO, np.uint8), axis=2)
    out = np.zeros((*body.shape, 4), np.uint8)
    out[body, :3] = image[body]
    out[body, 3] = 255
    return out


def ground_truth_image(image: Image, parsing: Image, background: Image) -> Image:
    """Return the image with its background replaced by the clean one."""
    return np.where(foreground(parsing)[:, :, None], image, background)


def read_background(path: Path, track: Track, canvas: Canvas) -> Image:
    """Read a clean background picture and draw it on the canvas."""
    image = read_image(path)
    if Size.of(image) == canvas.size:
        return image
    return resample(image, canvas_map(Size.of(image), track, canvas, str(path)), canvas.size)


def derive_background(track: Track, canvas: Canvas, parsing: Parsing) -> Image:
    """Background from the frames: per pixel the colour of the frame whose foreground is farthest.

    Every 20th frame takes part; pixels never farther than 5 px from a foreground are filled from
    the nearest pixel that is.
    """
    import cv2

    picks = list(range(0, len(track), _BACKGROUND_STEP))
    colour = np.zeros((*canvas.size.shape, 3), np.uint8)
    farthest = np.zeros(canvas.size.shape, np.float32)
    for index, frame in zip(picks, canvas.frames.stream(picks), strict=True):
        drawn = resample(frame, canvas.window.canvas_from_image[index], canvas.size)
        free = (~foreground(parsing.read(index, canvas.size))).astype(np.uint8)
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 5)
        nearer = distance > farthest
        colour[nearer], farthest[nearer] = drawn[nearer], distance[nearer]
    known = farthest > _FAR_FROM_FOREGROUND_PX
    if not known.any():
        return colour
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    palette = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    palette[labels[known]] = colour[known]
    return np.asarray(palette[labels], np.uint8)
