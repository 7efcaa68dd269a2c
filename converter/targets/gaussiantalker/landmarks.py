"""Landmark files (.lms) as GaussianTalker's loader reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converter.errors import FormatError
from converter.geometry.pixels import Floats, index_from_pixels, pixels_from_index
from converter.media.files import read_bytes


def lms_text(points: Floats) -> str:
    """One .lms file: 68 lines ``x y``, as numpy.savetxt with '%f' writes them.

    Detectors count pixel centres from 0, so these are index coordinates (reader:
    scene/talking_dataset_readers.py:282).
    """
    numbers = index_from_pixels(points).ravel().tolist()
    return ("{:f} {:f}\n" * len(points)).format(*numbers)


def read_lms(path: Path) -> Floats:
    """Landmarks (68, 2), edge-origin px; raises FormatError."""
    lines = read_bytes(path).decode("ascii", "replace").split("\n")[:69]
    try:
        points = np.array([[float(v) for v in line.split()] for line in lines if line.strip()])
    except ValueError:
        points = np.zeros(0)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise FormatError(path, "68 lines 'x y'", f"shape {points.shape}")
    return pixels_from_index(points)
