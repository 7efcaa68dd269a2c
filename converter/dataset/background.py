"""A clean background on the canvas: given, or put together from the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converter.dataset.canvas import Canvas
from converter.dataset.parsing import Parsing, canvas_map, foreground
from converter.geometry.pixels import Size
from converter.media.images import read_image
from converter.media.resampling import resample
from converter.track import Image, Track

_FAR_FROM_FOREGROUND_PX = 5
_BACKGROUND_STEP = 20


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
    for index, draw in zip(picks, canvas.stream(picks), strict=True):
        drawn = draw(None)
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
