"""The same picture under other intrinsics: poses refitted so that a forced K still shows the head.

Some trainers put the principal point in the image centre and know one focal length. Their camera
cannot be the track's, but one that turns a little shows almost the same picture; how much is left
is measured at every vertex of the mesh. Exact where it can be (`converter.geometry.Window` moves
the picture instead of the camera), an estimate here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from converter.errors import ConventionError, FitError, MissingInputError
from converter.geometry import Intrinsics, Pose
from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.correspondences import spread_vertices
from fitting.pose.fit import RigidFit, fit_rigid
from fitting.pose.problem import Ints

MAX_RESIDUAL_PX = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class CentralFit:
    """Cameras that show the picture of a track under other intrinsics.

    Attributes
    ----------
    w2c, intrinsics
        The new cameras.
    median_px, max_px
        (N,) how far the vertices of each frame's mesh are from where the track has them.
    fit
        What the solver says.

    """

    w2c: Pose
    intrinsics: Intrinsics
    median_px: Floats
    max_px: Floats
    fit: RigidFit

    @property
    def residual_px(self) -> tuple[float, float]:
        """Median over frames of the medians; largest of all."""
        return float(np.median(self.median_px)), float(self.max_px.max())

    def apply(self, track: Track) -> Track:
        """Return ``track`` with these cameras, and a word on it in its provenance."""
        median, worst = self.residual_px
        step = f"pose refitted to other intrinsics: {median:.3f} px median, {worst:.3f} px at most"
        moved = replace(track, w2c=self.w2c, intrinsics=self.intrinsics)
        return moved.with_findings((), (step,))


def central_intrinsics(intrinsics: Intrinsics) -> Intrinsics:
    """K of the same image with its principal point in the centre and one focal length for all."""
    f = float(np.sqrt(np.mean(intrinsics.fx) * np.mean(intrinsics.fy)))
    size = intrinsics.size
    return Intrinsics(f, f, size.width / 2, size.height / 2, size)


def refit_central(
    track: Track,
    intrinsics: Intrinsics | None = None,
    *,
    focal: Literal["keep", "shared"] = "keep",
    vertices: Ints | None = None,
    max_residual_px: float | None = MAX_RESIDUAL_PX,
) -> CentralFit:
    """Fit the poses of a track again, to its own projected mesh, under other intrinsics.

    Parameters
    ----------
    track
        Poses, true K and meshes, in the space of the image that is kept (`Track.in_source` for
        whole frames).
    intrinsics
        K to use instead; None: `central_intrinsics` of the track's.
    focal
        ``"shared"`` lets the solver choose one focal length for the sequence, near K's.
    vertices
        Vertices that the poses are fitted to; None: 500, spread over the mesh. The residual is
        measured at all.
    max_residual_px
        Largest median residual; None: any.

    Raises
    ------
    MissingInputError
        If the track has no meshes.
    ConventionError
        If the new K speaks of an image of another size, or a vertex lies behind its camera.
    FitError
        If the median residual is above ``max_residual_px``.

    """
    meshes = track.meshes
    if meshes is None:
        raise MissingInputError(
            track.name, "meshes to refit the pose to", "none", "Use a window or a padded canvas."
        )
    wanted = central_intrinsics(track.intrinsics) if intrinsics is None else intrinsics
    if wanted.size != track.intrinsics.size:
        raise ConventionError(
            f"{track.name}: intrinsics", f"K of {track.intrinsics.size}", f"K of {wanted.size}"
        )
    chosen = spread_vertices(len(meshes.mean)) if vertices is None else vertices
    frames = range(len(track))
    points = np.stack([meshes.vertices(i)[chosen] for i in frames]).astype(np.float64)
    seen = track.intrinsics.project(track.w2c(points))
    if not np.isfinite(seen).all():
        raise ConventionError(track.name, "meshes in front of their cameras", "some behind")
    fit = fit_rigid(
        points,
        seen,
        wanted,
        robust="squares",
        fov="shared" if focal == "shared" else "fixed",
        focal_prior=None,
        fov_limits_deg=fov_around(wanted),
    )
    medians, largest = np.zeros(len(track)), np.zeros(len(track))
    for i in frames:
        mesh = meshes.vertices(i).astype(np.float64)
        there = fit.intrinsics[i].project(fit.w2c[i](mesh))
        apart = np.linalg.norm(there - track.project(i, mesh), axis=1)
        medians[i], largest[i] = np.median(apart), apart.max()
    central = CentralFit(fit.w2c, fit.intrinsics, medians, largest, fit)
    median, worst = central.residual_px
    if max_residual_px is not None and not median <= max_residual_px:
        raise FitError(
            f"{track.name}: other intrinsics",
            f"the mesh within {max_residual_px:g} px (median) of where the track has it",
            f"{median:.2f} px, {worst:.2f} px at most",
            "Use a window or a padded canvas, whose cameras are exact, or allow a larger residual.",
        )
    return central


def fov_around(intrinsics: Intrinsics) -> tuple[float, float]:
    """Bounds of a chosen focal length: a factor of 1.5 either way, as fov of the shorter side."""
    half = min(intrinsics.size.width, intrinsics.size.height) / 2
    f = float(np.mean(intrinsics.fx))
    low, high = (2 * np.degrees(np.arctan(half / (f * k))) for k in (1.5, 1 / 1.5))
    return float(low), float(high)
