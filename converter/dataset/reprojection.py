"""The proof in numbers: the mesh through the written cameras, held against the track's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from converter.dataset.record import Reference
from converter.dataset.view import meshes_for_proof
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats

REPROJECTION_LIMIT_PX = 0.02

_MAX_POINTS = 2_000_000
_ROUNDING_PX = 0.01


def compare_mean_mesh(
    reference: Reference,
    project: Callable[[int, Floats], Floats],
    *,
    what: str,
    names: Sequence[int] | None = None,
) -> list[Finding]:
    """Hold every frame's camera, exact or refitted, against the record's by the mean mesh.

    Parameters
    ----------
    reference
        What the dataset was made from.
    project
        ``project(i, points)``: edge-origin px of world points (P, 3), metres, by the i-th camera.
    what
        What the dataset calls a frame, for the message.
    names
        Its numbers of the frames. Default: 0, 1, 2...

    """
    mesh = meshes_for_proof(reference.track).mean.astype(np.float64)
    positions = [int(p) for p in reference.positions]
    frames = list(zip(range(len(positions)) if names is None else names, positions, strict=True))

    def picked(i: int, picks: NDArray[np.int64]) -> Floats:
        return project(i, mesh[picks])

    return [
        compare_projections(
            reference, frames, picked, mesh=mesh, what=what, limit_px=REPROJECTION_LIMIT_PX
        ),
        *compare_refitted(reference, frames, picked, mesh=mesh),
    ]


def compare_projections(
    reference: Reference,
    frames: Iterable[tuple[int, int]],
    project: Callable[[int, NDArray[np.int64]], Floats],
    *,
    mesh: Floats,
    limit_px: float,
    what: str,
) -> Finding:
    """Largest distance between the mean mesh through a dataset's cameras and through the record's.

    These are the track's own, or on canvas full the refitted ones; `compare_refitted` holds those
    against the track's.

    Parameters
    ----------
    reference
        The track.
    frames
        (number of a frame in the dataset, its position in the track).
    project
        ``project(i, picks)``: edge-origin px of the vertices ``mesh[picks]`` in the i-th of
        ``frames``, as the consumer draws them.
    mesh
        (V, 3) vertices, metres.
    limit_px
        Largest distance that passes.
    what
        How the dataset calls a frame's number, for the message.

    """
    pairs = list(frames)
    step = max(1, len(mesh) * len(pairs) // _MAX_POINTS)
    picks = np.arange(0, len(mesh), step)
    worst, worst_number, lost = 0.0, -1, False
    for i, (number, position) in enumerate(pairs):
        true = reference.project_written(position, mesh[picks])
        difference = np.linalg.norm(project(i, picks) - true, axis=-1)
        lost |= bool(np.isnan(difference).any())
        if np.nanmax(difference, initial=0.0) > worst:
            worst, worst_number = float(np.nanmax(difference)), number
    message = f"max reprojection difference {worst:.5f} px over {counted(len(pairs), 'frame')}"
    if not lost and worst <= limit_px:
        return Finding("reprojection", "info", "cameras", message, worst, limit_px, "px")
    cause = "; vertices lie behind a camera" if lost else f", worst at {what} {worst_number}"
    return Finding("reprojection", "error", "cameras", f"{message}{cause}.", worst, limit_px, "px")


def compare_refitted(
    reference: Reference,
    frames: Iterable[tuple[int, int]],
    project: Callable[[int, NDArray[np.int64]], Floats],
    *,
    mesh: Floats,
) -> list[Finding]:
    """Hold a dataset's refitted cameras against the track's own, frame by frame.

    No frame's mean mesh may be farther off than the record says of that frame. Parameters as
    `compare_projections`; nothing is found on an exact canvas.
    """
    central = reference.central
    if central is None:
        return []
    pairs = list(enumerate(frames))
    pairs = pairs[:: max(1, len(mesh) * len(pairs) // _MAX_POINTS)]
    every = np.arange(len(mesh))
    medians, largest, beyond = [], [], -np.inf
    for i, (_, position) in pairs:
        apart = np.linalg.norm(project(i, every) - reference.project(position, mesh), axis=-1)
        medians.append(float(np.median(apart)))
        largest.append(float(apart.max()))
        stated = central.median_px[position], central.max_px[position]
        beyond = max(beyond, medians[-1] - stated[0], largest[-1] - stated[1])
    median, worst = float(np.median(medians)), max(largest)
    message = f"refitted cameras move the mesh by {median:.3f} px (median), {worst:.3f} px at most"
    if beyond <= _ROUNDING_PX:  # false for NaN too
        return [Finding("residual", "info", "cameras", message, median, None, "px")]
    return [Finding("residual", "error", "cameras", f"{message}, more than the fit said.", beyond,
                    _ROUNDING_PX, "px")]  # fmt: skip
