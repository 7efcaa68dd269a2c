"""Torso and background under the head, from a face parsing on the canvas."""

from __future__ import annotations

import numpy as np

from converter.dataset.parsing import NECK, TORSO, foreground
from converter.track import Image


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
