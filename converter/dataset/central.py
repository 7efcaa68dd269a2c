"""The whole source frame under a central K: the poses refitted, judged, and kept with the track."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converter.errors import FitError, MissingInputError, TargetError
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine
from converter.geometry.pose import Pose
from converter.track import CentralCameras, Meshes, Track
from fitting.pose.central import CentralFit, refit_central

_VERTICES = 100
"""The fit takes as many of the mesh: on a real head 478 move its residual by 0.001 px."""

_ROUNDING_PX = 0.01


def with_central(track: Track, max_residual_px: float) -> Track:
    """Return the track with central cameras: those it has, if they are good, else fitted ones.

    The focal length stays the tracker's. Fitted along, it can halve the residual, or not change it,
    but the picture hardly knows it: on a real head it moved by 36 % (28 to 45 %, depending on the
    vertices that were used), and the head as much farther away.

    Raises
    ------
    FitError
        If the residual is above ``max_residual_px`` (median over the vertices, then the frames).
    UncropError
        If the track has no meshes or no known crop, or the fit fails.

    """
    if not 0 < max_residual_px < np.inf:
        raise TargetError("--max-residual", "a number of px above 0", f"{max_residual_px:g}")
    located = _even(track.in_source())
    if track.central is not None and _still_holds(track.central, located, max_residual_px):
        return track
    n_vertices = len(require_meshes(track).mean)
    picks = np.unique(np.linspace(0, n_vertices - 1, _VERTICES).round()).astype(np.int64)
    fit = refit_central(located, vertices=picks, max_residual_px=None)
    central = _measured(located, fit)
    if not central.residual_px[0] <= max_residual_px:
        raise FitError(
            f"{track.name}: a pose for a principal point in the centre of the whole frame",
            f"the mesh within {max_residual_px:g} px (median) of where the tracker has it",
            central.residual_text,
        )
    step = (
        "fitted a second pose, to a principal point in the centre of the source frame: it moves "
        f"the mesh by {central.residual_text}"
    )
    return replace(track, central=central).with_findings((), (step,))


def _even(located: Track) -> Track:
    """K of the frame without an odd last column or row: pixels stay where they are."""
    size = located.intrinsics.size.even
    return replace(located, intrinsics=located.intrinsics.map(PixelAffine.identity(), size))


def require_meshes(track: Track) -> Meshes:
    """Return the track's meshes; raises MissingInputError if it has none."""
    if track.meshes is None:
        raise MissingInputError(
            track.name, "meshes (output/<name>/mesh/NNNNN.ply) to refit the pose to", "none",
            "Use --canvas window or padded, which leave the pose alone.",
        )  # fmt: skip
    return track.meshes


def _measured(located: Track, fit: CentralFit) -> CentralCameras:
    """What the cameras move, measured at the mean mesh as well: later checks have only that."""
    median_px, max_px = fit.median_px.copy(), fit.max_px.copy()
    for i in range(len(located)):
        apart = _apart(located, fit.w2c, fit.intrinsics, i)
        median_px[i] = max(median_px[i], np.median(apart))
        max_px[i] = max(max_px[i], apart.max())
    return CentralCameras(fit.w2c, fit.intrinsics, median_px, max_px)


def _apart(located: Track, w2c: Pose, k: Intrinsics, i: int) -> Floats:
    """Distances (V,) of the mean mesh between the track's camera of frame i and another, px."""
    mesh = require_meshes(located).mean.astype(np.float64)
    distances: Floats = np.linalg.norm(k.project(w2c[i](mesh)) - located.project(i, mesh), axis=1)
    return distances


def _still_holds(central: CentralCameras, located: Track, max_residual_px: float) -> bool:
    """Whether kept cameras are good enough, and those of this track's poses."""
    if central.intrinsics.size != located.intrinsics.size:
        return False
    for i in range(len(located)):
        apart = _apart(located, central.w2c, central.intrinsics, i)
        if not np.median(apart) <= central.median_px[i] + _ROUNDING_PX:
            return False
    return central.residual_px[0] <= max_residual_px
